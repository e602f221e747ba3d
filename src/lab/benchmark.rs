//! Benchmarks: many specs, several seeds each, packed on the device, held against target scores. A benchmark's folder has a
//! folder per spec, whose trials are the seeds, and a table in Markdown and JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::lab::device::{self, choice};
use crate::lab::progress::{Progress, Verbosity, count};
use crate::lab::provenance::{Facts, Program};
use crate::lab::reproduce::write_script;
use crate::lab::search::experiment::{Drawn, has_ended};
use crate::lab::search::local::Local;
use crate::lab::search::{Engine, News, Order, State, Task, lock};
use crate::lab::trial::stamped;
use crate::metric::{SessionMetrics, mean_std};
use crate::plan::Plan;
use crate::report::files::{RunFolder, new_folder, write_whole};
use crate::report::frame::DataFrame;
use crate::report::json;
use crate::report::log::{Level, Log};
use crate::spec::{self, DeviceChoice, Spec};

/// Time between two writes of the table of a benchmark that runs.
const TABLE_EVERY: Duration = Duration::from_secs(10);
/// Seeds of a suite that names none.
const SEEDS: [u32; 3] = [1, 2, 3];

/// A suite file, as a person typed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Start of the benchmark folder's name.
    pub name: String,
    /// One trial each, of every spec.
    #[serde(default = "seeds")]
    pub seeds: Vec<u32>,
    /// Whose scores the targets are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub rows: Vec<Entry>,
}

fn seeds() -> Vec<u32> {
    SEEDS.to_vec()
}

/// A spec of a suite.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its file, from the suite's folder.
    pub spec: PathBuf,
    /// Which spec of the file, where it holds several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Keys that are set, and `${var}`s that are filled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Value>,
    /// The score to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// Whose score that is, if not the suite's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// `benchmark.json`: what a benchmark runs, with every default filled in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plans {
    pub name: String,
    pub seeds: Vec<u32>,
    pub rows: Vec<PlannedRow>,
}

/// A spec of a benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedRow {
    pub spec: Spec,
    pub target: Option<f64>,
    pub source: Option<String>,
}

impl Suite {
    /// Reads a suite file.
    ///
    /// # Errors
    /// Names the file, and the place of what is wrong in it.
    pub fn read(path: &Path) -> Result<Suite> {
        let mut suite: Suite = json::read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        suite.rows.iter_mut().for_each(|row| row.spec = folder.join(&row.spec));
        Ok(suite)
    }

    /// A suite of every spec in some files, without targets.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(files: &[PathBuf]) -> Result<Suite> {
        let mut rows = Vec::new();
        for file in files {
            let named = |name| Entry { spec: file.clone(), name: Some(name), ..Entry::default() };
            rows.extend(spec::names(file)?.into_iter().map(named));
        }
        Ok(Suite { name: "benchmark".to_string(), seeds: seeds(), source: None, rows })
    }

    /// Whether a file is a suite and not a spec.
    pub fn is_one(path: &Path) -> bool {
        json::read::<Value>(path).is_ok_and(|value| value.get("rows").is_some_and(Value::is_array))
    }

    /// Loads every spec. `sets` are set in each of them, after its own.
    ///
    /// # Errors
    /// A spec that does not load or cannot be planned, two of one name, no spec, no seed.
    pub fn plans(&self, sets: &[(String, String)]) -> Result<Plans> {
        let mut rows: Vec<PlannedRow> = Vec::new();
        for entry in &self.rows {
            let own = entry
                .set
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_string)));
            let sets: Vec<(String, String)> = own.chain(sets.iter().cloned()).collect();
            let spec = spec::load(&entry.spec, entry.name.as_deref(), &sets)?.spec;
            Plan::new(&spec).map_err(|error| error.within(&entry.spec.display().to_string()))?;
            if rows.iter().any(|row| row.spec.name == spec.name) {
                return Err(Error::new(
                    entry.spec.display().to_string(),
                    format!("a second spec named `{}`", spec.name),
                )
                .hint("set another `name` for one of them"));
            }
            rows.push(PlannedRow { spec, target: entry.target, source: entry.source.clone().or(self.source.clone()) });
        }
        if rows.is_empty() || self.seeds.is_empty() {
            return Err(Error::new("", "a benchmark needs a spec and a seed"));
        }
        Ok(Plans { name: self.name.clone(), seeds: self.seeds.clone(), rows })
    }
}

/// How a benchmark is run; nothing here changes a score.
pub struct Options {
    /// Receives the benchmark's folder.
    pub data: PathBuf,
    /// Where to run; none: the fastest device there is.
    pub device: Option<DeviceChoice>,
    /// CPU threads, 0 for one per core.
    pub threads: usize,
    /// Time between resumable checkpoints.
    pub checkpoint_every: Duration,
    pub verbosity: Verbosity,
    /// Set from outside to stop after the iterations in progress, with checkpoints.
    pub stop: Arc<AtomicBool>,
    /// What the files say about who made them.
    pub program: Program,
}

/// How a benchmark ended.
#[derive(Debug)]
pub enum Ending {
    /// Every spec has its scores.
    Finished { folder: PathBuf, table: Table },
    /// Stopped from outside; every spec has a checkpoint on disk.
    Interrupted { folder: PathBuf },
}

/// Scores and speeds, a row per spec.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    pub name: String,
    pub date: String,
    pub version: String,
    pub git_sha: String,
    pub git_dirty: Option<bool>,
    pub device: String,
    /// The processor, or the gpu.
    pub machine: String,
    pub command: String,
    pub rows: Vec<Row>,
}

/// One spec of a benchmark. A score is `total_reward_ma`; NaN, in JSON null, where there is none yet.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub spec: String,
    pub env: String,
    /// Frames of one session.
    pub frames: u64,
    /// Sessions of one trial.
    pub sessions: usize,
    pub seeds: Vec<u32>,
    /// Mean over the sessions, per seed.
    pub scores: Vec<f64>,
    /// Mean over seeds; the deviation, worst and best are over all sessions.
    pub score_mean: f64,
    pub score_std: f64,
    pub worst: f64,
    pub best: f64,
    pub target: Option<f64>,
    pub source: Option<String>,
    /// 1 for the target, more for a better score.
    pub ratio: Option<f64>,
    /// Of all sessions together, and the time that they took, side by side with other specs if there were any.
    pub frames_per_s: f64,
    pub wall_s: f64,
}

/// Runs a benchmark in a new folder below [`Options::data`].
///
/// # Errors
/// A device that is not there, a folder that cannot be written.
pub fn benchmark(plans: Plans, options: Options) -> Result<Ending> {
    let opened = device::open(options.device.unwrap_or_default(), options.threads)?;
    let root = new_folder(&options.data, &plans.name)?;
    json::write(&root.join(PLANS), &plans)?;
    Benchmark { plans, root, options }.run(opened)
}

/// Continues the benchmark in `root`: what is done stays, what was interrupted goes on from its checkpoint.
///
/// # Errors
/// A folder that is no benchmark; files that are damaged.
pub fn resume(root: &Path, options: Options) -> Result<Ending> {
    let path = root.join(PLANS);
    if !path.exists() {
        return Err(Error::new(root.display().to_string(), format!("no benchmark is here: there is no `{PLANS}`"))
            .hint("give the folder that `slm-fast benchmark` made"));
    }
    let plans: Plans = json::read(&path)?;
    let opened = device::open(options.device.unwrap_or_default(), options.threads)?;
    Benchmark { plans, root: root.to_path_buf(), options }.run(opened)
}

/// Name of the file that says what a benchmark runs.
const PLANS: &str = "benchmark.json";

/// A benchmark under way.
struct Benchmark {
    plans: Plans,
    root: PathBuf,
    options: Options,
}

/// What is shown of the jobs under way.
struct Board {
    progress: Progress,
    behind: BTreeMap<u32, u64>,
    next_table: Instant,
}

impl Benchmark {
    fn run(&self, opened: device::Opened) -> Result<Ending> {
        let again = |error: Error| {
            let again = format!("`slm-fast benchmark --resume {}` continues", self.root.display());
            let hint = if error.hint.is_empty() { again } else { format!("{}; {again}", error.hint) };
            error.hint(hint)
        };
        self.all(opened).map_err(again)
    }

    fn all(&self, opened: device::Opened) -> Result<Ending> {
        let device::Opened { device, line } = opened;
        let name = &self.plans.name;
        let mut log = Log::open(&self.root.join(format!("{name}.log")))?;
        let facts = Facts::now(&self.options.program, choice(&device), &device.describe());
        let tasks = self.tasks(choice(&device), &facts)?;
        let frames = |task: &Task| task.order.until * task.sessions() as u64;
        let label = format!("{name} {} specs", tasks.len());
        let total: u64 = tasks.iter().map(frames).sum();
        let names = [label.clone()];
        let progress = Progress::new(&label, &names, 0..total, Instant::now(), self.options.verbosity).together();
        let (specs, seeds) = (tasks.len(), self.plans.seeds.len());
        let opening = format!("{name}: {specs} specs x {seeds} seeds, in {}", self.root.display());
        for text in [format!("device: {line}"), opening] {
            progress.line(&text);
            log.line(Level::Info, &text)?;
        }
        let (mut behind, mut open) = (BTreeMap::new(), Vec::new());
        for task in &tasks {
            if task.is_done()? {
                behind.insert(task.id, frames(task));
            } else {
                open.push(task.clone());
            }
        }
        let board = Mutex::new(Board { progress, behind, next_table: Instant::now() + TABLE_EVERY });
        let sessions: BTreeMap<u32, u64> = tasks.iter().map(|task| (task.id, task.sessions() as u64)).collect();
        let tell = |id: u32, news: News| {
            let mut board = lock(&board);
            let now = news.frame * sessions[&id];
            if board.behind.insert(id, now).is_none() {
                board.progress.skip(now.saturating_sub(news.frames));
            }
            news.warnings.iter().for_each(|warning| board.progress.warn(warning));
            let behind = board.behind.values().sum();
            if board.progress.is_due(behind, Instant::now()) {
                board.progress.update(behind, &[(f64::NAN, false)]);
            }
            if Instant::now() >= board.next_table {
                // a table that cannot be written now is written, or complained of, at the end
                let _ = self.write_table(&tasks, &facts);
                board.next_table = Instant::now() + TABLE_EVERY;
            }
        };
        let mut engine = Local::new(&device, self.options.threads, self.options.checkpoint_every);
        let states = engine.advance(&open, &self.options.stop, &tell)?;
        lock(&board).progress.finish();
        let table = self.write_table(&tasks, &facts)?;
        let folder = self.root.clone();
        if states.contains(&State::Interrupted) {
            log.line(Level::Warning, "interrupted")?;
            return Ok(Ending::Interrupted { folder });
        }
        log.line(Level::Info, "complete")?;
        Ok(Ending::Finished { folder, table })
    }

    /// A job per spec, whose trials are the seeds.
    fn tasks(&self, device: DeviceChoice, facts: &Facts) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        for (id, row) in self.plans.rows.iter().enumerate() {
            let name = &row.spec.name;
            let folder = RunFolder::within(&self.root.join(name), name)?;
            let mut trials = Vec::new();
            for (trial, &seed) in (0u32..).zip(&self.plans.seeds) {
                let mut spec = Spec { search: None, ..row.spec.clone() };
                spec.meta.random_seed = Some(seed);
                spec.meta.device = device;
                let path = folder.trial_spec(trial);
                if path.exists() {
                    // as the files that are there say, whatever binary goes on
                    spec = spec::load(&path, Some(name), &[])?.spec;
                } else {
                    spec.meta.git_sha = Some(self.options.program.git_sha.clone());
                    spec.meta.git_dirty = self.options.program.git_dirty;
                    if trial == 0 {
                        json::write(&folder.spec(), &stamped(&folder, spec.clone(), None))?;
                        facts.write(&folder)?;
                        write_script(&folder, &self.options.program.git_sha)?;
                    }
                    spec = stamped(&folder, spec, Some(trial));
                    json::write(&path, &spec)?;
                }
                let plan = Plan::new(&spec)?;
                trials.push(Drawn { trial, seed, values: Vec::new(), positions: Vec::new(), spec, plan });
            }
            let order = Order { stop: Vec::new(), until: row.spec.env.max_frame };
            tasks.push(Task { id: id as u32, folder, trials, order });
        }
        Ok(tasks)
    }

    /// Writes the table as it stands.
    fn write_table(&self, tasks: &[Task], facts: &Facts) -> Result<Table> {
        let rows =
            tasks.iter().zip(&self.plans.rows).map(|(task, planned)| row(task, planned)).collect::<Result<_>>()?;
        let table = Table {
            name: self.plans.name.clone(),
            date: jiff::Zoned::now().strftime("%Y-%m-%d").to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            git_sha: self.options.program.git_sha.clone(),
            git_dirty: self.options.program.git_dirty,
            device: facts.get("device"),
            machine: match facts.get("device").as_str() {
                "cpu" => format!("{} ({} cores, {})", facts.get("cpu"), facts.get("cores"), facts.get("isa")),
                _ => facts.get("device_name"),
            },
            command: self.options.program.command.clone(),
            rows,
        };
        let path = |ext: &str| self.root.join(format!("{}_table.{ext}", self.plans.name));
        json::write(&path("json"), &table)?;
        write_whole(&path("md"), table.markdown().as_bytes())?;
        Ok(table)
    }
}

/// What a job has come to so far.
fn row(task: &Task, planned: &PlannedRow) -> Result<Row> {
    let plan = &task.trials[0].plan;
    let (mut scores, mut sessions, mut wall_s) = (Vec::new(), Vec::new(), f64::NAN);
    for drawn in &task.trials {
        let mut own = Vec::new();
        for session in 0..plan.max_session {
            if has_ended(&task.folder, drawn.trial) {
                let info = |kind: &str| task.folder.session_info(drawn.trial, session, kind);
                own.push(json::read::<SessionMetrics>(&info("metrics_scalar_train.json"))?.total_reward_ma);
                let path = info("df_train.csv");
                let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, "cannot read", &error))?;
                let clock = DataFrame::from_csv(&text, &path.display().to_string())?.column("wall_t");
                wall_s = clock.unwrap_or_default().into_iter().fold(wall_s, f64::max);
            }
        }
        scores.push(mean_std(&own).0);
        sessions.extend(own);
    }
    let (score_mean, score_std) = (mean_std(&scores).0, mean_std(&sessions).1);
    let total = (plan.max_frame * plan.max_session as u64 * task.trials.len() as u64) as f64;
    Ok(Row {
        spec: planned.spec.name.clone(),
        env: plan.env_name.to_string(),
        frames: plan.max_frame,
        sessions: plan.max_session as usize,
        seeds: task.trials.iter().map(|drawn| drawn.seed).collect(),
        score_mean,
        score_std,
        worst: sessions.iter().copied().fold(f64::NAN, f64::min),
        best: sessions.iter().copied().fold(f64::NAN, f64::max),
        scores,
        target: planned.target,
        source: planned.source.clone(),
        ratio: planned.target.map(|target| ratio(score_mean, target)).filter(|ratio| ratio.is_finite()),
        frames_per_s: total / wall_s,
        wall_s,
    })
}

/// How a score stands to its target: 1 where it equals it, more where it is better, whatever the signs.
fn ratio(score: f64, target: f64) -> f64 {
    match (score > 0.0, target > 0.0) {
        (true, true) => score / target,
        (false, false) => target / score,
        _ => 1.0 + (score - target) / target.abs().max(f64::MIN_POSITIVE),
    }
}

impl Table {
    /// The table as Markdown, with a line above it that says where it comes from.
    pub fn markdown(&self) -> String {
        let sha: String = self.git_sha.chars().take(12).collect();
        let dirty = if self.git_dirty == Some(true) { "+" } else { "" };
        let mut text = format!(
            "{}: {}, slm-fast {} ({sha}{dirty}), {}, {}\n\n",
            self.name, self.date, self.version, self.device, self.machine
        );
        let heads = [
            "spec",
            "environment",
            "frames",
            "`total_reward_ma` per seed",
            "mean",
            "std of sessions",
            "worst .. best session",
            "target",
            "ratio",
            "frames/s",
            "wall (s)",
        ];
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &line(&heads.map(str::to_string));
        text += &line(&heads.map(|head| if head == "spec" { ":--".to_string() } else { "--:".to_string() }));
        for row in &self.rows {
            let number = |x: f64| if x.is_finite() { format!("{x:.2}") } else { "-".to_string() };
            let target = row.target.map_or("-".to_string(), |target| {
                row.source.as_ref().map_or(number(target), |source| format!("{} ({source})", number(target)))
            });
            let scores: Vec<String> = row.scores.iter().copied().map(number).collect();
            text += &line(&[
                format!("`{}`", row.spec),
                row.env.clone(),
                count(row.frames as f64),
                scores.join(" / "),
                number(row.score_mean),
                number(row.score_std),
                format!("{} .. {}", number(row.worst), number(row.best)),
                target,
                row.ratio.map_or("-".to_string(), |ratio| format!("{ratio:.3}")),
                if row.frames_per_s.is_finite() { count(row.frames_per_s) } else { "-".to_string() },
                number(row.wall_s),
            ]);
        }
        let _ = write!(text, "\n`{}`\n", self.command);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_better_whatever_the_signs() {
        for (score, target, expected) in [
            (500.0, 250.0, 2.0),
            (-100.0, -80.0, 0.8),
            (-80.0, -100.0, 1.25),
            (-50.0, 100.0, -0.5),
            (50.0, -100.0, 2.5),
        ] {
            assert!((ratio(score, target) - expected).abs() < 1e-12, "{score} {target}: {}", ratio(score, target));
        }
    }
}
