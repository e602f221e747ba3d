//! Jobs of a search on a Ray cluster: a Python program (`tools/ray`) places them, this end says what they are and where
//! their files belong. The two speak in lines of JSON.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use serde::{Deserialize, Serialize};

use super::job::{News, State};
use super::worker::{Line, Member, Request};
use super::{Engine, Task};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::spec::{DeviceChoice, SearchResources, Spec};

/// The Python module that drives the cluster.
const MODULE: &str = "slm_fast_ray";
/// Time between two looks at whether the search is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where the cluster is and how it is reached.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Ray's address: `auto`, `host:port`, `ray://host:port`, or `local` to start one on this machine.
    pub address: String,
    /// The Python interpreter that has Ray and the module.
    pub python: PathBuf,
}

/// What is told to the driver.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ask<'a> {
    /// Run a job; its first trial names it.
    Run { job: u32, cpu: f64, gpu: f64, folder: &'a Path, checkpoint: String, request: &'a Request },
    /// Have every job save a checkpoint and end.
    Stop {},
}

/// What the driver tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The cluster can be used: jobs that fit it at once.
    Ready { slots: usize },
    /// A line of a worker.
    Line { job: u32, line: Line },
    /// A worker was lost, and its job begun again.
    Lost { job: u32, reason: String },
    /// A job cannot be done.
    Failed { job: u32, reason: String },
    /// Nothing can be done.
    Broken { reason: String },
}

/// A Ray cluster, through the driver's process.
pub struct Ray {
    driver: Child,
    /// None once it is told to end.
    ask: Option<ChildStdin>,
    answers: Receiver<Answer>,
    slots: usize,
    resources: SearchResources,
    device: DeviceChoice,
    checkpoint_every: Duration,
}

impl Ray {
    /// Starts the driver and connects to the cluster.
    ///
    /// # Errors
    /// No such interpreter; no Ray in it; a cluster that cannot be reached.
    pub fn connect(cluster: &Cluster, spec: &Spec, device: DeviceChoice, every: Duration) -> Result<Ray> {
        let resources = spec.meta.search_resources.clone().unwrap_or(SearchResources { cpu: 1.0, gpu: 0.0 });
        let program = std::env::current_exe()
            .map_err(|error| Error::new("", format!("cannot find this program's own file: {error}")))?;
        let place = format!("--python {}", cluster.python.display());
        let hint = "install Ray and the driver into it: `pip install ./tools/ray`; `--python` names the interpreter";
        let mut command = Command::new(&cluster.python);
        command.args(["-m", MODULE, "--address", &cluster.address]);
        command.args(["--cpu", &resources.cpu.to_string(), "--gpu", &resources.gpu.to_string()]);
        command.arg("--program").arg(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for this process, which then asks the cluster to save and stop
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut driver =
            command.spawn().map_err(|error| Error::new(&place, format!("cannot start it: {error}")).hint(hint))?;
        let ask = driver.stdin.take().expect("piped");
        let (out, mut err) = (driver.stdout.take().expect("piped"), driver.stderr.take().expect("piped"));
        let (send, answers) = unbounded();
        std::thread::spawn(move || {
            // what is not an answer is a library's chatter
            let lines = BufReader::new(out).lines().map_while(std::result::Result::ok);
            lines.filter_map(|line| serde_json::from_str(&line).ok()).try_for_each(|answer| send.send(answer))
        });
        let complaints = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let slots = match answers.recv() {
            Ok(Answer::Ready { slots }) => slots.max(1),
            Ok(Answer::Broken { reason }) => {
                return Err(Error::new(format!("--address {}", cluster.address), reason)
                    .hint("start a cluster with `ray start --head`, or use `--address local`"));
            }
            _ => {
                let _ = driver.wait();
                let text = complaints.join().unwrap_or_default();
                let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
                return Err(Error::new(place, format!("the driver of Ray did not start: {last}")).hint(hint));
            }
        };
        let ask = Some(ask);
        Ok(Ray { driver, ask, answers, slots, resources, device, checkpoint_every: every })
    }

    /// For a person: what it is.
    pub fn line(&self) -> String {
        format!("ray, {} jobs side by side, each on {}", self.slots, self.device)
    }

    fn tell_driver(&mut self, ask: &Ask) -> Result<()> {
        let text = serde_json::to_string(ask).expect("a request is JSON");
        let ask = self.ask.as_mut().expect("it is open until this is dropped");
        writeln!(ask, "{text}").and_then(|()| ask.flush()).map_err(|_| gone())
    }
}

impl Engine for Ray {
    fn most_sessions(&self, plan: &Plan, trials: usize) -> usize {
        trials.div_ceil(self.slots) * plan.max_session as usize
    }

    fn advance(
        &mut self,
        tasks: &[Task],
        stop: &Arc<AtomicBool>,
        tell: &(dyn Fn(u32, News) + Sync),
    ) -> Result<Vec<State>> {
        for task in tasks {
            let member = |trial: &super::Drawn| Member { trial: trial.trial, spec: trial.spec.clone() };
            let folder = &task.folder;
            let root = std::path::absolute(folder.root())
                .map_err(|error| Error::io(folder.root(), "cannot be made an absolute path", &error))?;
            let request = Request {
                name: folder.spec_name().to_string(),
                trials: task.trials.iter().map(member).collect(),
                stop: task.order.stop.clone(),
                until: task.order.until,
                device: self.device,
                threads: (self.resources.cpu as usize).max(1),
                checkpoint_every_s: self.checkpoint_every.as_secs_f64(),
            };
            let (cpu, gpu) = (self.resources.cpu, self.resources.gpu);
            let path = folder.resume(task.trials[0].trial);
            let checkpoint = path.strip_prefix(folder.root()).unwrap_or(&path).to_string_lossy().into_owned();
            self.tell_driver(&Ask::Run { job: task.id, cpu, gpu, folder: &root, checkpoint, request: &request })?;
        }
        let mut states: BTreeMap<u32, State> = BTreeMap::new();
        let mut has_asked = false;
        let mut failed = None;
        while states.len() < tasks.len() {
            if (stop.load(Ordering::Relaxed) || failed.is_some()) && !has_asked {
                self.tell_driver(&Ask::Stop {})?;
                has_asked = true;
            }
            match self.answers.recv_timeout(LOOK_EVERY) {
                Ok(Answer::Line { job, line: Line::News { frame, frames, best, warnings, has_saved } }) => {
                    tell(job, News { frame, frames, best: best.unwrap_or(f64::NAN), warnings, has_saved });
                }
                Ok(Answer::Line { job, line }) => drop(states.insert(job, State::from(&line))),
                Ok(Answer::Lost { job, reason }) => {
                    let text =
                        format!("the worker of trial {job}'s job is lost ({reason}); it goes on from its checkpoint");
                    tell(job, News { best: f64::NAN, warnings: vec![text], ..News::default() });
                }
                Ok(Answer::Failed { job, reason }) => {
                    failed.get_or_insert(Error::new(format!("the job of trial {job}"), reason));
                    states.insert(job, State::Interrupted);
                }
                Ok(Answer::Broken { reason }) => return Err(Error::new("--address", reason)),
                Ok(Answer::Ready { .. }) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(tasks.iter().map(|task| states.remove(&task.id).expect("every job has answered")).collect())
    }
}

impl Drop for Ray {
    fn drop(&mut self) {
        // the end of its input ends the driver, and the driver its workers
        self.ask = None;
        let _ = self.driver.wait();
    }
}

fn gone() -> Error {
    Error::new("--engine ray", "the driver of Ray has ended").hint("its complaint, if any, is in Ray's logs")
}
