//! The work of the report thread: it keeps the data frames of a trial and writes its files, most of them every two
//! seconds, graphs every ten, everything at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::json;

use super::checkpoint::Checkpoint;
use super::events::EventWriter;
use super::files::write_whole;
use super::frame::DataFrame;
use super::json;
use super::log::{Level, Log};
use super::plot::{Graph, Series};
use super::writer::{Options, Outcome};
use crate::device::Dtype;
use crate::error::{Error, Result};
use crate::metric::{self, LocalMetrics, SessionMetrics, TrialMetrics};
use crate::net::Tensor;

/// Time between writes of csv, json and best models.
const INFO_EVERY: Duration = Duration::from_secs(2);
/// Time between drawings of the graphs, at least; drawing never takes more than a twentieth of the time.
const GRAPHS_EVERY: Duration = Duration::from_secs(10);
/// Threads that write the last files; an fsync mostly waits, and several at once share one journal commit.
const LAST_THREADS: usize = 8;

/// What the trainer sends.
pub(super) enum Message {
    Rows {
        s: usize,
        rows: Vec<Vec<f64>>,
    },
    BestModel {
        s: usize,
        frame: u64,
        total_reward_ma: f64,
        tensors: Vec<Tensor>,
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
        meta: BTreeMap<String, String>,
        tensors: Vec<Tensor>,
        done: Sender<()>,
    },
    /// `done` is dropped when everything before is on disk.
    Sync {
        done: Sender<()>,
    },
    Log {
        level: Level,
        text: String,
    },
    Finish,
}

/// A file to write, with the work that makes its bytes.
type Job<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// State of the report thread.
pub(super) struct Thread {
    options: Options,
    /// One per session.
    frames: Vec<DataFrame>,
    /// Rows already in the event file, per session.
    sent_rows: Vec<usize>,
    /// Tags of the columns, per session.
    tags: Vec<Vec<String>>,
    log: Log,
    events: Option<EventWriter>,
    /// Best models not yet written, per session.
    best: Vec<Option<(u64, f64, Vec<Tensor>)>>,
    error: Arc<Mutex<Option<Error>>>,
    /// Rows came since csv and json were written; since the graphs were drawn.
    info_is_old: bool,
    graphs_are_old: bool,
    next_info: Instant,
    next_graphs: Instant,
}

impl Thread {
    /// `in_events`: rows of each session that the event file already has.
    pub(super) fn new(
        options: Options,
        frames: Vec<DataFrame>,
        log: Log,
        events: Option<EventWriter>,
        in_events: Vec<usize>,
        error: Arc<Mutex<Option<Error>>>,
    ) -> Thread {
        let tags = |s: &u32| {
            frames[0].names.iter().map(|column| format!("{column}/trial{}_session{s}", options.trial)).collect()
        };
        let now = Instant::now();
        Thread {
            tags: options.sessions.iter().map(tags).collect(),
            sent_rows: in_events,
            best: vec![None; frames.len()],
            info_is_old: false,
            graphs_are_old: false,
            next_info: now + INFO_EVERY,
            next_graphs: now + GRAPHS_EVERY,
            options,
            frames,
            log,
            events,
            error,
        }
    }

    /// Works until it is told to finish, or the trainer is gone. After an error it only empties the channel, so that the
    /// trainer never hangs before it sees the error.
    pub(super) fn run(mut self, receiver: &Receiver<Message>) -> Option<Outcome> {
        loop {
            let wait = self.next_info.min(self.next_graphs).saturating_duration_since(Instant::now());
            let result = match receiver.recv_timeout(wait) {
                Ok(Message::Finish) => match self.finish() {
                    Ok(outcome) => return Some(outcome),
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
            Message::BestModel { s, frame, total_reward_ma, tensors } => {
                self.best[s] = Some((frame, total_reward_ma, tensors));
                Ok(())
            }
            Message::Model { s, frame, total_reward_ma, tensors } => {
                self.write_histograms(s, frame, &tensors)?;
                let path = self.options.folder.model(self.options.trial, self.options.sessions[s]);
                self.model_file(s, frame, total_reward_ma, tensors).write(&path)
            }
            Message::Histograms { s, frame, tensors } => self.write_histograms(s, frame, &tensors),
            Message::Checkpoint { frame, meta, tensors, done: _done } => self.write_checkpoint(frame, meta, tensors),
            Message::Sync { done: _done } => {
                self.write_best()?;
                self.write_info()?;
                self.events.as_mut().map_or(Ok(()), EventWriter::sync)
            }
            Message::Log { level, text } => self.log.line(level, &text),
            Message::Finish => unreachable!("taken by `run`"),
        }
    }

    fn write_what_is_due(&mut self) -> Result<()> {
        let now = Instant::now();
        if now >= self.next_info {
            self.write_best()?;
            self.write_info()?;
            self.events.as_mut().map_or(Ok(()), EventWriter::flush)?;
            self.next_info = Instant::now() + INFO_EVERY;
        }
        if now >= self.next_graphs {
            let start = Instant::now();
            if self.options.graphs && self.graphs_are_old {
                run_all(self.graph_jobs(), 1)?;
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
        for tensor in tensors.iter().filter(|tensor| tensor.dtype == Dtype::F32) {
            let values: Vec<f32> = tensor.words.iter().map(|&word| f32::from_bits(word)).collect();
            let tag = format!("{}/trial{}_session{}", tensor.name, self.options.trial, self.options.sessions[s]);
            events.histogram(frame, &tag, &values)?;
        }
        Ok(())
    }

    fn model_file(&self, s: usize, frame: u64, total_reward_ma: f64, tensors: Vec<Tensor>) -> Checkpoint {
        let mut meta = self.options.meta.clone();
        meta.insert("kind".into(), "model".into());
        meta.insert("trial".into(), self.options.trial.to_string());
        meta.insert("session".into(), self.options.sessions[s].to_string());
        meta.insert("frame".into(), frame.to_string());
        meta.insert("total_reward_ma".into(), total_reward_ma.to_string());
        Checkpoint { meta, tensors, frames: Vec::new() }
    }

    /// Best models that wait.
    fn write_best(&mut self) -> Result<()> {
        for s in 0..self.best.len() {
            if let Some((frame, total_reward_ma, tensors)) = self.best[s].take() {
                self.write_histograms(s, frame, &tensors)?;
                let path = self.options.folder.best_model(self.options.trial, self.options.sessions[s]);
                self.model_file(s, frame, total_reward_ma, tensors).write(&path)?;
            }
        }
        Ok(())
    }

    /// A resumable checkpoint. What it counts on, best models and events up to here, is on disk before it.
    fn write_checkpoint(&mut self, frame: u64, meta: BTreeMap<String, String>, tensors: Vec<Tensor>) -> Result<()> {
        self.write_best()?;
        let mut all = self.options.meta.clone();
        all.extend(meta);
        all.insert("kind".into(), "resume".into());
        all.insert("trial".into(), self.options.trial.to_string());
        all.insert("sessions".into(), join(&self.options.sessions));
        all.insert("frame".into(), frame.to_string());
        if let Some(events) = &mut self.events {
            events.sync()?;
            let name = events.path().file_name().unwrap_or_default().to_string_lossy();
            all.insert("events_file".into(), name.into_owned());
            all.insert("events_bytes".into(), events.len_bytes().to_string());
        }
        let checkpoint = Checkpoint { meta: all, tensors, frames: self.frames.clone() };
        checkpoint.write(&self.options.folder.resume(self.options.trial))
    }

    /// Data frames and metrics of the sessions, and a line of the log for each.
    fn write_info(&mut self) -> Result<()> {
        if !self.info_is_old {
            return Ok(());
        }
        for (s, frame) in self.frames.iter().enumerate() {
            if let Some(row) = frame.rows.last() {
                let cells: Vec<String> = frame
                    .names
                    .iter()
                    .zip(row)
                    .filter(|(_, x)| x.is_finite())
                    .map(|(name, x)| format!("{name}:{}", short(*x)))
                    .collect();
                let text = format!("session {} | {}", self.options.sessions[s], cells.join(" | "));
                self.log.line(Level::Info, &text)?;
            }
        }
        run_all(self.info_jobs(&["train"]), 2)?;
        self.info_is_old = false;
        Ok(())
    }

    fn finish(&mut self) -> Result<Outcome> {
        self.write_best()?;
        self.info_is_old = true;
        self.write_info()?;
        let analyses: Vec<Analysis> = self.frames.iter().map(|frame| self.analysis(frame)).collect();
        let strengths: Vec<Vec<f64>> = analyses.iter().map(|a| a.local.strengths.clone()).collect();
        let sessions: Vec<SessionMetrics> = analyses.iter().map(|a| a.scalar).collect();
        let frame = analyses.iter().filter_map(|a| a.local.frames.last().copied()).fold(f64::NAN, f64::max);
        let trial = metric::trial(frame, &sessions, &strengths);

        let (folder, t) = (&self.options.folder, self.options.trial);
        // the files of an evaluation: without a separate one it is the training itself, as in SLM Lab
        let mut jobs = self.info_jobs(&["eval"]);
        if self.options.graphs {
            jobs.extend(self.graph_jobs());
        }
        let local = trial_local(&analyses, &strengths);
        let metrics = json!({ "scalar": trial, "local": local });
        let (full, scalar) =
            (folder.trial_info(t, "trial_metrics.json"), folder.trial_info(t, "trial_metrics_scalar.json"));
        jobs.push(Box::new(move || json::write(&full, &metrics)));
        jobs.push(Box::new(move || json::write(&scalar, &trial)));
        // last of all the root's copy: whoever sees it sees a finished trial
        run_all(jobs, LAST_THREADS)?;
        self.log.line(Level::Info, &trial_line(&trial))?;
        self.events.as_mut().map_or(Ok(()), EventWriter::sync)?;
        json::write(&folder.trial_metrics_scalar(t), &trial)?;
        Ok(Outcome { sessions, trial })
    }

    fn analysis(&self, frame: &DataFrame) -> Analysis {
        let column = |name| frame.column(name).unwrap_or_default();
        let (rewards, frames, opt_steps) = (column("total_reward"), column("frame"), column("opt_step"));
        let random = self.options.random_return;
        Analysis {
            scalar: metric::session(&rewards, &frames, &opt_steps, random),
            local: metric::local(&rewards, &frames, &opt_steps, random),
        }
    }

    /// Csv and json of every session under each name (`train`, `eval`).
    fn info_jobs(&self, names: &'static [&'static str]) -> Vec<Job<'_>> {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for (frame, &session) in self.frames.iter().zip(&self.options.sessions) {
            for name in names {
                let path = move |kind: &str, ext: &str| {
                    self.options.folder.session_info(self.options.trial, session, &format!("{kind}_{name}.{ext}"))
                };
                jobs.push(Box::new(move || write_whole(&path("df", "csv"), frame.to_csv().as_bytes())));
                jobs.push(Box::new(move || {
                    let Analysis { scalar, local } = self.analysis(frame);
                    json::write(&path("metrics_scalar", "json"), &scalar)?;
                    json::write(&path("metrics", "json"), &json!({ "scalar": scalar, "local": local }))
                }));
            }
        }
        jobs
    }

    /// Graphs of every session and of the trial, each as PNG and SVG.
    fn graph_jobs(&self) -> Vec<Job<'_>> {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        let Options { folder, trial, sessions, .. } = &self.options;
        for (frame, &session) in self.frames.iter().zip(sessions) {
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
                let columns: Vec<Vec<f64>> =
                    self.frames.iter().map(|frame| frame.column(column).unwrap_or_default()).collect();
                let (mean, std) = metric::mean_and_std(&columns);
                let mut x = self.frames.first().and_then(|frame| frame.column("frame")).unwrap_or_default();
                x.truncate(mean.len());
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
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<()> {
        while let Some(job) = next() {
            job()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    })
}

/// Series of a trial under SLM Lab's keys: a list per session, and the consistency over them.
fn trial_local(analyses: &[Analysis], strengths: &[Vec<f64>]) -> serde_json::Value {
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
        "consistencies": metric::consistencies(strengths),
        "frames": first(|local| &local.frames),
        "opt_steps": first(|local| &local.opt_steps),
    })
}

/// `trial_metrics: frame:200000 | total_reward_ma:499.44 | ...`, as SLM Lab logs it.
fn trial_line(m: &TrialMetrics) -> String {
    let cells = [
        ("frame", m.frame),
        ("total_reward_ma", m.total_reward_ma),
        ("strength", m.strength),
        ("max_strength", m.max_strength),
        ("final_strength", m.final_strength),
        ("sample_efficiency", m.sample_efficiency),
        ("training_efficiency", m.training_efficiency),
        ("stability", m.stability),
        ("consistency", m.consistency),
    ];
    let cells: Vec<String> = cells.iter().map(|(name, x)| format!("{name}:{}", short(*x))).collect();
    format!("trial_metrics: {}", cells.join(" | "))
}

/// Four significant digits or more, integers whole.
fn short(x: f64) -> String {
    match x.abs() {
        _ if x.fract() == 0.0 && x.abs() < 1e15 => format!("{x}"),
        size if size >= 100.0 => format!("{x:.2}"),
        size if size >= 0.1 => format!("{x:.4}"),
        _ => format!("{x:.4e}"),
    }
}

/// Numbers with commas between.
pub(super) fn join(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
