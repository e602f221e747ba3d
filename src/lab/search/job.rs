//! A job of a search: trials of one shape that travel in one cohort, from frame 0 or a checkpoint to the frame where they
//! are judged next, or to the end.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::experiment::Drawn;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::lab::resume::belongs;
use crate::lab::run::{self, Files, Part, Run, file_meta};
use crate::report::checkpoint::Checkpoint;
use crate::report::files::RunFolder;
use crate::report::log::Level;

/// What a job is told to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Trials that end where they are.
    pub stop: Vec<u32>,
    /// The others go on until a log row at or past this frame, or to their last frame.
    pub until: u64,
}

/// Where a job is after an order.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// At its frame: the score of every trial still running.
    Waiting(Vec<(u32, f64)>),
    /// Every trial has ended and its files are written.
    Done,
    /// Stopped from outside; a checkpoint is on disk.
    Interrupted,
}

/// What a job tells while it works.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// Frames of each session still running.
    pub frame: u64,
    /// Frames done since the last news, over all sessions.
    pub frames: u64,
    /// Best `total_reward_ma` of a trial; NaN before the first.
    pub best: f64,
    /// What a person should see.
    pub warnings: Vec<String>,
    /// A checkpoint was sent to be written after the iteration before.
    pub has_saved: bool,
}

/// A job in training.
pub struct Job {
    folder: RunFolder,
    run: Run,
    /// Seconds of its last iteration.
    pub iteration_s: f64,
}

impl Job {
    /// Opens the job of `trials` in `folder`: from its checkpoint, if it has one, or from frame 0.
    ///
    /// # Errors
    /// Not enough memory; a checkpoint that is damaged or of another run; files that cannot be written.
    pub fn open(folder: &RunFolder, trials: &[Drawn], device: Device, checkpoint_every: Duration) -> Result<Job> {
        let started = Instant::now();
        let part = |t: &Drawn| Part::new(t.trial, t.plan.clone().with_memory_in_checkpoint(), t.seed);
        let mut parts: Vec<Part> = trials.iter().map(part).collect();
        let path = folder.resume(parts[0].trial);
        let checkpoint = if path.exists() { Some(Checkpoint::read(&path)?) } else { None };
        let mut cohort = run::cohort(&parts, device)?;
        if let Some(checkpoint) = &checkpoint {
            belongs(checkpoint, &trials[0].spec).map_err(|error| error.within(&path.display().to_string()))?;
            run::restore(&mut parts, &mut cohort, checkpoint, folder)?;
        }
        let metas = trials.iter().map(|trial| file_meta(&trial.spec)).collect::<Result<Vec<_>>>()?;
        // one event file for hundreds of trials helps nobody, and the folder may be shared by other jobs
        let files = Files { tensorboard: false, shared: true };
        let mut reporter = run::reporter(folder, &parts, metas, checkpoint.as_ref(), files)?;
        let (first, last) = (parts[0].trial, parts[parts.len() - 1].trial);
        let sessions: usize = parts.iter().map(|part| part.sessions.len()).sum();
        reporter.log(Level::Info, format!("trials {first} to {last} in one cohort of {sessions} sessions"))?;
        let run = Run::new(parts, cohort, reporter, started, checkpoint_every, false);
        Ok(Job { folder: folder.clone(), run, iteration_s: 0.0 })
    }

    /// Carries out an order; `tell` is called after every iteration.
    ///
    /// # Errors
    /// A gpu that failed; files that cannot be written.
    pub fn advance(mut self, order: &Order, stop: &AtomicBool, tell: &dyn Fn(News)) -> Result<(State, Option<Job>)> {
        let stopped = |&i: &usize| order.stop.contains(&self.run.parts[i].trial);
        let stopped: Vec<usize> = (0..self.run.parts.len()).filter(stopped).collect();
        self.run.end(&stopped)?;
        let mut has_saved = false;
        while !self.has_reached(order.until) {
            if stop.load(Ordering::Relaxed) {
                self.run.interrupt()?;
                return Ok((State::Interrupted, None));
            }
            let (before, begun) = (self.run.cohort.frame(), Instant::now());
            let running = (0..self.run.sessions()).filter(|&s| self.run.cohort.is_active(s)).count() as u64;
            let warnings = self.run.iterate()?;
            self.iteration_s = begun.elapsed().as_secs_f64();
            let frame = self.run.cohort.frame();
            let best = (0..self.run.parts.len()).map(|i| self.run.score(i, None)).fold(f64::NAN, f64::max);
            tell(News { frame, frames: (frame - before) * running, best, warnings, has_saved });
            has_saved = self.run.checkpoint_if_due()?;
        }
        if self.run.cohort.done() {
            return self.finish().map(|()| (State::Done, None));
        }
        let waiting = (0..self.run.parts.len()).filter(|&i| !self.run.parts[i].ended);
        let scores = waiting.map(|i| (self.run.parts[i].trial, self.run.score(i, Some(order.until)))).collect();
        Ok((State::Waiting(scores), Some(self)))
    }

    /// Saves a checkpoint and leaves memory to others; [`Job::open`] goes on from it.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn park(mut self) -> Result<()> {
        self.run.save()
    }

    fn has_reached(&self, until: u64) -> bool {
        self.run.cohort.done() || self.run.reporter.last_frame() >= until as f64
    }

    /// The last files of every trial; then the checkpoint has nothing left to resume.
    fn finish(self) -> Result<()> {
        let first = self.run.parts[0].trial;
        self.run.finish()?;
        remove_checkpoint(&self.folder, first)
    }
}

/// Removes the checkpoint of the job whose first trial is `first`, if there is one.
///
/// # Errors
/// One that cannot be removed.
pub fn remove_checkpoint(folder: &RunFolder, first: u32) -> Result<()> {
    let path = folder.resume(first);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(&path, "cannot remove the checkpoint", &error))
        }
        _ => Ok(()),
    }
}
