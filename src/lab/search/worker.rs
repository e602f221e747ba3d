//! One job in a process of its own, wherever a cluster starts it: a folder with a `job.json` in, lines of JSON out.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::experiment::Drawn;
use super::job::{Job, News, Order, State};
use crate::error::{Error, Result};
use crate::lab::device;
use crate::plan::Plan;
use crate::report::files::RunFolder;
use crate::report::json;
use crate::spec::{DeviceChoice, Spec};

/// Name of the file that says what to do.
pub const REQUEST: &str = "job.json";
/// Least time between two lines of news.
const NEWS_EVERY: Duration = Duration::from_millis(200);

/// What a job is and what it is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Name of the experiment's spec, the first part of every file name.
    pub name: String,
    pub trials: Vec<Member>,
    /// Trials that end where they are.
    pub stop: Vec<u32>,
    /// Frame that the others go on to.
    pub until: u64,
    pub device: DeviceChoice,
    pub threads: usize,
    pub checkpoint_every_s: f64,
}

/// A trial of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    pub trial: u32,
    /// As `train` runs it, with its own seed.
    pub spec: Spec,
}

/// A line that a worker prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// It works.
    News {
        frame: u64,
        frames: u64,
        best: Option<f64>,
        warnings: Vec<String>,
        /// A checkpoint was written since the last line.
        has_saved: bool,
    },
    /// It has done what it was told; a trial's score is null where it has none.
    Waiting { scores: Vec<(u32, Option<f64>)> },
    /// Every trial has ended.
    Done {},
    /// Stopped from outside, with a checkpoint.
    Interrupted {},
}

impl From<&Line> for State {
    /// What a job's last line says.
    fn from(line: &Line) -> State {
        match line {
            Line::Waiting { scores } => {
                State::Waiting(scores.iter().map(|&(trial, score)| (trial, score.unwrap_or(f64::NAN))).collect())
            }
            Line::Done {} => State::Done,
            Line::Interrupted {} | Line::News { .. } => State::Interrupted,
        }
    }
}

/// Does what the `job.json` in `folder` says, with a run's folders beside it, and prints [`Line`]s. A line on stdin asks it
/// to stop with a checkpoint; the end of stdin means that whoever started it is gone, and ends the process.
///
/// # Errors
/// A request that cannot be read or carried out.
pub fn work(folder: &Path) -> Result<()> {
    let request: Request = json::read(&folder.join(REQUEST))?;
    let folder = RunFolder::within(folder, &request.name)?;
    let drawn = |member: &Member| -> Result<Drawn> {
        let plan = Plan::new(&member.spec)?;
        let seed = member.spec.meta.random_seed.ok_or_else(|| Error::new("meta.random_seed", "is not set"))?;
        let (trial, spec) = (member.trial, member.spec.clone());
        Ok(Drawn { trial, seed, values: Vec::new(), positions: Vec::new(), spec, plan })
    };
    let trials = request.trials.iter().map(drawn).collect::<Result<Vec<_>>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    listen(stop.clone());
    let device = device::open(request.device, request.threads)?.device;
    let every = Duration::from_secs_f64(request.checkpoint_every_s);
    let job = Job::open(&folder, &trials, device, every)?;
    let pending = std::cell::RefCell::new((News { best: f64::NAN, ..News::default() }, Instant::now()));
    let tell = |news: News| {
        let (sum, said) = &mut *pending.borrow_mut();
        sum.frame = news.frame;
        sum.frames += news.frames;
        sum.best = sum.best.max(news.best);
        sum.warnings.extend(news.warnings);
        sum.has_saved |= news.has_saved;
        if said.elapsed() >= NEWS_EVERY || sum.has_saved {
            say_news(std::mem::replace(sum, News { best: f64::NAN, ..News::default() }));
            *said = Instant::now();
        }
    };
    let (state, job) = job.advance(&Order { stop: request.stop, until: request.until }, &stop, &tell)?;
    if let Some(job) = job {
        job.park()?;
    }
    let (last, _) = pending.into_inner();
    if last.frames > 0 {
        say_news(last);
    }
    say(&match state {
        State::Waiting(scores) => Line::Waiting {
            scores: scores.into_iter().map(|(trial, score)| (trial, Some(score).filter(|s| s.is_finite()))).collect(),
        },
        State::Done => Line::Done {},
        State::Interrupted => Line::Interrupted {},
    });
    Ok(())
}

/// Follows stdin beside the work.
fn listen(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            stop.store(true, Ordering::Relaxed);
        }
        std::process::exit(1);
    });
}

fn say_news(News { frame, frames, best, warnings, has_saved }: News) {
    say(&Line::News { frame, frames, best: Some(best).filter(|best| best.is_finite()), warnings, has_saved });
}

/// Prints a line. A reader that has gone away is noticed on stdin.
fn say(line: &Line) {
    let text = serde_json::to_string(line).expect("numbers and strings are JSON");
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
