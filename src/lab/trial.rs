//! A Trial: the sessions of one spec, trained together in one cohort, from frame 0 or from a checkpoint to the last frame.
//!
//! The loop is `cohort.iterate()`, which at log points hands what there is to the report thread; everything a person or a
//! file needs is made beside the training, never in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::lab::cohort::{COLUMNS, Cohort, Row};
use crate::lab::device::{self, Opened, choice};
use crate::lab::progress::{Progress, Verbosity, count};
use crate::lab::provenance::{Facts, Program};
use crate::lab::reproduce::write_script;
use crate::lab::resume::{self, Found};
use crate::lab::run::{self, FileMeta, Files, Part, Run, file_meta};
use crate::lab::session::Session;
use crate::plan::Plan;
use crate::report::checkpoint::Checkpoint;
use crate::report::files::RunFolder;
use crate::report::log::Level;
use crate::report::{json, writer};
use crate::spec::{DeviceChoice, Spec};

/// The only trial of a `train` run; a search counts on from here.
pub(super) const TRIAL: u32 = 0;

/// Called before the first and after every iteration, for what a person wants to see of the training itself.
pub type Watch<'a> = dyn FnMut(&Plan, &Cohort) -> Result<()> + 'a;

/// How a trial is run; nothing here changes a result.
pub struct Options<'a> {
    /// Receives the run's folder.
    pub data: PathBuf,
    /// Where to run, if not where the spec says.
    pub device: Option<DeviceChoice>,
    /// CPU threads, 0 for one per core.
    pub threads: usize,
    /// Wait for every kernel of a gpu by itself, so that a fault names its op.
    pub one_by_one: bool,
    /// Time between resumable checkpoints.
    pub checkpoint_every: Duration,
    pub verbosity: Verbosity,
    /// Set from outside to stop after the iteration in progress, with a checkpoint.
    pub stop: Arc<AtomicBool>,
    /// When the process started; the clock of `wall_t` and of the summary.
    pub started: Instant,
    /// What a run's files say about who made it.
    pub program: Program,
    pub watch: Option<Box<Watch<'a>>>,
}

/// How a trial ended.
#[derive(Debug)]
pub enum Ending {
    /// Every frame is done.
    Finished(Summary),
    /// Stopped from outside; the checkpoint at `frame` is on disk.
    Interrupted { folder: PathBuf, frame: u64 },
    /// Was finished before; nothing was done.
    AlreadyComplete { folder: PathBuf },
}

/// What a finished trial came to.
#[derive(Debug)]
pub struct Summary {
    pub folder: PathBuf,
    pub outcome: writer::Outcome,
    /// Frames done in this process, summed over sessions.
    pub frames: u64,
    /// Wall time since the process started, files included.
    pub wall: Duration,
    /// Sessions that a number that is not finite stopped.
    pub faults: usize,
}

/// Trains a spec from frame 0 in a new folder below [`Options::data`].
///
/// # Errors
/// A spec that cannot be planned, a folder that cannot be written. Nothing is written before the plan stands.
pub fn train(mut spec: Spec, options: Options) -> Result<Ending> {
    let seed = *spec.meta.random_seed.get_or_insert_with(seed_from_system);
    let parts = vec![Part::new(TRIAL, Plan::new(&spec)?, seed)];
    let idle = parts[0].plan.learns_nothing().map(|why| format!("warning: {why}"));
    let Opened { device, line } = open(&options, spec.meta.device)?;
    // what is saved says where it ran, not what was asked for
    spec.meta.device = choice(&device);
    spec.meta.git_sha = Some(options.program.git_sha.clone());
    spec.meta.git_dirty = options.program.git_dirty;
    let (program, device_name) = (options.program.clone(), device.describe());
    let cohort = run::cohort(&parts, device)?;
    let folder = RunFolder::create(&options.data, &spec.name)?;
    // fsyncs, and asking what this machine is, take longer than the first iteration
    let scribe = {
        let (folder, spec) = (folder.clone(), spec);
        std::thread::spawn(move || {
            Facts::now(&program, spec.meta.device, &device_name).write(&folder)?;
            write_script(&folder, &program.git_sha)?;
            write_specs(&folder, spec)
        })
    };
    let notes = std::iter::once(format!("device: {line}")).chain(idle).collect();
    Trial { parts, cohort, folder, options }.run(Begin::New(scribe), notes)
}

/// Continues the run in `folder` from its last checkpoint, or from frame 0 where it has none.
///
/// # Errors
/// A folder that is no run, a checkpoint that is damaged, of another program or of a newer version. Nothing is written
/// before the checkpoint is restored.
pub fn resume(folder: &Path, options: Options) -> Result<Ending> {
    let (folder, mut spec, checkpoint, written_on) = match resume::find(folder)? {
        Found::Complete(folder) => return Ok(Ending::AlreadyComplete { folder: folder.root().to_path_buf() }),
        Found::Unfinished { folder, spec, checkpoint, device } => (folder, spec, checkpoint, device),
    };
    let seed = resume::seed(&spec, &folder)?;
    let plan = Plan::new(&spec).map_err(|error| error.within(&folder.trial_spec(TRIAL).display().to_string()))?;
    let mut parts = vec![Part::new(TRIAL, plan, seed)];
    let Opened { device, line } = open(&options, written_on)?;
    let mut notes = vec![format!("device: {line}")];
    spec.meta.device = choice(&device);
    if checkpoint.is_some() && kind(written_on) != kind(spec.meta.device) {
        notes.push(format!(
            "note: the checkpoint was written on {written_on}; on {} the run goes on as well, but not in the same bits",
            spec.meta.device
        ));
    }
    let device_name = device.describe();
    let mut cohort = run::cohort(&parts, device)?;
    if let Some(checkpoint) = &checkpoint {
        run::restore(&mut parts, &mut cohort, checkpoint, &folder)?;
        if cohort.refill_frames() > 0 {
            let frames = cohort.refill_frames();
            notes.push(format!(
                "note: the checkpoint holds no replay memory; {frames} frames fill it before it learns on"
            ));
        }
    }
    let facts = Facts::now(&options.program, spec.meta.device, &device_name);
    if !folder.trial_spec(TRIAL).exists() {
        let mut spec = spec.clone();
        spec.meta.trial = Some(i64::from(TRIAL));
        json::write(&folder.trial_spec(TRIAL), &spec)?;
    }
    let meta = file_meta(&spec)?;
    Trial { parts, cohort, folder, options }.run(Begin::Again { meta, checkpoint, facts }, notes)
}

/// Opens the device that the options name, or else the spec.
fn open(options: &Options, spec: DeviceChoice) -> Result<Opened> {
    let mut opened = device::open(options.device.unwrap_or(spec), options.threads)?;
    if options.one_by_one {
        opened.device = opened.device.one_by_one();
    }
    Ok(opened)
}

/// A choice without the number of the device: what may differ in the last bit.
fn kind(choice: DeviceChoice) -> DeviceChoice {
    match choice {
        DeviceChoice::Cuda(_) => DeviceChoice::Cuda(0),
        DeviceChoice::Wgpu(_) => DeviceChoice::Wgpu(0),
        DeviceChoice::Cpu | DeviceChoice::Auto => choice,
    }
}

/// Where a run begins, with what its files say about it.
enum Begin {
    /// Frame 0; the thread writes the specs meanwhile.
    New(JoinHandle<Result<FileMeta>>),
    /// A checkpoint, or frame 0 where there was no time to save one.
    Again { meta: FileMeta, checkpoint: Option<Checkpoint>, facts: Facts },
}

/// A trial about to train.
struct Trial<'a> {
    /// The one trial.
    parts: Vec<Part>,
    cohort: Cohort,
    folder: RunFolder,
    options: Options<'a>,
}

impl Trial<'_> {
    /// `notes`: what to tell before the training begins.
    fn run(mut self, begin: Begin, mut notes: Vec<String>) -> Result<Ending> {
        if self.options.verbosity == Verbosity::Verbose {
            notes.extend(self.cohort.device().prepared());
        }
        let started = self.options.started;
        let start_frame = self.cohort.frame();
        let label = format!("{}_t{TRIAL}", self.folder.spec_name());
        let part = &self.parts[0];
        let names: Vec<String> = part.sessions.iter().map(|session| session.name.clone()).collect();
        let (seed, max_frame) = (part.seed, part.plan.max_frame);
        let resumed = matches!(begin, Begin::Again { .. });
        let root = self.folder.root().to_path_buf();
        watch(&mut self.options, &self.cohort)?;
        // the first iteration runs while the specs are being written, which is waited for even where it fails
        let first = (!self.cohort.done()).then(|| self.cohort.iterate()).transpose();
        let first = first.and_then(|news| self.cohort.wait().map(|()| news));
        let first_ms = started.elapsed().as_secs_f64() * 1e3;
        let (meta, checkpoint, facts) = match begin {
            Begin::New(scribe) => (scribe.join().expect("the scribe returns its errors")?, None, None),
            Begin::Again { meta, checkpoint, facts } => (meta, checkpoint, Some(facts)),
        };
        let files = Files { tensorboard: true, shared: false };
        let mut reporter = run::reporter(&self.folder, &self.parts, vec![meta], checkpoint.as_ref(), files)?;
        // once the folder is ours
        facts.map_or(Ok(()), |facts| facts.write_again(&self.folder))?;
        let first = first.map_err(|error| continuable(error, &root))?;
        let mut progress = Progress::new(&label, &names, start_frame..max_frame, started, self.options.verbosity);
        for note in notes {
            progress.line(&note);
            reporter.log(Level::Info, note)?;
        }
        let from = if resumed { format!("continued from frame {start_frame}") } else { format!("seed {seed}") };
        let opening = format!("{label}: {} sessions, {from}, in {}", names.len(), root.display());
        progress.line(&opening);
        reporter.log(Level::Info, opening)?;
        reporter.log(Level::Info, format!("first iteration done {first_ms:.1} ms after the start of the program"))?;
        let Trial { parts, cohort, mut options, .. } = self;
        let run = Run::new(parts, cohort, reporter, started, options.checkpoint_every, true);
        go_on(run, &root, &mut options, &mut progress, start_frame, first).map_err(|error| continuable(error, &root))
    }
}

/// Trains to the last frame, or until it is stopped. `first`: an iteration is done that nobody has looked at yet, and
/// whether it came to a log point.
fn go_on(
    mut run: Run,
    root: &Path,
    options: &mut Options,
    progress: &mut Progress,
    start_frame: u64,
    mut first: Option<bool>,
) -> Result<Ending> {
    while first.is_some() || !run.cohort.done() {
        let warnings = match first.take() {
            Some(has_news) => run.take(has_news)?,
            None => run.iterate()?,
        };
        warnings.iter().for_each(|warning| progress.warn(warning));
        let (frame, sessions) = (run.cohort.frame(), &run.parts[0].sessions);
        if options.verbosity == Verbosity::Verbose {
            for (s, session) in sessions.iter().enumerate() {
                run.cohort.rows(s).iter().for_each(|row| progress.line(&describe_row(&session.name, row)));
            }
        }
        if progress.is_due(frame, Instant::now()) {
            let shown = |(s, session): (usize, &Session)| (run.reporter.total_reward_ma(s), session.fault.is_some());
            progress.update(frame, &sessions.iter().enumerate().map(shown).collect::<Vec<_>>());
        }
        watch(options, &run.cohort)?;
        if options.stop.load(Ordering::Relaxed) && !run.cohort.done() {
            run.interrupt()?;
            progress.finish();
            return Ok(Ending::Interrupted { folder: root.to_path_buf(), frame });
        }
        run.checkpoint_if_due()?;
    }
    progress.finish();
    finish(run, root, options.started, start_frame)
}

/// Lets a person look at the training.
fn watch(options: &mut Options, cohort: &Cohort) -> Result<()> {
    options.watch.as_mut().map_or(Ok(()), |watch| watch(cohort.plan(), cohort))
}

/// Final models, the last checkpoint, graphs and metrics.
fn finish(mut run: Run, root: &Path, started: Instant, start_frame: u64) -> Result<Ending> {
    let frame = run.cohort.frame();
    let sessions = &run.parts[0].sessions;
    let faults = sessions.iter().filter(|session| session.fault.is_some()).count();
    // a session may have stopped before the checkpoint that this process began with
    let frames_of =
        |session: &Session| session.fault.as_ref().map_or(frame, |fault| fault.frame).saturating_sub(start_frame);
    let frames: u64 = sessions.iter().map(frames_of).sum();
    let rate = count(frames as f64 / started.elapsed().as_secs_f64());
    run.checkpoint()?;
    run.reporter.log(Level::Info, format!("trained to frame {frame}: {rate} frames/s over all sessions"))?;
    let outcome = run.finish()?.pop().expect("a run of one trial");
    Ok(Ending::Finished(Summary { folder: root.to_path_buf(), outcome, frames, wall: started.elapsed(), faults }))
}

/// Says how a run that an error ended goes on, for example once there is space on the disk.
fn continuable(error: Error, root: &Path) -> Error {
    let again = format!("`slm-fast train --resume {}` continues this run", root.display());
    let hint = if error.hint.is_empty() { again } else { format!("{}; {again}", error.hint) };
    error.hint(hint)
}

/// A log row as one line: the names and numbers of every column that has one.
fn describe_row(session: &str, row: &Row) -> String {
    let numbers = COLUMNS.iter().zip(row).filter(|(_, value)| value.is_finite());
    let text: Vec<String> = numbers.map(|(name, value)| format!("{name} {}", (*value as f32))).collect();
    format!("{session}  {}", text.join("  "))
}

/// Writes the spec at experiment and trial level, with what the run knows of itself.
fn write_specs(folder: &RunFolder, spec: Spec) -> Result<FileMeta> {
    json::write(&folder.spec(), &stamped(folder, spec.clone(), None))?;
    let spec = stamped(folder, spec, Some(TRIAL));
    json::write(&folder.trial_spec(TRIAL), &spec)?;
    file_meta(&spec)
}

/// A spec with what a run writes about itself into `meta`: of one trial, or of the whole experiment.
pub(super) fn stamped(folder: &RunFolder, mut spec: Spec, trial: Option<u32>) -> Spec {
    let meta = &mut spec.meta;
    let stem = format!("{}_t{}", folder.spec_name(), trial.unwrap_or(TRIAL));
    let below = |inner: &str| Some(folder.root().join(inner).join(&stem).display().to_string());
    let name = folder.root().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    meta.experiment_ts = name.strip_prefix(&format!("{}_", folder.spec_name())).map(str::to_string);
    meta.experiment = Some(0);
    meta.session = Some(-1);
    meta.predir = Some(folder.root().display().to_string());
    meta.prepath = below("");
    meta.graph_prepath = below("graph");
    meta.info_prepath = below("info");
    meta.log_prepath = below("log");
    meta.model_prepath = below("model");
    meta.trial = Some(trial.map_or(-1, i64::from));
    spec
}

/// A seed that no two runs share: the standard library's own source of hash keys, which the system seeds.
pub(super) fn seed_from_system() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let word = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (word ^ (word >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_well() {
        let mut row = [f64::NAN; COLUMNS.len()];
        row[0] = 500.0;
        row[6] = 0.1f32.into();
        assert_eq!(describe_row("x_t0_s0", &row), "x_t0_s0  frame 500  loss 0.1");
    }

    #[test]
    fn seeds_differ() {
        let seeds: std::collections::HashSet<u32> = (0..16).map(|_| seed_from_system()).collect();
        assert!(seeds.len() > 12, "{seeds:?}");
    }
}
