//! Which runs a data folder holds, how far each is and how well it does.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value as Json;

use super::experiment::Experiment;
use super::files::RunFolder;
use super::{log, runs};
use crate::error::{Error, Result};

/// What made a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One trial.
    Train,
    /// Many.
    Search,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every file is written.
    Complete,
    /// A process is at work on it.
    Running,
    /// None is, and it is not complete.
    Interrupted,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Below the data folder.
    pub folder: PathBuf,
    /// The spec's name.
    pub spec: String,
    pub kind: Kind,
    pub state: State,
    pub env: Option<String>,
    /// Frames done by the furthest session of a trial; of a search, by all its trials.
    pub frame: u64,
    /// Frames of a session when it is complete.
    pub max_frame: Option<u64>,
    /// Of a search: trials that have ended.
    pub trials_done: Option<u64>,
    /// Of a search: all trials.
    pub trials: Option<u64>,
    /// `total_reward_ma`: the mean over the sessions, or that of the best trial.
    pub score: Option<f64>,
    pub device: Option<String>,
    /// `2026-01-31 12:00:00`, local time.
    pub started: Option<String>,
}

/// Every run below `data`, the latest first. A folder that is no run is left out.
///
/// # Errors
/// Where `data` cannot be read.
pub fn list(data: &Path) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = folders(data)?.iter().filter_map(|folder| entry(folder).ok()).collect();
    entries.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.folder.cmp(&b.folder)));
    Ok(entries)
}

/// The folders of runs directly below `data`.
///
/// # Errors
/// Where `data` cannot be read.
pub fn folders(data: &Path) -> Result<Vec<RunFolder>> {
    let entries = std::fs::read_dir(data).map_err(|err| {
        Error::io(data, "cannot read the data folder", &err)
            .hint("give the folder that holds the runs, `data` by default")
    })?;
    let found = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(found.filter_map(|entry| RunFolder::open(&entry.path()).ok()).collect())
}

/// What is known of one run.
///
/// # Errors
/// A saved spec that is not JSON, a data frame that is damaged.
pub fn entry(folder: &RunFolder) -> Result<Entry> {
    let spec: Json = super::json::read(&folder.spec())?;
    let is_search = spec.get("search").is_some_and(|search| !search.is_null());
    // a spec with a `search` section can also be trained as it is
    let has_table = folder.experiment_df().exists() || folder.experiment_log().exists();
    let kind = if has_table || is_search && !folder.trial_log(0).exists() { Kind::Search } else { Kind::Train };
    let (last, log) = match kind {
        Kind::Train => (folder.trial_metrics_scalar(0), folder.trial_log(0)),
        Kind::Search => (folder.experiment_df(), folder.experiment_log()),
    };
    let state = match (last.exists(), log::is_open(&log)) {
        (_, true) => State::Running,
        (true, false) => State::Complete,
        (false, false) => State::Interrupted,
    };
    let text = |value: &Json| value.as_str().map(str::to_string);
    let mut entry = Entry {
        folder: folder.root().file_name().unwrap_or_default().into(),
        spec: folder.spec_name().to_string(),
        kind,
        state,
        env: text(&spec["env"]["name"]),
        frame: 0,
        max_frame: spec["env"]["max_frame"].as_f64().map(|frame| frame as u64),
        trials_done: None,
        trials: None,
        score: None,
        device: text(&spec["meta"]["device"]),
        started: started(folder),
    };
    match kind {
        Kind::Train => train(folder, &mut entry)?,
        Kind::Search => search(folder, &spec, &mut entry)?,
    }
    Ok(entry)
}

/// Frames and score of a trial: the mean over its sessions' last rows.
fn train(folder: &RunFolder, entry: &mut Entry) -> Result<()> {
    let sessions = runs::sessions(folder)?.remove(&0).unwrap_or_default();
    let mut scores = Vec::new();
    for session in sessions {
        let frame = runs::session_frame(folder, 0, session)?;
        let last = |name: &str| frame.column(name).and_then(|column| column.last().copied()).unwrap_or(f64::NAN);
        entry.frame = entry.frame.max(last("frame") as u64);
        scores.extend(Some(last("total_reward_ma")).filter(|score| score.is_finite()));
    }
    entry.score = (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
    Ok(())
}

/// Trials and best score of a search.
fn search(folder: &RunFolder, spec: &Json, entry: &mut Entry) -> Result<()> {
    // the table is there a little after the folder
    let has_table = folder.experiment_df().exists() || folder.experiment_info("experiment_df.csv").exists();
    let table = if has_table { Experiment::open(folder)? } else { Experiment::default() };
    entry.frame = table.rows.iter().map(|row| row.frame).filter(|frame| frame.is_finite()).sum::<f64>() as u64;
    let trials = spec["meta"]["max_trial"].as_u64().unwrap_or(0).max(table.rows.len() as u64);
    entry.trials_done = Some(table.rows.iter().filter(|row| row.status != "running").count() as u64);
    entry.trials = Some(trials);
    let scores = table.rows.iter().map(|row| row.metric("total_reward_ma")).filter(|score| score.is_finite());
    entry.score = scores.reduce(f64::max);
    Ok(())
}

/// When the run began, from the name of its folder.
fn started(folder: &RunFolder) -> Option<String> {
    let name = folder.root().file_name()?.to_str()?;
    let stamp = name.strip_prefix(folder.spec_name())?.strip_prefix('_')?.get(..17)?;
    let time = jiff::civil::DateTime::strptime("%Y_%m_%d_%H%M%S", stamp).ok()?;
    Some(time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::write_whole;
    use crate::report::log::Log;

    fn write(path: PathBuf, text: &str) {
        write_whole(&path, text.as_bytes()).expect("written");
    }

    #[test]
    fn a_run_is_running_interrupted_or_complete() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::create(data.path(), "ppo_x").expect("made");
        write(folder.spec(), r#"{"env": {"name": "CartPole-v1", "max_frame": 1e3}, "meta": {"device": "cpu"}}"#);
        write(folder.session_info(0, 0, "df_train.csv"), "frame,total_reward_ma\n100,4\n200,8\n");
        write(folder.session_info(0, 1, "df_train.csv"), "frame,total_reward_ma\n100,6\n");
        let log = Log::open(&folder.trial_log(0)).expect("a log");
        let entry = entry(&folder).expect("read");
        assert_eq!(
            (entry.kind, entry.state, entry.frame, entry.max_frame),
            (Kind::Train, State::Running, 200, Some(1000))
        );
        assert_eq!((entry.score, entry.device.as_deref()), (Some(7.0), Some("cpu")));
        assert_eq!(entry.started.expect("a time").len(), 19);
        drop(log);
        let state = || list(data.path()).expect("listed")[0].state;
        assert_eq!(state(), State::Interrupted);
        write(folder.trial_metrics_scalar(0), "{}");
        assert_eq!(state(), State::Complete);
    }

    #[test]
    fn a_search_counts_its_trials() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::create(data.path(), "ppo_x").expect("made");
        write(folder.spec(), r#"{"env": {}, "meta": {"max_trial": 4}, "search": {"a__uniform": [0, 1]}}"#);
        let none = entry(&folder).expect("read");
        assert_eq!((none.kind, none.trials_done, none.trials, none.score), (Kind::Search, Some(0), Some(4), None));
        let table =
            "trial,a,status,frame,total_reward_ma,strength\n0,1,complete,100,5,3\n1,1,stopped,50,,\n2,1,running,,,\n";
        write(folder.experiment_info("experiment_df.csv"), table);
        let some = entry(&folder).expect("read");
        assert_eq!((some.trials_done, some.trials, some.frame, some.score), (Some(2), Some(4), 150, Some(5.0)));
        assert_eq!(some.state, State::Interrupted);
        write(folder.experiment_df(), table);
        assert_eq!(entry(&folder).expect("read").state, State::Complete);
    }

    #[test]
    fn what_is_no_run_is_left_out() {
        let data = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(data.path().join("notes")).expect("made");
        std::fs::write(data.path().join("x_spec.json"), "{}").expect("written");
        assert_eq!(list(data.path()).expect("listed"), []);
        let error = list(&data.path().join("none")).expect_err("no folder");
        assert!(error.hint.contains("the folder that holds the runs"), "{error}");
    }
}
