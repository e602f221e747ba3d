//! The report thread: the trainer sends plain data through a bounded channel, the thread writes every file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::checkpoint::Checkpoint;
use super::events::EventWriter;
use super::files::RunFolder;
use super::frame::{DataFrame, SESSION_COLUMNS, Source};
use super::log::{Level, Log};
use super::thread::{Message, Thread};
use crate::error::{Error, Result};
use crate::metric::{self, SessionMetrics, TrialMetrics};
use crate::net::Tensor;
use crate::op::log::{COLUMNS, Row};

/// Messages that may wait. The thread answers none of them for as long as it draws graphs, well under a second.
const CAPACITY: usize = 4096;

/// What a [`Reporter`] needs to know of a trial.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the files go.
    pub folder: RunFolder,
    /// Index of the trial.
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
    /// Over the sessions.
    pub trial: TrialMetrics,
}

/// The trainer's end of the report thread. Every method returns the thread's first error (a full disk, a folder that
/// became read-only) once there is one. Dropped without [`Reporter::finish`], it stops the thread and writes no more.
pub struct Reporter {
    /// `None` once the thread was told to end.
    sender: Option<Sender<Message>>,
    thread: Option<JoinHandle<Option<Outcome>>>,
    /// The thread's first error.
    error: Arc<Mutex<Option<Error>>>,
    /// Closed by the thread when the last checkpoint is on disk.
    in_flight: Option<Receiver<()>>,
    tails: Vec<Tail>,
}

/// What the next row of a session needs to know of the rows before it.
struct Tail {
    /// `total_reward` of every row.
    rewards: Vec<f64>,
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
            rewards: column("total_reward"),
            frame: column("frame").last().copied().unwrap_or(0.0),
            wall_t_s: column("wall_t").last().copied().unwrap_or(0.0),
            total_reward_ma: ma.last().copied().unwrap_or(f64::NAN),
            best: ma.into_iter().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// The row of the data frame for a log row; true where it reached the best score.
    fn extend(&mut self, row: &Row, wall_t_s: f64) -> (Vec<f64>, bool) {
        let value = |name| value(row, name);
        self.rewards.push(value("total_reward"));
        self.total_reward_ma = metric::total_reward_ma(&self.rewards);
        self.frame = value("frame");
        self.wall_t_s = wall_t_s;
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
    /// Opens log and events and starts the thread.
    ///
    /// # Errors
    /// Where the log or the event file cannot be made.
    pub fn start(options: Options) -> Result<Reporter> {
        let frames = vec![DataFrame::session(); options.sessions.len()];
        let mut events = options.tensorboard.then(|| EventWriter::create(&options.folder.log_dir())).transpose()?;
        if let (Some(events), Some(spec)) = (&mut events, options.meta.get("spec")) {
            events.text(0, &format!("spec/trial{}", options.trial), &format!("```json\n{spec}\n```"))?;
        }
        let log = Log::open(&options.folder.trial_log(options.trial))?;
        let in_events = vec![0; frames.len()];
        Reporter::spawn(options, frames, log, events, in_events)
    }

    /// As [`Reporter::start`], continuing the data frames, best scores and event file of a resumable checkpoint.
    ///
    /// # Errors
    /// Also where the checkpoint is of other sessions.
    pub fn resume(options: Options, from: &Checkpoint) -> Result<Reporter> {
        let frames = from.frames.clone();
        let columns = DataFrame::session().names;
        if from.meta("sessions")? != super::thread::join(&options.sessions)
            || frames.len() != options.sessions.len()
            || frames.iter().any(|frame| frame.names != columns)
        {
            return Err(Error::new("", "the checkpoint is of other sessions or has other columns")
                .hint("resume with the spec and the program that began the run"));
        }
        options.folder.remove_leftovers();
        let mut log = Log::open(&options.folder.trial_log(options.trial))?;
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
        Reporter::spawn(options, frames, log, events, in_events)
    }

    fn spawn(
        options: Options,
        frames: Vec<DataFrame>,
        log: Log,
        events: Option<EventWriter>,
        in_events: Vec<usize>,
    ) -> Result<Reporter> {
        let (sender, receiver) = bounded(CAPACITY);
        let error = Arc::new(Mutex::new(None));
        let tails = frames.iter().map(Tail::new).collect();
        let thread = Thread::new(options, frames, log, events, in_events, Arc::clone(&error));
        let thread = std::thread::Builder::new()
            .name("report".to_string())
            .spawn(move || thread.run(&receiver))
            .map_err(|err| Error::new("", format!("cannot start the report thread: {err}")))?;
        Ok(Reporter { sender: Some(sender), thread: Some(thread), error, in_flight: None, tails })
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

    /// `total_reward_ma` of the last row of session position `s`; NaN before the first.
    pub fn total_reward_ma(&self, s: usize) -> f64 {
        self.tails[s].total_reward_ma
    }

    /// Sends the parameters at a session's best score. Written soon (the latest of several within two seconds), and in
    /// any case before the next checkpoint.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn best_model(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        let total_reward_ma = self.tails[s].total_reward_ma;
        self.send(Message::BestModel { s, frame, total_reward_ma, tensors })
    }

    /// Sends a session's final parameters.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn model(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        let total_reward_ma = self.tails[s].total_reward_ma;
        self.send(Message::Model { s, frame, total_reward_ma, tensors })
    }

    /// Sends parameters for TensorBoard's histograms (models do so by themselves).
    ///
    /// # Errors
    /// The thread's first error.
    pub fn histograms(&mut self, s: usize, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        self.send(Message::Histograms { s, frame, tensors })
    }

    /// Sends a resumable checkpoint: the snapshot at `frame` with what `meta` adds to [`Options::meta`]. Waits only for
    /// an earlier checkpoint that is still being written.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn checkpoint(&mut self, frame: u64, meta: BTreeMap<String, String>, tensors: Vec<Tensor>) -> Result<()> {
        self.wait_for_checkpoint();
        let (done, in_flight) = bounded(0);
        self.in_flight = Some(in_flight);
        self.send(Message::Checkpoint { frame, meta, tensors, done })
    }

    /// Waits until everything sent so far, the last checkpoint too, is on disk (Ctrl-C).
    ///
    /// # Errors
    /// The thread's first error.
    pub fn sync(&mut self) -> Result<()> {
        let (done, wait) = bounded(0);
        self.send(Message::Sync { done })?;
        // the thread closes the channel when it is there, or when it ends
        let _ = wait.recv();
        self.check()
    }

    /// Appends a line to the trial's log.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn log(&mut self, level: Level, text: impl Into<String>) -> Result<()> {
        self.send(Message::Log { level, text: text.into() })
    }

    /// Writes all that is left, draws the last graphs and the trial's metrics, and returns when everything is on disk.
    ///
    /// # Errors
    /// The thread's first error.
    pub fn finish(mut self) -> Result<Outcome> {
        self.send(Message::Finish)?;
        let outcome = self.join();
        self.check()?;
        outcome.ok_or_else(gone)
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
    fn join(&mut self) -> Option<Outcome> {
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
