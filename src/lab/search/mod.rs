//! Search: an experiment of many trials whose searched keys differ, from a spec with a `search` section.
//!
//! Trials are drawn in waves, those of one shape travel in one cohort (a job), and a scheduler may stop some of them at its
//! rungs. Who computes is an `Engine`: this process, or a cluster. What an experiment comes to follows from its spec and
//! seed alone: not from the engine, the machine's size, or how often it was stopped.

mod asha;
mod axis;
pub(super) mod experiment;
mod job;
pub(super) mod local;
mod ray;
mod sampler;
pub mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lab::device::{self, choice};
use crate::lab::progress::{Progress, Verbosity, count, number};
use crate::lab::provenance::{Facts, Program};
use crate::lab::reproduce::write_script;
use crate::lab::resume;
use crate::lab::trial::{TRIAL, seed_from_system, stamped};
use crate::plan::Plan;
use crate::report;
use crate::report::files::RunFolder;
use crate::report::json;
use crate::report::log::{Level, Log};
use crate::spec::{self, DeviceChoice, Spec};
use asha::Asha;
use experiment::{Drawn, draw, into_jobs};
pub use experiment::{Record, Status};
pub use job::{News, Order, State};
use local::Local;
pub use ray::Cluster;
use ray::Ray;
use sampler::{Sampler, Told};

/// Time between two writes of the table of an experiment that runs.
const TABLE_EVERY: Duration = Duration::from_secs(10);

/// How a search is run; nothing here changes a result.
pub struct Options {
    /// Receives the experiment's folder.
    pub data: PathBuf,
    /// Where to run, if not where the spec says.
    pub device: Option<DeviceChoice>,
    /// CPU threads, 0 for one per core.
    pub threads: usize,
    /// Time between resumable checkpoints.
    pub checkpoint_every: Duration,
    pub verbosity: Verbosity,
    /// Set from outside to stop after the iterations in progress, with checkpoints.
    pub stop: Arc<AtomicBool>,
    /// When the process started.
    pub started: Instant,
    /// What the files say about who made them.
    pub program: Program,
    /// Trials whose models are kept, best first; none: all.
    pub keep: Option<usize>,
    /// A Ray cluster that computes; none: this process.
    pub cluster: Option<Cluster>,
}

/// How a search ended.
#[derive(Debug)]
pub enum Ending {
    /// Every trial has ended.
    Finished(Summary),
    /// Stopped from outside; every job has a checkpoint on disk.
    Interrupted { folder: PathBuf },
    /// Was finished before; nothing was done.
    AlreadyComplete { folder: PathBuf },
}

/// What a finished search came to.
#[derive(Debug)]
pub struct Summary {
    pub folder: PathBuf,
    /// Every trial, best first.
    pub ranking: Vec<Record>,
    /// Frames done in this process, summed over sessions.
    pub frames: u64,
    /// Wall time since the process started, files included.
    pub wall: Duration,
}

/// A job with what it is to do next.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// Names the job among those under way.
    pub id: u32,
    /// Where its files go.
    pub folder: RunFolder,
    pub trials: Vec<Drawn>,
    pub order: Order,
}

impl Task {
    /// Whether every trial has ended. A kill may have come between the last of its files and the end of its checkpoint,
    /// which then goes now.
    ///
    /// # Errors
    /// A checkpoint that cannot be removed.
    pub fn is_done(&self) -> Result<bool> {
        let done = self.trials.iter().all(|drawn| experiment::has_ended(&self.folder, drawn.trial));
        if done {
            job::remove_checkpoint(&self.folder, self.trials[0].trial)?;
        }
        Ok(done)
    }

    /// Sessions of all its trials.
    pub fn sessions(&self) -> usize {
        self.trials.iter().map(|trial| trial.plan.max_session as usize).sum()
    }
}

/// Who computes.
pub(super) trait Engine {
    /// Sessions that one job of this plan may have, where a wave has `trials` trials of its shape.
    fn most_sessions(&self, plan: &Plan, trials: usize) -> usize;

    /// Carries out every task, and returns when all of them have; `tell` hears of each job by its id.
    fn advance(
        &mut self,
        tasks: &[Task],
        stop: &Arc<AtomicBool>,
        tell: &(dyn Fn(u32, News) + Sync),
    ) -> Result<Vec<State>>;
}

/// `info/{spec}_jobs.json`: how the waves begun so far were split, so that a resumed search finds its checkpoints whatever
/// machine it goes on with.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Jobs {
    waves: Vec<Vec<Vec<u32>>>,
}

/// What the `search` section of a spec comes to, for a person; none without one.
///
/// # Errors
/// What [`search`] would refuse it for.
pub fn outline(spec: &Spec) -> Result<Option<String>> {
    let Some(section) = &spec.search else { return Ok(None) };
    let sampler = Sampler::new(spec, spec.meta.random_seed.unwrap_or(0))?;
    let waves = sampler.waves();
    let first = draw(&sampler, spec, waves.first().cloned().unwrap_or(0..0), &[])?;
    let shapes = into_jobs(&first, |_, _| usize::MAX).len();
    let (trials, keys) = (sampler.trials(), section.0.len());
    let plural = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    Ok(Some(format!(
        "{} by {} over {}, in {}; {} in the first",
        plural(trials, "trial"),
        format!("{:?}", sampler.kind()).to_lowercase(),
        plural(keys, "key"),
        plural(waves.len(), "wave"),
        plural(shapes, "cohort")
    )))
}

/// Searches from frame 0 in a new folder below [`Options::data`].
///
/// # Errors
/// A spec without a `search` section or whose trials cannot be planned, a folder that cannot be written. Nothing is
/// written before the first wave stands.
pub fn search(mut spec: Spec, options: Options) -> Result<Ending> {
    let seed = *spec.meta.random_seed.get_or_insert_with(seed_from_system);
    let sampler = Sampler::new(&spec, seed)?;
    Plan::new(&spec)?;
    for wave in sampler.waves().into_iter().take(1) {
        draw(&sampler, &spec, wave, &[])?;
    }
    let opened = open(&options, &spec)?;
    spec.meta.device = opened.choice;
    let folder = RunFolder::create(&options.data, &spec.name)?;
    spec.meta.git_sha = Some(options.program.git_sha.clone());
    spec.meta.git_dirty = options.program.git_dirty;
    opened.facts(&options).write(&folder)?;
    write_script(&folder, &options.program.git_sha)?;
    json::write(&folder.spec(), &stamped(&folder, spec.clone(), None))?;
    Search::new(spec, seed, sampler, folder, options)?.run(opened)
}

/// Continues the search in `folder`.
///
/// # Errors
/// A folder that is no search, a checkpoint that is damaged, of another program or of a newer version.
pub fn resume(folder: &Path, options: Options) -> Result<Ending> {
    let folder = RunFolder::open(folder)?;
    if folder.experiment_df().exists() {
        return Ok(Ending::AlreadyComplete { folder: folder.root().to_path_buf() });
    }
    let path = folder.spec();
    let spec = spec::load(&path, Some(folder.spec_name()), &[])?.spec;
    if !folder.experiment_log().exists() && folder.trial_log(TRIAL).exists() {
        return Err(Error::new(folder.root().display().to_string(), "this is a run of one trial, not a search")
            .hint(format!("`slm-fast train --resume {}` continues it", folder.root().display())));
    }
    let seed = resume::seed(&spec, &folder)?;
    let sampler = Sampler::new(&spec, seed).map_err(|error| error.within(&path.display().to_string()))?;
    let opened = open(&options, &spec)?;
    let facts = opened.facts(&options);
    let search = Search::new(spec, seed, sampler, folder, options)?;
    // once the folder is ours
    facts.write_again(&search.folder)?;
    search.run(opened)
}

/// Who computes, ready to begin.
struct Opened {
    /// The device, here or of a cluster's workers.
    choice: DeviceChoice,
    site: Site,
}

impl Opened {
    /// What ran the search; of a cluster, the machine that leads it.
    fn facts(&self, options: &Options) -> Facts {
        let name = match &self.site {
            Site::Here(opened) => opened.device.describe(),
            Site::There(_) => format!("{} of a Ray cluster", self.choice),
        };
        Facts::now(&options.program, self.choice, &name)
    }
}

enum Site {
    Here(device::Opened),
    There(Box<Ray>),
}

/// Opens the device that the options name, or else the spec, or a cluster; before anything is written.
fn open(options: &Options, spec: &Spec) -> Result<Opened> {
    let asked = options.device.unwrap_or(spec.meta.device);
    let Some(cluster) = &options.cluster else {
        let opened = device::open(asked, options.threads)?;
        return Ok(Opened { choice: choice(&opened.device), site: Site::Here(opened) });
    };
    let gpus = spec.meta.search_resources.as_ref().map_or(0.0, |resources| resources.gpu);
    let choice = match asked {
        // a worker sees the gpus that it was given, counted from 0
        DeviceChoice::Auto if gpus > 0.0 => DeviceChoice::Cuda(0),
        DeviceChoice::Auto => DeviceChoice::Cpu,
        named => named,
    };
    let ray = Ray::connect(cluster, spec, choice, options.checkpoint_every)?;
    Ok(Opened { choice, site: Site::There(Box::new(ray)) })
}

/// A search under way.
struct Search {
    spec: Spec,
    seed: u32,
    sampler: Sampler,
    folder: RunFolder,
    log: Mutex<Log>,
    options: Options,
    jobs: Jobs,
    /// Every trial drawn so far, in order.
    drawn: Vec<Drawn>,
    /// Trials that the scheduler stopped.
    stopped: Vec<u32>,
    /// Of trials still running, at the frame where they wait.
    scores: BTreeMap<(u32, u64), f64>,
    asha: Option<Asha>,
}

/// What is shown of the jobs under way.
struct Board {
    progress: Progress,
    /// Frames behind each job, over all its sessions; by id.
    behind: BTreeMap<u32, u64>,
    /// Frames done by this process.
    frames: u64,
    best: f64,
    next_table: Instant,
}

impl Search {
    fn new(spec: Spec, seed: u32, sampler: Sampler, folder: RunFolder, options: Options) -> Result<Search> {
        let log = Log::open(&folder.experiment_log())?;
        // nobody else writes here now
        folder.remove_leftovers();
        let path = folder.experiment_info("jobs.json");
        let jobs = if path.exists() { json::read(&path)? } else { Jobs::default() };
        let asha = spec.meta.search_scheduler.clone().map(|scheduler| Asha::new(scheduler, spec.env.max_frame));
        Ok(Search {
            spec,
            seed,
            sampler,
            folder,
            log: Mutex::new(log),
            options,
            jobs,
            drawn: Vec::new(),
            stopped: Vec::new(),
            scores: BTreeMap::new(),
            asha,
        })
    }

    /// Runs every wave.
    fn run(mut self, opened: Opened) -> Result<Ending> {
        let root = self.folder.root().to_path_buf();
        let ending = match opened.site {
            Site::There(mut ray) => {
                let line = ray.line();
                self.all_waves(ray.as_mut(), &line)
            }
            Site::Here(device::Opened { device, line }) => {
                let Options { threads, checkpoint_every, .. } = self.options;
                let mut local = Local::new(&device, threads, checkpoint_every);
                self.all_waves(&mut local, &line)
            }
        };
        ending.map_err(|error| continuable(error, &root))
    }

    fn all_waves(&mut self, engine: &mut dyn Engine, line: &str) -> Result<Ending> {
        let (trials, sessions) = (self.sampler.trials(), self.spec.meta.max_session);
        let total = (trials * sessions) as u64 * self.spec.env.max_frame;
        let label = format!("{} {trials} trials", self.spec.name);
        let names = [label.clone()];
        let progress = Progress::new(&label, &names, 0..total, Instant::now(), self.options.verbosity).together();
        progress.line(&format!("device: {line}"));
        let opening = format!(
            "{}: {trials} trials x {sessions} sessions x {} frames, sampler {}, seed {}, in {}",
            self.spec.name,
            count(self.spec.env.max_frame as f64),
            format!("{:?}", self.sampler.kind()).to_lowercase(),
            self.seed,
            self.folder.root().display()
        );
        progress.line(&opening);
        self.note(&opening)?;
        let board = Mutex::new(Board {
            progress,
            behind: BTreeMap::new(),
            frames: 0,
            best: f64::NAN,
            next_table: Instant::now() + TABLE_EVERY,
        });
        let mut told: Vec<Told> = Vec::new();
        for (number, wave) in self.sampler.waves().into_iter().enumerate() {
            let trials = draw(&self.sampler, &self.spec, wave, &told)?;
            self.write_specs(&trials)?;
            if self.jobs.waves.len() == number {
                self.jobs.waves.push(into_jobs(&trials, |plan, trials| engine.most_sessions(plan, trials)));
                json::write(&self.folder.experiment_info("jobs.json"), &self.jobs)?;
            }
            self.drawn.extend(trials.iter().cloned());
            if !self.wave(number, &trials, engine, &board)? {
                lock(&board).progress.finish();
                self.note("interrupted")?;
                return Ok(Ending::Interrupted { folder: self.folder.root().to_path_buf() });
            }
            for trial in trials {
                let score = experiment::metrics(&self.folder, trial.trial)?.total_reward_ma;
                told.push(Told { positions: trial.positions, score });
            }
        }
        let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
        board.progress.finish();
        self.finish(board.frames)
    }

    /// Runs a wave to its end; false where it was interrupted.
    fn wave(&mut self, number: usize, trials: &[Drawn], engine: &mut dyn Engine, board: &Mutex<Board>) -> Result<bool> {
        let find = |trial: &u32| trials.iter().find(|drawn| drawn.trial == *trial).cloned();
        let mut tasks = Vec::new();
        for group in &self.jobs.waves[number] {
            let members: Option<Vec<Drawn>> = group.iter().map(find).collect();
            let members = members.filter(|members| !members.is_empty()).ok_or_else(|| {
                let place = self.folder.experiment_info("jobs.json").display().to_string();
                Error::new(place, "it names trials that the spec does not draw")
                    .hint("put the folder's own spec back, or search anew")
            })?;
            let order = Order { stop: Vec::new(), until: 0 };
            tasks.push(Task { id: members[0].trial, folder: self.folder.clone(), trials: members, order });
        }
        let max_frame = self.spec.env.max_frame;
        let rungs = self.asha.as_ref().map(Asha::rungs).unwrap_or_default();
        let mut ended: Vec<u32> = Vec::new();
        for until in rungs.into_iter().chain([max_frame]) {
            tasks.iter_mut().for_each(|task| task.order.until = until);
            if !self.advance(&tasks, engine, board)? {
                return Ok(false);
            }
            if until == max_frame {
                break;
            }
            let mut arrived = Vec::new();
            for drawn in trials.iter().filter(|drawn| !ended.contains(&drawn.trial)) {
                let known = self.scores.get(&(drawn.trial, until)).copied();
                let score = known.map_or_else(|| experiment::score(&self.folder, drawn, until), Ok)?;
                arrived.push((drawn.trial, score));
            }
            let stopped = self.asha.as_mut().expect("rungs are the scheduler's").judge(until, &arrived);
            let (on, of) = (arrived.len() - stopped.len(), arrived.len());
            let text = format!("frame {until}: {on} of {of} trials go on");
            lock(board).progress.line(&text);
            self.note(&text)?;
            for task in &mut tasks {
                task.order.stop.extend(task.trials.iter().map(|t| t.trial).filter(|trial| stopped.contains(trial)));
            }
            ended.extend(&stopped);
            self.stopped.extend(&stopped);
        }
        self.write_table(&self.folder.experiment_info("experiment_df.csv"))?;
        Ok(true)
    }

    /// Carries out the tasks that are not done yet; false where they were interrupted.
    fn advance(&mut self, tasks: &[Task], engine: &mut dyn Engine, board: &Mutex<Board>) -> Result<bool> {
        let mut open = Vec::new();
        for task in tasks {
            if task.is_done()? {
                lock(board).behind.insert(task.id, self.spec.env.max_frame * task.sessions() as u64);
            } else {
                open.push(task.clone());
            }
        }
        let sessions: BTreeMap<u32, u64> = open.iter().map(|t| (t.id, t.sessions() as u64)).collect();
        let tell = |id: u32, news: News| self.tell(board, id, sessions[&id], news);
        let states = engine.advance(&open, &self.options.stop, &tell)?;
        for (task, state) in open.iter().zip(&states) {
            if let State::Waiting(scores) = state {
                let until = task.order.until;
                self.scores.extend(scores.iter().map(|(trial, score)| ((*trial, until), *score)));
            }
        }
        Ok(!states.contains(&State::Interrupted))
    }

    /// Shows what a job tells.
    fn tell(&self, board: &Mutex<Board>, id: u32, sessions: u64, news: News) {
        let mut board = lock(board);
        let now = news.frame * sessions;
        // what an earlier process did is not this one's speed
        if news.frames > 0 && board.behind.insert(id, now).is_none() {
            board.progress.skip(now.saturating_sub(news.frames));
        }
        board.frames += news.frames;
        board.best = board.best.max(news.best);
        news.warnings.iter().for_each(|warning| board.progress.warn(warning));
        let (behind, best) = (board.behind.values().sum(), board.best);
        if board.progress.is_due(behind, Instant::now()) {
            board.progress.update(behind, &[(best, false)]);
        }
        if Instant::now() >= board.next_table {
            // a table that cannot be written now is written, or complained of, at the next rung
            let _ = self.write_table(&self.folder.experiment_info("experiment_df.csv"));
            board.next_table = Instant::now() + TABLE_EVERY;
        }
    }

    fn note(&self, text: &str) -> Result<()> {
        lock(&self.log).line(Level::Info, text)
    }

    fn write_specs(&self, trials: &[Drawn]) -> Result<()> {
        for drawn in trials {
            let path = self.folder.trial_spec(drawn.trial);
            if !path.exists() {
                json::write(&path, &stamped(&self.folder, drawn.spec.clone(), Some(drawn.trial)))?;
            }
        }
        Ok(())
    }

    /// Every trial drawn so far, best first.
    fn ranking(&self) -> Result<Vec<Record>> {
        let record = |drawn: &Drawn| experiment::record(&self.folder, drawn, self.stopped.contains(&drawn.trial));
        let mut records = self.drawn.iter().map(record).collect::<Result<Vec<_>>>()?;
        experiment::rank(&mut records);
        Ok(records)
    }

    fn write_table(&self, path: &Path) -> Result<()> {
        experiment::write_table(path, &self.ranking()?)
    }

    /// Tables, and only the models that are worth keeping.
    fn finish(&self, frames: u64) -> Result<Ending> {
        let ranking = self.ranking()?;
        experiment::write_dict(&self.folder.experiment_info("trial_data_dict.json"), &ranking)?;
        experiment::write_table(&self.folder.experiment_info("experiment_df.csv"), &ranking)?;
        let kept = self.options.keep.unwrap_or(usize::MAX);
        for record in ranking.iter().skip(kept) {
            for session in 0..self.spec.meta.max_session as u32 {
                for path in [self.folder.model(record.trial, session), self.folder.best_model(record.trial, session)] {
                    match fs::remove_file(&path) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(Error::io(&path, "cannot remove a model that is not kept", &error));
                        }
                        _ => {}
                    }
                }
            }
        }
        if let Some(best) = ranking.first() {
            let values: Vec<String> = best.values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let (trial, score) = (best.trial, number(best.metrics.total_reward_ma));
            self.note(&format!("best trial {trial}: total_reward_ma {score}; {}", values.join(", ")))?;
        }
        report::experiment::write(&self.folder)?;
        // last of all: whoever sees it sees a finished search
        experiment::write_table(&self.folder.experiment_df(), &ranking)?;
        let (folder, wall) = (self.folder.root().to_path_buf(), self.options.started.elapsed());
        Ok(Ending::Finished(Summary { folder, ranking, frames, wall }))
    }
}

/// Says how a search that an error ended goes on.
fn continuable(error: Error, root: &Path) -> Error {
    let again = format!("`slm-fast search --resume {}` continues this search", root.display());
    let hint = if error.hint.is_empty() { again } else { format!("{}; {again}", error.hint) };
    error.hint(hint)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
