//! The work of the report thread: it keeps the data frames of a trial and writes its files, most of them every two
//! seconds, graphs every ten, everything at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::json;

use super::checkpoint::Checkpoint;
use super::events::EventWriter;
use super::files::write_whole;
use super::frame::DataFrame;
use super::html;
use super::json;
use super::log::{Level, Log};
use super::plot::{Graph, Series};
use super::writer::{Options, Outcome, TrialOptions};
use crate::device::Dtype;
use crate::error::{Error, Result};
use crate::metric::{self, LocalMetrics, SessionMetrics};
use crate::net::Tensor;

/// Time between writes of csv, json and best models, at least; as with the graphs, they never take more than a twentieth
/// of the time.
const INFO_EVERY: Duration = Duration::from_secs(2);
/// Time between drawings of the graphs, at least.
const GRAPHS_EVERY: Duration = Duration::from_secs(10);
/// Threads that write the last files; an fsync mostly waits, and many at once share one journal commit.
const LAST_THREADS: usize = 32;

/// What the trainer sends.
pub(super) enum Message {
    Rows {
        s: usize,
        rows: Vec<Vec<f64>>,
    },
    Model {
        s: usize,
        frame: u64,
        total_reward_ma: f64,
        tensors: Vec<Tensor>,
    },
    Histograms {
        s: usize,
        frame: u64,
        tensors: Vec<Tensor>,
    },
    /// `done` is dropped when the file is on disk.
    Checkpoint {
        frame: u64,
        tensors: Vec<Tensor>,
        done: Sender<()>,
    },
    /// `done` is told when everything before is on disk, and dropped when that failed.
    Sync {
        done: Sender<()>,
    },
    Log {
        level: Level,
        text: String,
    },
    /// Writes the last files of the trials at these positions of [`Options::trials`], which go no further.
    FinishTrials {
        positions: Vec<usize>,
    },
    Finish,
}

/// Parameters of a session, at its best score or at its end.
pub(super) struct SavedModel {
    pub(super) frame: u64,
    pub(super) total_reward_ma: f64,
    pub(super) tensors: Vec<Tensor>,
}

/// The latest best model not yet written, per session: a better one takes its place, so that they do not pile up in the
/// channel while the thread is busy.
pub(super) type Waiting = Arc<Mutex<Vec<Option<SavedModel>>>>;

/// A file to write, with the work that makes its bytes.
type Job<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// State of the report thread.
pub(super) struct Thread {
    options: Options,
    /// One per session, of all trials.
    frames: Vec<DataFrame>,
    /// Final parameters, per session, until they are written with the last files of its trial.
    finals: Vec<Option<SavedModel>>,
    /// What a finished trial came to, per trial.
    outcomes: Vec<Option<Outcome>>,
    /// Rows already in the event file, per session.
    sent_rows: Vec<usize>,
    /// Tags of the columns, per session.
    tags: Vec<Vec<String>>,
    log: Log,
    events: Option<EventWriter>,
    waiting: Waiting,
    error: Arc<Mutex<Option<Error>>>,
    /// Rows came since csv and json were written; since the graphs were drawn.
    info_is_old: bool,
    graphs_are_old: bool,
    next_info: Instant,
    next_graphs: Instant,
}

/// What there is of a run when its thread begins.
pub(super) struct Begun {
    pub(super) log: Log,
    pub(super) events: Option<EventWriter>,
    /// One per session.
    pub(super) frames: Vec<DataFrame>,
    /// Rows of each session that the event file already has.
    pub(super) in_events: Vec<usize>,
    /// Trials that have their last files already.
    pub(super) ended: Vec<u32>,
}

impl Thread {
    pub(super) fn new(options: Options, begun: Begun, waiting: Waiting, error: Arc<Mutex<Option<Error>>>) -> Thread {
        let Begun { log, events, frames, in_events, ended } = begun;
        let tags = |s: usize| {
            let (trial, session) = options.place(s);
            frames[s].names.iter().map(|column| format!("{column}/trial{trial}_session{session}")).collect()
        };
        let now = Instant::now();
        let mut thread = Thread {
            tags: (0..frames.len()).map(tags).collect(),
            sent_rows: in_events,
            waiting,
            info_is_old: false,
            graphs_are_old: false,
            next_info: now + INFO_EVERY,
            next_graphs: now + GRAPHS_EVERY,
            outcomes: vec![None; options.trials.len()],
            finals: frames.iter().map(|_| None).collect(),
            options,
            frames,
            log,
            events,
            error,
        };
        for i in 0..thread.outcomes.len() {
            if ended.contains(&thread.options.trials[i].trial) {
                thread.outcomes[i] = Some(thread.outcome(i).1);
            }
        }
        thread
    }

    /// Works until it is told to finish, or the trainer is gone. After an error it only empties the channel, so that the
    /// trainer never hangs before it sees the error.
    pub(super) fn run(mut self, receiver: &Receiver<Message>) -> Option<Vec<Outcome>> {
        loop {
            let wait = self.next_info.min(self.next_graphs).saturating_duration_since(Instant::now());
            let result = match receiver.recv_timeout(wait) {
                Ok(Message::Finish) => match self.finish() {
                    Ok(outcomes) => return Some(outcomes),
                    Err(err) => Err(err),
                },
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            if let Err(err) = result.and_then(|()| self.write_what_is_due()) {
                // a full disk may still take a short line; if not, the trainer says it
                let _ = self.log.line(Level::Error, &err.to_string());
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(err);
                receiver.iter().for_each(drop);
                return None;
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Rows { s, rows } => {
                self.frames[s].rows.extend(rows);
                self.info_is_old = true;
                self.graphs_are_old = true;
                self.write_events(s)
            }
            Message::Model { s, frame, total_reward_ma, tensors } => {
                self.finals[s] = Some(SavedModel { frame, total_reward_ma, tensors });
                Ok(())
            }
            Message::Histograms { s, frame, tensors } => self.write_histograms(s, frame, &tensors),
            Message::Checkpoint { frame, tensors, done: _done } => self.write_checkpoint(frame, tensors),
            Message::Sync { done } => {
                self.write_best()?;
                self.write_info()?;
                self.events.as_mut().map_or(Ok(()), EventWriter::sync)?;
                // whoever waits may be gone by now
                let _ = done.send(());
                Ok(())
            }
            Message::Log { level, text } => self.log.line(level, &text),
            Message::FinishTrials { positions } => {
                self.write_best()?;
                self.finish_trials(&positions)
            }
            Message::Finish => unreachable!("taken by `run`"),
        }
    }

    fn write_what_is_due(&mut self) -> Result<()> {
        let now = Instant::now();
        if now >= self.next_info {
            self.write_best()?;
            self.write_info()?;
            self.events.as_mut().map_or(Ok(()), EventWriter::flush)?;
            self.next_info = Instant::now() + INFO_EVERY.max(now.elapsed() * 20);
        }
        if now >= self.next_graphs {
            let start = Instant::now();
            if self.options.graphs && self.graphs_are_old {
                let running = (0..self.outcomes.len()).filter(|&i| self.outcomes[i].is_none());
                run_all(running.flat_map(|i| self.graph_jobs(i)).collect(), 1)?;
                self.graphs_are_old = false;
            }
            self.next_graphs = Instant::now() + GRAPHS_EVERY.max(start.elapsed() * 20);
        }
        Ok(())
    }

    /// New rows of session position `s` as points of TensorBoard's curves.
    fn write_events(&mut self, s: usize) -> Result<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        let frame_column = self.frames[s].names.iter().position(|name| name == "frame").unwrap_or(0);
        for row in &self.frames[s].rows[self.sent_rows[s]..] {
            let points: Vec<(&str, f64)> = self.tags[s].iter().map(String::as_str).zip(row.iter().copied()).collect();
            events.scalars(row[frame_column] as u64, &points)?;
        }
        self.sent_rows[s] = self.frames[s].rows.len();
        Ok(())
    }

    fn write_histograms(&mut self, s: usize, frame: u64, tensors: &[Tensor]) -> Result<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        let (trial, session) = self.options.place(s);
        for tensor in tensors.iter().filter(|tensor| tensor.dtype == Dtype::F32) {
            let values: Vec<f32> = tensor.words.iter().map(|&word| f32::from_bits(word)).collect();
            let tag = format!("{}/trial{trial}_session{session}", tensor.name);
            events.histogram(frame, &tag, &values)?;
        }
        Ok(())
    }

    fn model_file(&self, s: usize, frame: u64, total_reward_ma: f64, tensors: Vec<Tensor>) -> Checkpoint {
        let (trial, session) = self.options.place(s);
        let mut meta = self.options.trials[self.options.trial_of(s)].meta.clone();
        meta.insert("kind".into(), "model".into());
        meta.insert("trial".into(), trial.to_string());
        meta.insert("session".into(), session.to_string());
        meta.insert("frame".into(), frame.to_string());
        meta.insert("total_reward_ma".into(), total_reward_ma.to_string());
        Checkpoint { meta, tensors, frames: Vec::new() }
    }

    /// Best models that wait.
    fn write_best(&self) -> Result<()> {
        let waiting: Vec<Option<SavedModel>> =
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().map(Option::take).collect();
        let write = |(s, best): (usize, Option<SavedModel>)| -> Option<Job<'_>> {
            let SavedModel { frame, total_reward_ma, tensors } = best?;
            let (trial, session) = self.options.place(s);
            let path = self.options.folder.best_model(trial, session);
            Some(Box::new(move || self.model_file(s, frame, total_reward_ma, tensors).write(&path)))
        };
        run_all(waiting.into_iter().enumerate().filter_map(write).collect(), LAST_THREADS)
    }

    /// A resumable checkpoint. What it counts on, best models and events up to here, is on disk before it.
    fn write_checkpoint(&mut self, frame: u64, tensors: Vec<Tensor>) -> Result<()> {
        self.write_best()?;
        let mut meta = self.options.trials[0].meta.clone();
        meta.insert("kind".into(), "resume".into());
        meta.insert("trial".into(), self.options.first().to_string());
        meta.insert("sessions".into(), self.options.describe());
        meta.insert("frame".into(), frame.to_string());
        let ended = |(i, outcome): (usize, &Option<Outcome>)| outcome.as_ref().map(|_| self.options.trials[i].trial);
        meta.insert("ended".into(), join(self.outcomes.iter().enumerate().filter_map(ended)));
        if let Some(events) = &mut self.events {
            events.sync()?;
            let name = events.path().file_name().unwrap_or_default().to_string_lossy();
            meta.insert("events_file".into(), name.into_owned());
            meta.insert("events_bytes".into(), events.len_bytes().to_string());
        }
        let checkpoint = Checkpoint { meta, tensors, frames: self.frames.clone() };
        checkpoint.write(&self.options.folder.resume(self.options.first()))
    }

    /// Data frames and metrics of the sessions, and a line of the log for each.
    fn write_info(&mut self) -> Result<()> {
        if !self.info_is_old {
            return Ok(());
        }
        let running: Vec<usize> = (0..self.frames.len()).filter(|&s| !self.has_ended(s)).collect();
        for &s in &running {
            let frame = &self.frames[s];
            if let Some(row) = frame.rows.last() {
                let cells: Vec<String> = frame
                    .names
                    .iter()
                    .zip(row)
                    .filter(|(_, x)| x.is_finite())
                    .map(|(name, x)| format!("{name}:{}", metric::short(*x)))
                    .collect();
                let (trial, session) = self.options.place(s);
                let trial = if self.options.trials.len() > 1 { format!("trial {trial} ") } else { String::new() };
                let text = format!("{trial}session {session} | {}", cells.join(" | "));
                self.log.line(Level::Info, &text)?;
            }
        }
        run_all(self.info_jobs(&running, &["train"]), 2)?;
        self.info_is_old = false;
        Ok(())
    }

    fn has_ended(&self, s: usize) -> bool {
        self.outcomes[self.options.trial_of(s)].is_some()
    }

    /// Finishes every trial that is not finished yet.
    fn finish(&mut self) -> Result<Vec<Outcome>> {
        self.write_best()?;
        self.finish_trials(&(0..self.outcomes.len()).collect::<Vec<_>>())?;
        self.events.as_mut().map_or(Ok(()), EventWriter::sync)?;
        Ok(self.outcomes.iter().flatten().cloned().collect())
    }

    /// Writes the last files of trials, once; of all of them together, since most of the time goes into waiting for the
    /// disk.
    fn finish_trials(&mut self, positions: &[usize]) -> Result<()> {
        let new: Vec<usize> = positions.iter().copied().filter(|&i| self.outcomes[i].is_none()).collect();
        let outcomes: Vec<(Vec<Analysis>, Outcome)> = new.iter().map(|&i| self.outcome(i)).collect();
        let finals: Vec<(usize, SavedModel)> = (new.iter().flat_map(|&i| self.options.positions(i)))
            .filter_map(|s| Some((s, self.finals[s].take()?)))
            .collect();
        let folder = &self.options.folder;
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for (s, SavedModel { frame, total_reward_ma, tensors }) in finals {
            let (trial, session) = self.options.place(s);
            let file = self.model_file(s, frame, total_reward_ma, tensors);
            jobs.push(Box::new(move || file.write(&folder.model(trial, session))));
        }
        let mut reports: Vec<Job<'_>> = Vec::new();
        let mut last: Vec<Job<'_>> = Vec::new();
        for (&i, (analyses, outcome)) in new.iter().zip(&outcomes) {
            // the files of an evaluation: without a separate one it is the training itself, as in SLM Lab
            jobs.extend(self.info_jobs(&self.options.positions(i).collect::<Vec<_>>(), &["train", "eval"]));
            if self.options.graphs {
                jobs.extend(self.graph_jobs(i));
            }
            let (t, trial) = (self.options.trials[i].trial, outcome.trial);
            jobs.push(Box::new(move || {
                let metrics = json!({ "scalar": trial, "local": trial_local(analyses) });
                json::write(&folder.trial_info(t, "trial_metrics.json"), &metrics)?;
                json::write(&folder.trial_info(t, "trial_metrics_scalar.json"), &trial)
            }));
            reports.push(Box::new(move || html::trial(folder, t)));
            last.push(Box::new(move || json::write(&folder.trial_metrics_scalar(t), &trial)));
        }
        run_all(jobs, LAST_THREADS)?;
        run_all(reports, LAST_THREADS)?;
        for (&i, (_, outcome)) in new.iter().zip(&outcomes) {
            let several = self.options.trials.len() > 1;
            let name = if several { format!("trial {} ", self.options.trials[i].trial) } else { String::new() };
            self.log.line(Level::Info, &format!("{name}trial_metrics: {}", outcome.trial))?;
        }
        self.events.as_mut().map_or(Ok(()), EventWriter::sync)?;
        // last of all the root's copies: whoever sees one sees a finished trial
        run_all(last, LAST_THREADS)?;
        for (i, (_, outcome)) in new.into_iter().zip(outcomes) {
            self.outcomes[i] = Some(outcome);
        }
        Ok(())
    }

    /// What a trial has come to so far.
    fn outcome(&self, i: usize) -> (Vec<Analysis>, Outcome) {
        let random = self.options.trials[i].random_return;
        let frames = &self.frames[self.options.positions(i)];
        let analyses: Vec<Analysis> = frames.iter().map(|frame| Self::analysis(frame, random)).collect();
        let strengths: Vec<Vec<f64>> = analyses.iter().map(|a| a.local.strengths.clone()).collect();
        let sessions: Vec<SessionMetrics> = analyses.iter().map(|a| a.scalar).collect();
        let frame = analyses.iter().filter_map(|a| a.local.frames.last().copied()).fold(f64::NAN, f64::max);
        let trial = metric::trial(frame, &sessions, &strengths);
        (analyses, Outcome { sessions, trial })
    }

    fn analysis(frame: &DataFrame, random: f64) -> Analysis {
        let column = |name| frame.column(name).unwrap_or_default();
        let (rewards, frames, opt_steps) = (column("total_reward"), column("frame"), column("opt_step"));
        Analysis {
            scalar: metric::session(&rewards, &frames, &opt_steps, random),
            local: metric::local(&rewards, &frames, &opt_steps, random),
        }
    }

    /// Csv and json of sessions, by position, under each name (`train`, `eval`).
    fn info_jobs(&self, positions: &[usize], names: &'static [&'static str]) -> Vec<Job<'_>> {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for &s in positions {
            let (frame, (trial, session)) = (&self.frames[s], self.options.place(s));
            let random = self.options.trials[self.options.trial_of(s)].random_return;
            for name in names {
                let path = move |kind: &str, ext: &str| {
                    self.options.folder.session_info(trial, session, &format!("{kind}_{name}.{ext}"))
                };
                jobs.push(Box::new(move || write_whole(&path("df", "csv"), frame.to_csv().as_bytes())));
                jobs.push(Box::new(move || {
                    let Analysis { scalar, local } = Self::analysis(frame, random);
                    json::write(&path("metrics_scalar", "json"), &scalar)?;
                    json::write(&path("metrics", "json"), &json!({ "scalar": scalar, "local": local }))
                }));
            }
        }
        jobs
    }

    /// Graphs of a trial and of its sessions, each as PNG and SVG.
    fn graph_jobs(&self, i: usize) -> Vec<Job<'_>> {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        let folder = &self.options.folder;
        let TrialOptions { trial, sessions, .. } = &self.options.trials[i];
        let frames = &self.frames[self.options.positions(i)];
        for (frame, &session) in frames.iter().zip(sessions) {
            for &(kind, column, x_label, y_label) in &SESSION_GRAPHS {
                let y = frame.column(column).unwrap_or_default();
                if y.iter().any(|y| y.is_finite()) {
                    jobs.push(Box::new(move || {
                        let x = frame.column("frame").unwrap_or_default();
                        let title = format!("session graph: {} t{trial} s{session}", folder.spec_name());
                        let series = Series { name: y_label.to_string(), x, mean: y, std: None };
                        let graph = graph(title, x_label, y_label, series);
                        write_graph(&graph, &|ext| vec![folder.session_graph(*trial, session, kind, ext)])
                    }));
                }
            }
        }
        for &(kind, column, x_label, y_label) in &SESSION_GRAPHS[..TRIAL_GRAPHS] {
            jobs.push(Box::new(move || {
                let column_of = |frame: &DataFrame, name| frame.column(name).unwrap_or_default();
                let longest = frames.iter().max_by_key(|frame| frame.rows.len());
                let x = longest.map(|frame| column_of(frame, "frame")).unwrap_or_default();
                let mut columns: Vec<Vec<f64>> = frames.iter().map(|frame| column_of(frame, column)).collect();
                // past the end of a session that stopped early the others are drawn
                columns.iter_mut().for_each(|column| column.resize(x.len(), f64::NAN));
                let (mean, std) = metric::mean_and_std(&columns);
                let n = sessions.len();
                let plural = if n == 1 { "" } else { "s" };
                let title = format!("trial graph: {} t{trial} {n} session{plural}", folder.spec_name());
                let std = (n > 1).then_some(std);
                let graph = graph(title, x_label, y_label, Series { name: y_label.to_string(), x, mean, std });
                let paths =
                    |ext: &str| vec![folder.trial_graph(*trial, kind, ext), folder.trial_graph_root(*trial, kind, ext)];
                write_graph(&graph, &paths)
            }));
        }
        jobs
    }
}

/// File name, column, label of x, label of y; the names are SLM Lab's. A trial has the first two.
const SESSION_GRAPHS: [(&str, &str, &str, &str); 4] = [
    ("mean_returns_vs_frames", "total_reward", "frames", "mean_returns"),
    ("mean_returns_ma_vs_frames", "total_reward_ma", "frames", "mean_returns_ma"),
    ("loss_vs_frame", "loss", "frame", "loss"),
    ("entropy_vs_frame", "entropy", "frame", "entropy"),
];
const TRIAL_GRAPHS: usize = 2;

/// Metrics of one session.
struct Analysis {
    scalar: SessionMetrics,
    local: LocalMetrics,
}

fn graph(title: String, x_label: &str, y_label: &str, series: Series) -> Graph {
    Graph { title, x_label: x_label.to_string(), y_label: y_label.to_string(), series: vec![series] }
}

/// PNG and SVG under every path that `paths` gives for an extension.
fn write_graph(graph: &Graph, paths: &dyn Fn(&str) -> Vec<std::path::PathBuf>) -> Result<()> {
    for (ext, bytes) in [("png", graph.to_png()), ("svg", graph.to_svg().into_bytes())] {
        for path in paths(ext) {
            write_whole(&path, &bytes)?;
        }
    }
    Ok(())
}

/// Runs jobs on a few threads, in any order; the first error of each thread ends it, and one of them is returned.
fn run_all(jobs: Vec<Job<'_>>, threads: usize) -> Result<()> {
    let count = jobs.len();
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<()> {
        while let Some(job) = next() {
            job()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    })
}

/// Series of a trial under SLM Lab's keys: a list per session, and the consistency over them.
fn trial_local(analyses: &[Analysis]) -> serde_json::Value {
    let strengths: Vec<Vec<f64>> = analyses.iter().map(|analysis| analysis.local.strengths.clone()).collect();
    let each = |series: fn(&LocalMetrics) -> &Vec<f64>| -> Vec<&Vec<f64>> {
        analyses.iter().map(|analysis| series(&analysis.local)).collect()
    };
    let first = |series: fn(&LocalMetrics) -> &Vec<f64>| analyses.first().map(|analysis| series(&analysis.local));
    json!({
        "mean_returns": each(|local| &local.mean_returns),
        "strengths": each(|local| &local.strengths),
        "sample_efficiencies": each(|local| &local.sample_efficiencies),
        "training_efficiencies": each(|local| &local.training_efficiencies),
        "stabilities": each(|local| &local.stabilities),
        "consistencies": metric::consistencies(&strengths),
        "frames": first(|local| &local.frames),
        "opt_steps": first(|local| &local.opt_steps),
    })
}

/// Numbers with commas between.
pub(super) fn join(numbers: impl IntoIterator<Item = u32>) -> String {
    numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}
