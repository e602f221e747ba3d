//! The report thread: the trainer sends plain data through a bounded channel, the thread writes every file.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::files::RunFolder;
use super::log::Level;
use crate::error::Result;
use crate::lab::cohort::{Row, Tensor};
use crate::metric::{SessionMetrics, TrialMetrics};

/// What a [`Reporter`] needs to know of a trial.
#[derive(Debug, Clone)]
pub struct Options {
    pub folder: RunFolder,
    pub trial: u32,
    /// Session indices within the trial, in the order of the cohort.
    pub sessions: Vec<u32>,
    /// Mean return of a random policy, the baseline of `strength`.
    pub random_return: f64,
    /// Goes into every model file and checkpoint: `spec` (JSON text), `git_sha`, `seed`, ...
    pub meta: BTreeMap<String, String>,
    /// Writes TensorBoard events.
    pub tensorboard: bool,
    /// Draws graphs.
    pub graphs: bool,
}

/// What a trial came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// In the order of [`Options::sessions`].
    pub sessions: Vec<SessionMetrics>,
    pub trial: TrialMetrics,
}

/// The trainer's end of the report thread. Every method returns the thread's first error (a full disk, a folder that
/// became read-only) once there is one. Dropped without [`Reporter::finish`], it stops the thread and writes no more.
pub struct Reporter {
    _todo: (),
}

impl Reporter {
    /// Opens log and events and starts the thread.
    ///
    /// # Errors
    /// Where the log or the event file cannot be made.
    pub fn start(options: Options) -> Result<Reporter> {
        let _ = options;
        todo!()
    }

    /// As [`Reporter::start`], continuing the data frames, best scores and event file of a resumable checkpoint.
    ///
    /// # Errors
    /// Also where the checkpoint is of other sessions.
    pub fn resume(options: Options, from: &Checkpoint) -> Result<Reporter> {
        let _ = (options, from);
        todo!()
    }

    /// Sends new log rows of session position `s` (0..S). `wall_t_s`: seconds of training when the last of them was
    /// made, counted on from the resumed checkpoint (see [`Reporter::wall_t_s`]); rows before it get a time interpolated
    /// by frames. True when one of them reached the session's best `total_reward_ma` so far: the moment to send
    /// [`Reporter::best_model`].
    ///
    /// # Errors
    /// The thread's first error.
    pub fn rows(&mut self, s: usize, wall_t_s: f64, rows: &[Row]) -> Result<bool> {
        let _ = (s, wall_t_s, rows);
        todo!()
    }

    /// Seconds of training in the last row so far; where a resumed run's clock goes on.
    pub fn wall_t_s(&self) -> f64 {
        todo!()
    }

    /// `total_reward_ma` of the last row of session position `s`; NaN before the first.
    pub fn total_reward_ma(&self, s: usize) -> f64 {
        let _ = s;
        todo!()
    }

    /// Sends the parameters at a session's best score. Written soon (the latest of several within two seconds), and in
    /// any case before the next checkpoint.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn best_model(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        let _ = (s, frame, tensors);
        todo!()
    }

    /// Sends a session's final parameters.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn model(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        let _ = (s, frame, tensors);
        todo!()
    }

    /// Sends parameters for TensorBoard's histograms (models do so by themselves).
    ///
    /// # Errors
    /// The thread's first error.
    pub fn histograms(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        let _ = (s, frame, tensors);
        todo!()
    }

    /// Sends a resumable checkpoint: the snapshot at `frame` with what `meta` adds to [`Options::meta`]. Waits only for
    /// an earlier checkpoint that is still being written.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn checkpoint(&mut self, frame: u64, meta: BTreeMap<String, String>, tensors: Vec<Tensor>) -> Result<()> {
        let _ = (frame, meta, tensors);
        todo!()
    }

    /// Waits until everything sent so far, the last checkpoint too, is on disk (Ctrl-C).
    ///
    /// # Errors
    /// The thread's first error.
    pub fn sync(&mut self) -> Result<()> {
        todo!()
    }

    /// Appends a line to the trial's log.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn log(&mut self, level: Level, text: impl Into<String>) -> Result<()> {
        let _ = (level, text.into());
        todo!()
    }

    /// Writes all that is left, draws the last graphs and the trial's metrics, and returns when everything is on disk.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn finish(self) -> Result<Outcome> {
        todo!()
    }
}
