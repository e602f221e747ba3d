//! The state of an experiment: its trials as they are drawn, and what is known of them. All of it follows from the spec,
//! the seed and the files of the trials, so that a search which was killed goes on as if it had not been.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::sampler::{Sampler, Told, Values};
use crate::error::{Error, Result};
use crate::metric::TrialMetrics;
use crate::plan::Plan;
use crate::report::files::{RunFolder, write_whole};
use crate::report::frame::{DataFrame, number_text};
use crate::report::json;
use crate::spec::Spec;

/// A trial as it was drawn.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// Its number in the experiment.
    pub trial: u32,
    /// Its own seed.
    pub seed: u32,
    /// Searched keys and their values.
    pub values: Values,
    /// Where the sampler put it.
    pub positions: Vec<f64>,
    /// The experiment's spec with its values and seed, as `train` runs it.
    pub spec: Spec,
    pub plan: Plan,
}

/// How far a trial has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Running,
    /// At its last frame.
    Complete,
    /// Ended by the scheduler before that.
    Stopped,
    /// Every session met a number that is not finite.
    Faulted,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Complete => "complete",
            Status::Stopped => "stopped",
            Status::Faulted => "faulted",
        }
    }
}

/// What is known of a trial.
#[derive(Debug, Clone)]
pub struct Record {
    pub trial: u32,
    pub values: Values,
    pub status: Status,
    /// NaN where there is nothing yet.
    pub metrics: TrialMetrics,
}

/// Metrics of a trial that has none yet.
const NOTHING: TrialMetrics = TrialMetrics {
    frame: f64::NAN,
    total_reward_ma: f64::NAN,
    strength: f64::NAN,
    max_strength: f64::NAN,
    final_strength: f64::NAN,
    sample_efficiency: f64::NAN,
    training_efficiency: f64::NAN,
    stability: f64::NAN,
    consistency: f64::NAN,
};

/// Draws a wave: every trial planned before the first of them trains. `told`: the trials before.
///
/// # Errors
/// Values that do not fit together, naming the trial and what it drew.
pub fn draw(sampler: &Sampler, spec: &Spec, wave: std::ops::Range<u32>, told: &[Told]) -> Result<Vec<Drawn>> {
    let one = |trial: u32| {
        let positions = sampler.positions(trial, told)?;
        let values = sampler.values(&positions);
        let seed = sampler.trial_seed(trial);
        let drawn = spec.with(&values).and_then(|mut spec| {
            spec.meta.random_seed = Some(seed);
            Plan::new(&spec).map(|plan| (spec, plan))
        });
        let (spec, plan) = drawn.map_err(|error| {
            let drew: Vec<String> = values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let hint = format!("trial {trial} drew {}; {}", drew.join(", "), error.hint);
            error.within("search").hint(hint.trim_end_matches("; "))
        })?;
        Ok(Drawn { trial, seed, values, positions, spec, plan })
    };
    wave.map(one).collect()
}

/// Splits trials into jobs: of one shape each, and of at most `most(plan, trials of that shape)` sessions.
pub fn into_jobs(trials: &[Drawn], most: impl Fn(&Plan, usize) -> usize) -> Vec<Vec<u32>> {
    let mut shapes: Vec<(&Plan, Vec<u32>)> = Vec::new();
    for drawn in trials {
        match shapes.iter_mut().find(|(plan, _)| plan.has_shape_of(&drawn.plan) && same_sessions(plan, &drawn.plan)) {
            Some((_, members)) => members.push(drawn.trial),
            None => shapes.push((&drawn.plan, vec![drawn.trial])),
        }
    }
    let split = |(plan, members): (&Plan, Vec<u32>)| {
        let count = (most(plan, members.len()) / plan.max_session.max(1) as usize).max(1);
        // alike in size: a job with one trial left over would run alone
        let jobs = members.len().div_ceil(count);
        let size = members.len().div_ceil(jobs);
        members.chunks(size).map(<[u32]>::to_vec).collect::<Vec<_>>()
    };
    shapes.into_iter().flat_map(split).collect()
}

fn same_sessions(a: &Plan, b: &Plan) -> bool {
    a.max_session == b.max_session
}

/// Whether the trial's last file is there.
pub fn has_ended(folder: &RunFolder, trial: u32) -> bool {
    folder.trial_metrics_scalar(trial).exists()
}

/// The metrics of a trial that has ended.
///
/// # Errors
/// A file that is damaged.
pub fn metrics(folder: &RunFolder, trial: u32) -> Result<TrialMetrics> {
    json::read(&folder.trial_metrics_scalar(trial))
}

/// Mean over the sessions of a trial of `total_reward_ma` at the first row at or past `frame`, from its files: what
/// `Run::score` gives while it trains. NaN where no session has such a row.
///
/// # Errors
/// A file that is missing or damaged.
pub fn score(folder: &RunFolder, drawn: &Drawn, frame: u64) -> Result<f64> {
    let mut scores = Vec::new();
    for session in 0..drawn.plan.max_session {
        let path = folder.session_info(drawn.trial, session, "df_train.csv");
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, "cannot read", &error))?;
        let data = DataFrame::from_csv(&text, &path.display().to_string())?;
        let (frames, averages) = (data.column("frame"), data.column("total_reward_ma"));
        let rows = frames.unwrap_or_default().into_iter().zip(averages.unwrap_or_default());
        scores.extend(rows.into_iter().find(|row| row.0 >= frame as f64).map(|row| row.1).filter(|x| x.is_finite()));
    }
    Ok(scores.iter().sum::<f64>() / scores.len() as f64)
}

/// The record of a trial: from its files once it has ended. `stopped`: the scheduler ended it.
///
/// # Errors
/// A file that is damaged.
pub fn record(folder: &RunFolder, drawn: &Drawn, stopped: bool) -> Result<Record> {
    let (status, metrics) = if has_ended(folder, drawn.trial) {
        let metrics = metrics(folder, drawn.trial)?;
        let status = match () {
            // the last rung may lie in the last iteration
            () if metrics.frame >= drawn.plan.max_frame as f64 => Status::Complete,
            () if stopped => Status::Stopped,
            () => Status::Faulted,
        };
        (status, metrics)
    } else {
        (Status::Running, NOTHING)
    };
    Ok(Record { trial: drawn.trial, values: drawn.values.clone(), status, metrics })
}

/// Sorts records by strength, best first, those without one last.
pub fn rank(records: &mut [Record]) {
    let key =
        |record: &Record| if record.metrics.strength.is_nan() { f64::NEG_INFINITY } else { record.metrics.strength };
    records.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.trial.cmp(&b.trial)));
}

/// Writes `experiment_df.csv`: a row per trial in the order given.
///
/// # Errors
/// Where it cannot be written.
pub fn write_table(path: &Path, records: &[Record]) -> Result<()> {
    let mut keys: Vec<&str> =
        records.first().into_iter().flat_map(|r| &r.values).map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    let bad =
        |error: csv::Error| Error::new(path.display().to_string(), format!("cannot be expressed in CSV: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = TrialMetrics::NAMES.iter().copied();
    let header = std::iter::once("trial").chain(keys.iter().copied()).chain(["status"]).chain(names);
    writer.write_record(header).map_err(bad)?;
    for record in records {
        let value = |key: &&str| {
            record.values.iter().find(|(known, _)| known == key).map(|(_, value)| value_text(value)).unwrap_or_default()
        };
        let mut cells = vec![record.trial.to_string()];
        cells.extend(keys.iter().map(value));
        cells.push(record.status.name().to_string());
        cells.extend(record.metrics.values().map(number_text));
        writer.write_record(&cells).map_err(bad)?;
    }
    let bytes = writer.into_inner().map_err(|error| bad(error.into_error().into()))?;
    write_whole(path, &bytes)
}

/// A value as a cell.
fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), number_text),
        other => other.to_string(),
    }
}

/// Writes `trial_data_dict.json`, SLM Lab's other form of the table: values and metrics by trial.
///
/// # Errors
/// Where it cannot be written.
pub fn write_dict(path: &Path, records: &[Record]) -> Result<()> {
    let entry = |record: &Record| {
        let mut map: serde_json::Map<String, Value> = record.values.iter().cloned().collect();
        map.insert("status".to_string(), json!(record.status.name()));
        map.extend(
            TrialMetrics::NAMES.iter().zip(record.metrics.values()).map(|(name, x)| (name.to_string(), json!(x))),
        );
        (record.trial, Value::Object(map))
    };
    json::write(path, &records.iter().map(entry).collect::<BTreeMap<u32, Value>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(trial: u32, strength: f64, value: Value) -> Record {
        let metrics = TrialMetrics { strength, frame: 100.0, total_reward_ma: 0.5, ..NOTHING };
        Record { trial, values: vec![("b".into(), value), ("a".into(), json!(1e-4))], status: Status::Stopped, metrics }
    }

    #[test]
    fn the_table_is_ranked_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("df.csv");
        let mut records = vec![
            record(0, f64::NAN, json!("tanh")),
            record(1, 2.0, json!([8, 8])),
            record(2, 30.0, json!(null)),
            record(3, 2.0, json!(2)),
        ];
        rank(&mut records);
        write_table(&path, &records).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "trial,a,b,status,frame,total_reward_ma,strength,max_strength,final_strength,sample_efficiency,\
             training_efficiency,stability,consistency\n\
             2,0.0001,null,stopped,100,0.5,30,,,,,,\n\
             1,0.0001,\"[8,8]\",stopped,100,0.5,2,,,,,,\n\
             3,0.0001,2,stopped,100,0.5,2,,,,,,\n\
             0,0.0001,tanh,stopped,100,0.5,,,,,,,\n"
        );
        write_dict(&folder.path().join("d.json"), &records).unwrap();
        let dict: Value = json::read(&folder.path().join("d.json")).unwrap();
        assert_eq!(dict["1"]["b"], json!([8, 8]));
        assert_eq!(dict["0"]["strength"], Value::Null);
    }
}
