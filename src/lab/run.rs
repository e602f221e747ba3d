//! A run: one or several trials of one shape, trained together in one cohort, with the reporter that writes their files.
//! A `train` is a run of one trial, a search is made of runs of many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::lab::cohort::{Cohort, Fault, Member};
use crate::lab::session::Session;
use crate::plan::Plan;
use crate::report::checkpoint::Checkpoint;
use crate::report::files::RunFolder;
use crate::report::log::Level;
use crate::report::writer::{Options as ReportOptions, Outcome, Reporter, TrialOptions};
use crate::spec::Spec;

/// Time to the first resumable checkpoint; the later ones come every `checkpoint_every`.
const FIRST_CHECKPOINT: Duration = Duration::from_secs(1);
/// TensorBoard's histograms of every parameter array, over a whole run.
const HISTOGRAMS: u64 = 20;

/// Strings that go into every model file and checkpoint.
pub(super) type FileMeta = BTreeMap<String, String>;

/// What every model file and checkpoint of a trial says about it.
pub(super) fn file_meta(spec: &Spec) -> Result<FileMeta> {
    let text = serde_json::to_string(spec)
        .map_err(|error| Error::new("", format!("the spec cannot be expressed in JSON: {error}")))?;
    let mut meta = FileMeta::from([
        ("spec".to_string(), text),
        ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("git_sha".to_string(), spec.meta.git_sha.clone().unwrap_or_default()),
    ]);
    if let Some(seed) = spec.meta.random_seed {
        meta.insert("seed".to_string(), seed.to_string());
    }
    Ok(meta)
}

/// One trial of a run.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its number in the experiment.
    pub trial: u32,
    pub plan: Plan,
    /// Its own seed.
    pub seed: u32,
    pub sessions: Vec<Session>,
    /// It goes no further: stopped, or at its last frame.
    pub ended: bool,
}

impl Part {
    pub fn new(trial: u32, plan: Plan, seed: u32) -> Part {
        let sessions = Session::all(&plan.spec.name, trial, plan.max_session);
        Part { trial, plan, seed, sessions, ended: false }
    }

    fn options(&self, meta: FileMeta) -> TrialOptions {
        TrialOptions {
            trial: self.trial,
            sessions: self.sessions.iter().map(|session| session.index).collect(),
            random_return: self.plan.env.random_return,
            meta,
        }
    }
}

/// A cohort with the sessions of `parts`, one trial after the other.
///
/// # Errors
/// As [`Cohort::of`].
pub(super) fn cohort(parts: &[Part], device: Device) -> Result<Cohort> {
    let mut members = Vec::new();
    for Part { plan, seed, sessions, .. } in parts {
        members.extend(sessions.iter().map(|session| Member { plan, seed: *seed, index: session.index }));
    }
    Cohort::of(&members, device)
}

/// Puts a cohort where a checkpoint left it: its sessions, and which trials had ended by then.
///
/// # Errors
/// As [`Cohort::restore`], naming the file.
pub(super) fn restore(
    parts: &mut [Part],
    cohort: &mut Cohort,
    checkpoint: &Checkpoint,
    folder: &RunFolder,
) -> Result<()> {
    let place = folder.resume(parts[0].trial).display().to_string();
    cohort.restore(&checkpoint.tensors).map_err(|error| error.within(&place))?;
    let ended = checkpoint.numbers("ended");
    let mut start = 0;
    for part in parts {
        for (s, session) in part.sessions.iter_mut().enumerate() {
            session.check(cohort, start + s);
        }
        part.ended = ended.contains(&part.trial);
        if part.ended {
            cohort.retire(&(start..start + part.sessions.len()).collect::<Vec<_>>());
        }
        start += part.sessions.len();
    }
    Ok(())
}

/// Which files a run writes beside data, metrics and models.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    pub tensorboard: bool,
    /// Other runs write into the folder too.
    pub shared: bool,
}

/// Opens log and events of `parts`: at frame 0, or where the checkpoint left them. `metas` are theirs, in order.
///
/// # Errors
/// As [`Reporter::start`] and [`Reporter::resume`].
pub(super) fn reporter(
    folder: &RunFolder,
    parts: &[Part],
    metas: Vec<FileMeta>,
    checkpoint: Option<&Checkpoint>,
    files: Files,
) -> Result<Reporter> {
    let options = ReportOptions {
        folder: folder.clone(),
        trials: parts.iter().zip(metas).map(|(part, meta)| part.options(meta)).collect(),
        tensorboard: files.tensorboard,
        graphs: true,
        shared: files.shared,
    };
    match checkpoint {
        Some(checkpoint) => Reporter::resume(options, checkpoint),
        None => Reporter::start(options),
    }
}

/// One or several trials in training.
pub(super) struct Run {
    pub parts: Vec<Part>,
    pub cohort: Cohort,
    pub reporter: Reporter,
    checkpoint_every: Duration,
    next_checkpoint: Instant,
    /// The clock of `wall_t`, and what it showed at the checkpoint that this run began with.
    started: Instant,
    clock_offset_s: f64,
    /// Histograms written so far, where there are any.
    histograms: Option<u64>,
}

impl Run {
    /// Takes over a cohort and its reporter. `started`: when the clock of `wall_t` began.
    pub fn new(
        parts: Vec<Part>,
        cohort: Cohort,
        reporter: Reporter,
        started: Instant,
        checkpoint_every: Duration,
        histograms: bool,
    ) -> Run {
        let mut run = Run {
            clock_offset_s: reporter.wall_t_s(),
            parts,
            cohort,
            reporter,
            checkpoint_every,
            next_checkpoint: started + FIRST_CHECKPOINT.min(checkpoint_every),
            started,
            histograms: None,
        };
        run.histograms = histograms.then(|| run.histograms_due());
        run
    }

    /// One iteration, and what it leaves behind; the warnings that a person should see.
    ///
    /// # Errors
    /// A gpu that failed; the report thread's first error.
    pub fn iterate(&mut self) -> Result<Vec<String>> {
        let has_news = self.cohort.iterate()?;
        self.take(has_news)
    }

    /// Hands on what an iteration that was done elsewhere gave: rows, better models, faults, histograms.
    ///
    /// # Errors
    /// As [`Run::iterate`].
    pub fn take(&mut self, has_news: bool) -> Result<Vec<String>> {
        let warnings = if has_news { self.report()? } else { Vec::new() };
        if self.histograms.is_some_and(|written| self.histograms_due() > written) {
            self.histograms = Some(self.histograms_due());
            for s in 0..self.sessions() {
                if self.cohort.is_active(s) {
                    self.reporter.histograms(s, self.cohort.frame(), self.cohort.model(s)?)?;
                }
            }
        }
        Ok(warnings)
    }

    fn report(&mut self) -> Result<Vec<String>> {
        let wall_t_s = self.clock_offset_s + self.started.elapsed().as_secs_f64();
        let mut warnings = Vec::new();
        let places = self.parts.iter_mut().flat_map(|part| &mut part.sessions);
        for (s, session) in places.enumerate() {
            let rows = self.cohort.rows(s);
            let is_best = !rows.is_empty() && self.reporter.rows(s, wall_t_s, rows)?;
            // the parameters that a fault left behind may be the numbers that are not finite
            if is_best && self.cohort.fault(s).is_none() {
                self.reporter.best_model(s, self.cohort.frame(), self.cohort.model(s)?)?;
            }
            if let Some(message) = session.check(&self.cohort, s) {
                self.reporter.log(Level::Error, message.clone())?;
                warnings.push(format!("warning: {message}"));
            }
        }
        Ok(warnings)
    }

    fn histograms_due(&self) -> u64 {
        self.cohort.frame() * HISTOGRAMS / self.cohort.plan().max_frame.max(1)
    }

    /// Sessions of all trials.
    pub fn sessions(&self) -> usize {
        self.parts.iter().map(|part| part.sessions.len()).sum()
    }

    /// Session positions of the trial at position `i`.
    pub fn positions(&self, i: usize) -> std::ops::Range<usize> {
        let start = self.parts[..i].iter().map(|part| part.sessions.len()).sum();
        start..start + self.parts[i].sessions.len()
    }

    /// Mean over the sessions of a trial of `total_reward_ma`, at the first row at or past `frame`, or at the last row;
    /// NaN where no session has one.
    pub fn score(&self, i: usize, frame: Option<u64>) -> f64 {
        let of = |s| match frame {
            Some(frame) => self.reporter.total_reward_ma_at(s, frame),
            None => self.reporter.total_reward_ma(s),
        };
        let scores: Vec<f64> = self.positions(i).map(of).filter(|score| score.is_finite()).collect();
        scores.iter().sum::<f64>() / scores.len() as f64
    }

    /// Saves a resumable checkpoint when it is time.
    ///
    /// # Errors
    /// As [`Run::checkpoint`].
    pub fn checkpoint_if_due(&mut self) -> Result<bool> {
        let now = Instant::now();
        let due = now >= self.next_checkpoint;
        if due {
            self.checkpoint()?;
            self.next_checkpoint = now + self.checkpoint_every;
        }
        Ok(due)
    }

    /// Saves a resumable checkpoint.
    ///
    /// # Errors
    /// A gpu that failed; the report thread's first error.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.reporter.checkpoint(self.cohort.frame(), self.cohort.snapshot()?)
    }

    /// Saves a checkpoint and waits until everything is on disk.
    ///
    /// # Errors
    /// As [`Run::checkpoint`].
    pub fn save(&mut self) -> Result<()> {
        self.checkpoint()?;
        self.reporter.sync()
    }

    /// As [`Run::save`], for a run that ends before its time.
    ///
    /// # Errors
    /// As [`Run::checkpoint`].
    pub fn interrupt(&mut self) -> Result<()> {
        self.reporter.log(Level::Warning, format!("interrupted at frame {}", self.cohort.frame()))?;
        self.save()
    }

    /// Ends trials, by position, here: their sessions leave the cohort, their last files are written.
    ///
    /// # Errors
    /// A gpu that failed; the report thread's first error.
    pub fn end(&mut self, trials: &[usize]) -> Result<()> {
        let frame = self.cohort.frame();
        let mut ending = Vec::new();
        for &i in trials {
            if std::mem::replace(&mut self.parts[i].ended, true) {
                continue;
            }
            for s in self.positions(i) {
                match &self.parts[i].sessions[s - self.positions(i).start] {
                    Session { fault: None, .. } => self.reporter.model(s, frame, self.cohort.model(s)?)?,
                    Session { fault: Some(Fault { frame, .. }), name, .. } => {
                        let text = format!("{name} has no final model: it stopped at frame {frame}");
                        self.reporter.log(Level::Error, text)?;
                    }
                }
            }
            self.cohort.retire(&self.positions(i).collect::<Vec<_>>());
            ending.push(i);
        }
        if ending.is_empty() { Ok(()) } else { self.reporter.finish_trials(ending) }
    }

    /// Ends every trial that has not ended; what each came to, when everything is on disk.
    ///
    /// # Errors
    /// As [`Run::end`].
    pub fn finish(mut self) -> Result<Vec<Outcome>> {
        self.end(&(0..self.parts.len()).collect::<Vec<_>>())?;
        self.reporter.finish()
    }
}
