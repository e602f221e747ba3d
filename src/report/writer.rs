//! The report thread: the trainer sends plain data through a bounded channel, the thread writes every file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::checkpoint::Checkpoint;
use super::events::EventWriter;
use super::files::RunFolder;
use super::frame::{DataFrame, SESSION_COLUMNS, Source};
use super::log::{Level, Log};
use super::thread::{Begun, Message, SavedModel, Thread, Waiting, join};
use crate::error::{Error, Result};
use crate::metric::{self, SessionMetrics, TrialMetrics};
use crate::net::Tensor;
use crate::op::log::{COLUMNS, Row};

/// Messages that may wait. The thread answers none of them for as long as it draws graphs, well under a second.
const CAPACITY: usize = 4096;

/// What a [`Reporter`] needs to know of the trials of a run. Log and checkpoint bear the number of the first.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the files go.
    pub folder: RunFolder,
    /// At least one; their sessions follow each other in the cohort.
    pub trials: Vec<TrialOptions>,
    /// Writes TensorBoard events.
    pub tensorboard: bool,
    /// Draws graphs.
    pub graphs: bool,
    /// Others write into the folder too, so that what looks left behind may be theirs.
    pub shared: bool,
}

/// One trial of a run.
#[derive(Debug, Clone)]
pub struct TrialOptions {
    /// Index of the trial.
    pub trial: u32,
    /// Session indices within the trial, in the order of the cohort.
    pub sessions: Vec<u32>,
    /// Mean return of a random policy, the baseline of `strength`.
    pub random_return: f64,
    /// Goes into every model file and checkpoint: `spec` (JSON text), `git_sha`, `seed`, ...
    pub meta: BTreeMap<String, String>,
}

impl Options {
    /// Removes what a kill left behind; done once the log is this process's own.
    fn clean(&self) {
        if !self.shared {
            self.folder.remove_leftovers();
        }
    }

    /// Number of the first trial.
    pub(super) fn first(&self) -> u32 {
        self.trials[0].trial
    }

    /// Sessions of all trials.
    fn sessions(&self) -> usize {
        self.trials.iter().map(|trial| trial.sessions.len()).sum()
    }

    /// Session positions of the trial at position `i`.
    pub(super) fn positions(&self, i: usize) -> Range<usize> {
        let start = self.trials[..i].iter().map(|trial| trial.sessions.len()).sum();
        start..start + self.trials[i].sessions.len()
    }

    /// Position of the trial that session position `s` belongs to.
    pub(super) fn trial_of(&self, s: usize) -> usize {
        self.locate(s).0
    }

    /// Trial and session index of session position `s`.
    pub(super) fn place(&self, s: usize) -> (u32, u32) {
        let (i, within) = self.locate(s);
        (self.trials[i].trial, self.trials[i].sessions[within])
    }

    /// Position of a session's trial, and of the session within it.
    fn locate(&self, mut s: usize) -> (usize, usize) {
        for (i, trial) in self.trials.iter().enumerate() {
            if s < trial.sessions.len() {
                return (i, s);
            }
            s -= trial.sessions.len();
        }
        panic!("session position {s} past the last one")
    }

    /// The sessions as a checkpoint names them: `0,1`, and with several trials `3:0,1;4:0,1`.
    pub(super) fn describe(&self) -> String {
        match self.trials.as_slice() {
            [only] => join(only.sessions.iter().copied()),
            all => {
                let each = |t: &TrialOptions| format!("{}:{}", t.trial, join(t.sessions.iter().copied()));
                all.iter().map(each).collect::<Vec<_>>().join(";")
            }
        }
    }
}

/// What a trial came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// In the order of [`TrialOptions::sessions`].
    pub sessions: Vec<SessionMetrics>,
    /// Over the sessions.
    pub trial: TrialMetrics,
}

/// The trainer's end of the report thread. Every method returns the thread's first error (a full disk, a folder that
/// became read-only) once there is one. Dropped without [`Reporter::finish`], it stops the thread and writes no more.
pub struct Reporter {
    /// `None` once the thread was told to end.
    sender: Option<Sender<Message>>,
    thread: Option<JoinHandle<Option<Vec<Outcome>>>>,
    /// The thread's first error.
    error: Arc<Mutex<Option<Error>>>,
    waiting: Waiting,
    /// Closed by the thread when the last checkpoint is on disk.
    in_flight: Option<Receiver<()>>,
    tails: Vec<Tail>,
}

/// What the next row of a session needs to know of the rows before it.
struct Tail {
    /// `total_reward`, and `(frame, total_reward_ma)`, of every row.
    rewards: Vec<f64>,
    averages: Vec<(f64, f64)>,
    frame: f64,
    wall_t_s: f64,
    total_reward_ma: f64,
    /// Highest `total_reward_ma` of any row.
    best: f64,
}

impl Tail {
    fn new(frame: &DataFrame) -> Tail {
        let column = |name| frame.column(name).unwrap_or_default();
        let ma = column("total_reward_ma");
        Tail {
            averages: column("frame").into_iter().zip(ma.iter().copied()).collect(),
            rewards: column("total_reward"),
            frame: column("frame").last().copied().unwrap_or(0.0),
            wall_t_s: column("wall_t").last().copied().unwrap_or(0.0),
            total_reward_ma: ma.last().copied().unwrap_or(f64::NAN),
            best: ma.into_iter().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// `total_reward_ma` of the first row at or past a frame.
    fn at(&self, frame: f64) -> f64 {
        self.averages.get(self.averages.partition_point(|row| row.0 < frame)).map_or(f64::NAN, |row| row.1)
    }

    /// The row of the data frame for a log row; true where it reached the best score.
    fn extend(&mut self, row: &Row, wall_t_s: f64) -> (Vec<f64>, bool) {
        let value = |name| value(row, name);
        self.rewards.push(value("total_reward"));
        self.total_reward_ma = metric::total_reward_ma(&self.rewards);
        self.frame = value("frame");
        self.wall_t_s = wall_t_s;
        self.averages.push((self.frame, self.total_reward_ma));
        let is_best = self.total_reward_ma >= self.best;
        self.best = self.best.max(self.total_reward_ma);
        let cell = |source: Source| match source {
            Source::Row(name) => value(name),
            Source::TotalRewardMa => self.total_reward_ma,
            Source::Fps => self.frame / wall_t_s,
            Source::WallT => wall_t_s,
        };
        (SESSION_COLUMNS.iter().map(|(_, source)| cell(*source)).collect(), is_best)
    }
}

/// A number of a log row by its name.
fn value(row: &Row, name: &str) -> f64 {
    COLUMNS.iter().position(|column| *column == name).map_or(f64::NAN, |i| row[i])
}

impl Reporter {
    /// Opens log and events and starts the thread. Events and half files of a beginning that was killed are removed: the
    /// same frames would be drawn twice.
    ///
    /// # Errors
    /// Where the log or the event file cannot be made, or another process trains this run.
    pub fn start(options: Options) -> Result<Reporter> {
        let log = Log::open(&options.folder.trial_log(options.first()))?;
        options.clean();
        let mut events = None;
        if options.tensorboard {
            EventWriter::remove_all(&options.folder.log_dir())?;
            let mut file = EventWriter::create(&options.folder.log_dir())?;
            for trial in &options.trials {
                if let Some(spec) = trial.meta.get("spec") {
                    file.text(0, &format!("spec/trial{}", trial.trial), &format!("```json\n{spec}\n```"))?;
                }
            }
            events = Some(file);
        }
        let frames = vec![DataFrame::session(); options.sessions()];
        let in_events = vec![0; frames.len()];
        Reporter::spawn(options, Begun { log, events, frames, in_events, ended: Vec::new() })
    }

    /// As [`Reporter::start`], continuing the data frames, best scores and event file of a resumable checkpoint.
    ///
    /// # Errors
    /// Also where the checkpoint is of other sessions.
    pub fn resume(options: Options, from: &Checkpoint) -> Result<Reporter> {
        let frames = from.frames.clone();
        let columns = DataFrame::session().names;
        if from.meta("sessions")? != options.describe()
            || frames.len() != options.sessions()
            || frames.iter().any(|frame| frame.names != columns)
        {
            return Err(Error::new("", "the checkpoint is of other sessions or has other columns")
                .hint("resume with the spec and the program that began the run"));
        }
        let mut log = Log::open(&options.folder.trial_log(options.first()))?;
        options.clean();
        log.line(Level::Info, &format!("resumed at frame {}", from.meta("frame")?))?;
        let mut in_events: Vec<usize> = frames.iter().map(|frame| frame.rows.len()).collect();
        let events = if options.tensorboard {
            let name = from.meta("events_file").unwrap_or_default();
            let path = options.folder.log_dir().join(name);
            if !name.is_empty() && path.is_file() {
                Some(EventWriter::reopen(&path, from.meta_as("events_bytes")?)?)
            } else {
                log.line(Level::Warning, "the event file of before is gone; a new one is begun")?;
                in_events.fill(0);
                Some(EventWriter::create(&options.folder.log_dir())?)
            }
        } else {
            None
        };
        Reporter::spawn(options, Begun { log, events, frames, in_events, ended: from.numbers("ended") })
    }

    fn spawn(options: Options, begun: Begun) -> Result<Reporter> {
        let (sender, receiver) = bounded(CAPACITY);
        let error = Arc::new(Mutex::new(None));
        let waiting: Waiting = Arc::new(Mutex::new(begun.frames.iter().map(|_| None).collect()));
        let tails = begun.frames.iter().map(Tail::new).collect();
        let thread = Thread::new(options, begun, Arc::clone(&waiting), Arc::clone(&error));
        let thread = std::thread::Builder::new()
            .name("report".to_string())
            .spawn(move || thread.run(&receiver))
            .map_err(|err| Error::new("", format!("cannot start the report thread: {err}")))?;
        Ok(Reporter { sender: Some(sender), thread: Some(thread), error, waiting, in_flight: None, tails })
    }

    /// Sends new log rows of session position `s` (0..S). `wall_t_s`: seconds of training when the last of them was
    /// made, counted on from the resumed checkpoint (see [`Reporter::wall_t_s`]); rows before it get a time interpolated
    /// by frames. A row whose frame is not beyond the last row's is left out. True when one of them reached the session's
    /// best `total_reward_ma` so far: the moment to send [`Reporter::best_model`].
    ///
    /// # Errors
    /// The thread's first error.
    pub fn rows(&mut self, s: usize, wall_t_s: f64, rows: &[Row]) -> Result<bool> {
        let frame_of = |row: &Row| value(row, "frame");
        let tail = &mut self.tails[s];
        let (first, start) = (tail.frame, tail.wall_t_s);
        let Some(last) = rows.last().map(frame_of) else { return Ok(false) };
        let (mut out, mut any_best) = (Vec::with_capacity(rows.len()), false);
        for row in rows {
            if frame_of(row) > tail.frame {
                let share = (frame_of(row) - first) / (last - first);
                let (row, is_best) = tail.extend(row, start + share * (wall_t_s - start));
                out.push(row);
                any_best |= is_best;
            }
        }
        if out.is_empty() {
            return Ok(false);
        }
        self.send(Message::Rows { s, rows: out })?;
        Ok(any_best)
    }

    /// Seconds of training in the last row so far; where a resumed run's clock goes on.
    pub fn wall_t_s(&self) -> f64 {
        self.tails.iter().map(|tail| tail.wall_t_s).fold(0.0, f64::max)
    }

    /// Frame of the latest row of any session; 0 before the first.
    pub fn last_frame(&self) -> f64 {
        self.tails.iter().map(|tail| tail.frame).fold(0.0, f64::max)
    }

    /// `total_reward_ma` of the last row of session position `s`; NaN before the first.
    pub fn total_reward_ma(&self, s: usize) -> f64 {
        self.tails[s].total_reward_ma
    }

    /// Takes the parameters at a session's best score. Written within seconds (the latest of several), and in any case
    /// before the next checkpoint.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn best_model(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        self.check()?;
        let total_reward_ma = self.tails[s].total_reward_ma;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)[s] =
            Some(SavedModel { frame, total_reward_ma, tensors });
        Ok(())
    }

    /// `total_reward_ma` of the first row of session position `s` at or past `frame`; NaN where there is none.
    pub fn total_reward_ma_at(&self, s: usize, frame: u64) -> f64 {
        self.tails[s].at(frame as f64)
    }

    /// Sends a session's final parameters, which are written with the last files of its trial.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn model(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        let total_reward_ma = self.tails[s].total_reward_ma;
        self.send(Message::Model { s, frame, total_reward_ma, tensors })
    }

    /// Sends parameters for TensorBoard's histograms.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn histograms(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        self.send(Message::Histograms { s, frame, tensors })
    }

    /// Sends a resumable checkpoint: the snapshot at `frame`. Waits only for an earlier checkpoint that is still being
    /// written.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn checkpoint(&mut self, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        self.wait_for_checkpoint();
        let (done, in_flight) = bounded(0);
        self.in_flight = Some(in_flight);
        self.send(Message::Checkpoint { frame, tensors, done })
    }

    /// Waits until everything sent so far, the last checkpoint too, is on disk (Ctrl-C).
    ///
    /// # Errors
    /// The thread's first error.
    pub fn sync(&mut self) -> Result<()> {
        let (done, wait) = bounded(1);
        self.send(Message::Sync { done })?;
        if wait.recv().is_ok() {
            return Ok(());
        }
        // it failed, or a panic ended the thread; once that has ended, its error is there to be seen
        self.join();
        self.check()?;
        Err(gone())
    }

    /// Appends a line to the trial's log.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn log(&mut self, level: Level, text: impl Into<String>) -> Result<()> {
        self.send(Message::Log { level, text: text.into() })
    }

    /// Has the last files of the trials at some positions written, metrics and graphs: they go no further.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn finish_trials(&mut self, positions: Vec<usize>) -> Result<()> {
        self.send(Message::FinishTrials { positions })
    }

    /// Writes all that is left, draws the last graphs and the trials' metrics, and returns when everything is on disk:
    /// what each trial came to.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn finish(mut self) -> Result<Vec<Outcome>> {
        self.send(Message::Finish)?;
        let outcomes = self.join();
        self.check()?;
        outcomes.ok_or_else(gone)
    }

    fn wait_for_checkpoint(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            let _ = in_flight.recv();
        }
    }

    fn check(&self) -> Result<()> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    fn send(&mut self, message: Message) -> Result<()> {
        self.check()?;
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(message).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }

    /// Closes the channel and waits for the thread's end.
    fn join(&mut self) -> Option<Vec<Outcome>> {
        self.sender = None;
        self.thread.take().and_then(|thread| thread.join().unwrap_or(None))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.join();
    }
}

fn gone() -> Error {
    Error::new("", "the report thread ended too early").hint("its panic is printed above; please report it")
}
