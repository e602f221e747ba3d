//! An experiment (the trials of a search) read back from its folder, and the graphs that SLM Lab draws of it.

use std::cmp::Ordering;

use super::files::{RunFolder, write_whole};
use super::frame::number_text;
use super::html;
use super::panels;
use super::picture::Picture;
use super::runs::{self, Curve};
use crate::error::{Error, Result};
use crate::metric::TrialMetrics;

/// The metrics of a trial that a graph can show, in the order of `experiment_df.csv`.
pub const METRICS: &[&str] = TrialMetrics::NAMES.split_at(1).1;

/// The value of a searched variable in one trial.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NaN where the cell is empty.
    Number(f64),
    /// A string, or the JSON text of anything else.
    Text(String),
}

impl Value {
    /// What a cell of a table holds.
    pub fn of_cell(cell: &str) -> Value {
        let cell = cell.trim();
        match cell.parse() {
            _ if cell.is_empty() => Value::Number(f64::NAN),
            Ok(number) => Value::Number(number),
            Err(_) => Value::Text(cell.to_string()),
        }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            Value::Text(_) => None,
        }
    }

    /// As a person reads it; nothing where there is none.
    pub fn text(&self) -> String {
        match self {
            Value::Number(number) => number_text(*number),
            Value::Text(text) => text.clone(),
        }
    }

    /// Numbers ascending, then texts.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Number(_), Value::Text(_)) => Ordering::Less,
            (Value::Text(_), Value::Number(_)) => Ordering::Greater,
        }
    }
}

/// One trial of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialRow {
    /// Its index.
    pub trial: u32,
    /// `complete`, `stopped`, `faulted` or `running`.
    pub status: String,
    /// The last frame of its sessions.
    pub frame: f64,
    /// One per [`Experiment::variables`].
    pub values: Vec<Value>,
    /// One per [`METRICS`], NaN where there is none.
    pub metrics: Vec<f64>,
}

impl TrialRow {
    /// A metric by its name.
    pub fn metric(&self, name: &str) -> f64 {
        METRICS.iter().position(|metric| *metric == name).map_or(f64::NAN, |i| self.metrics[i])
    }
}

/// The table of a search.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Experiment {
    /// Dotted keys of the searched variables.
    pub variables: Vec<String>,
    /// As in the file, the best first.
    pub rows: Vec<TrialRow>,
}

impl Experiment {
    /// Reads the table in a search's folder, the final one or that of a search that is running.
    ///
    /// # Errors
    /// Where there is none, or a cell is not what its column holds.
    pub fn open(folder: &RunFolder) -> Result<Experiment> {
        let path = [folder.experiment_df(), folder.experiment_info("experiment_df.csv")]
            .into_iter()
            .find(|path| path.exists());
        let path = path.ok_or_else(|| {
            Error::new(folder.root().display().to_string(), "no search is here: there is no `*_experiment_df.csv`")
                .hint("give the folder of a search that has ended a trial")
        })?;
        let text = std::fs::read_to_string(&path).map_err(|err| Error::io(&path, "cannot read", &err))?;
        Experiment::from_csv(&text, &path.display().to_string())
    }

    /// Reads `experiment_df.csv`, ours or SLM Lab's (which has no `status`).
    ///
    /// # Errors
    /// Names `place`, the line and the column of what cannot be read.
    pub fn from_csv(text: &str, place: &str) -> Result<Experiment> {
        let bad = |what: String| Error::new(place, what);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().map_err(|err| bad(format!("not CSV: {err}")))?.clone();
        let known = |name: &str| ["trial", "status", "frame"].contains(&name) || METRICS.contains(&name);
        let searched: Vec<usize> = (0..header.len()).filter(|&i| !known(&header[i])).collect();
        let column = |name: &str| header.iter().position(|column| column == name);
        let Some(trial) = column("trial") else { return Err(bad("there is no column `trial`".to_string())) };
        let mut rows = Vec::new();
        for (n, record) in reader.records().enumerate() {
            let record = record.map_err(|err| bad(format!("not CSV: {err}")))?;
            let number = |i: usize| match Value::of_cell(&record[i]) {
                Value::Number(number) => Ok(number),
                Value::Text(text) => {
                    Err(bad(format!("line {}, column `{}`: `{text}` is not a number", n + 2, &header[i])))
                }
            };
            let by_name = |name: &str| column(name).map_or(Ok(f64::NAN), number);
            rows.push(TrialRow {
                trial: number(trial)? as u32,
                status: column("status").map_or("complete", |i| &record[i]).to_string(),
                frame: by_name("frame")?,
                values: searched.iter().map(|&i| Value::of_cell(&record[i])).collect(),
                metrics: METRICS.iter().map(|name| by_name(name)).collect::<Result<_>>()?,
            });
        }
        let variables = searched.iter().map(|&i| header[i].to_string()).collect();
        Ok(Experiment { variables, rows })
    }

    /// For each row, where its strength lies between the least (0) and the greatest (1); none where it has no strength.
    pub fn shares(&self) -> Vec<Option<f64>> {
        let (low, high) = self.strengths();
        let share = |strength: f64| if high > low { (strength - low) / (high - low) } else { 1.0 };
        let strengths = self.rows.iter().map(|row| row.metric("strength"));
        strengths.map(|strength| strength.is_finite().then(|| share(strength))).collect()
    }

    /// Least and greatest strength.
    pub fn strengths(&self) -> (f64, f64) {
        let strengths = self.rows.iter().map(|row| row.metric("strength")).filter(|strength| strength.is_finite());
        strengths.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    }

    /// Rows in the order of drawing: those without a strength first, the strongest last, above all others.
    pub fn by_strength(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let shares = self.shares();
        let height = |i: usize| shares[i].unwrap_or(-1.0);
        order.sort_by(|&a, &b| height(a).total_cmp(&height(b)).then(b.cmp(&a)));
        order
    }
}

/// Draws the graphs of a search from what is in its folder, each as PNG and SVG, and writes its report.
///
/// # Errors
/// A folder without a table of trials, a file that cannot be read or written.
pub fn write(folder: &RunFolder) -> Result<()> {
    let experiment = Experiment::open(folder)?;
    let curves: Vec<Curve> = runs::curves(folder, experiment.rows.iter().map(|row| row.trial))?;
    for (kind, picture) in pictures(folder.spec_name(), &experiment, &curves) {
        write_whole(&folder.experiment_graph(kind, "png"), &picture.to_png())?;
        write_whole(&folder.experiment_graph(kind, "svg"), picture.to_svg().as_bytes())?;
    }
    html::experiment(folder, &experiment, &curves)
}

/// The graphs under the names of their files.
fn pictures(spec: &str, experiment: &Experiment, curves: &[Curve]) -> [(&'static str, Picture); 4] {
    let n = experiment.rows.len();
    let trials = format!("{spec} {n} trial{}", if n == 1 { "" } else { "s" });
    let overlay = |ma| panels::multi_trial(&format!("multi trial graph: {trials}"), experiment, curves, ma);
    [
        ("experiment_graph", panels::scatter(&format!("experiment graph: {trials}"), experiment)),
        ("multi_trial_graph_mean_returns_vs_frames", overlay(false)),
        ("multi_trial_graph_mean_returns_ma_vs_frames", overlay(true)),
        ("parallel_coordinates", panels::parallel(&format!("parallel coordinates: {trials}"), experiment)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "trial,agent.net.hid_layers,agent.net.optim_spec.lr,status,frame,total_reward_ma,strength,\
        max_strength,final_strength,sample_efficiency,training_efficiency,stability,consistency\n\
        2,\"[64,64]\",0.001,complete,1000,480,400.5,470,460,100,90,0.9,0.8\n\
        0,\"[32]\",0.1,stopped,300,20,1,5,0,1,1,-71.5,\n\
        1,\"[32]\",0.01,faulted,0,,,,,,,,\n";

    #[test]
    fn a_table_is_read_with_its_gaps() {
        let experiment = Experiment::from_csv(TABLE, "x.csv").expect("read");
        assert_eq!(experiment.variables, ["agent.net.hid_layers", "agent.net.optim_spec.lr"]);
        let best = &experiment.rows[0];
        assert_eq!((best.trial, best.status.as_str(), best.frame), (2, "complete", 1000.0));
        assert_eq!(best.values, [Value::Text("[64,64]".into()), Value::Number(0.001)]);
        assert_eq!((best.metric("strength"), best.metric("consistency")), (400.5, 0.8));
        assert!(experiment.rows[2].metric("strength").is_nan());
        assert_eq!(experiment.shares(), [Some(1.0), Some(0.0), None]);
        assert_eq!(experiment.by_strength(), [2, 1, 0]);
    }

    #[test]
    fn a_table_of_slm_lab_is_read_too() {
        let text = "trial,lr,frame,strength\n0,0.1,500,3.5\n";
        let experiment = Experiment::from_csv(text, "x.csv").expect("read");
        assert_eq!(experiment.variables, ["lr"]);
        assert_eq!((experiment.rows[0].status.as_str(), experiment.rows[0].metric("strength")), ("complete", 3.5));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = Experiment::from_csv("trial,strength\n0,high\n", "x.csv").expect_err("no number");
        assert_eq!(error.to_string(), "x.csv: line 2, column `strength`: `high` is not a number");
        let error = Experiment::from_csv("a,strength\n0,1\n", "x.csv").expect_err("no trials");
        assert_eq!(error.what, "there is no column `trial`");
    }

    #[test]
    fn every_trial_with_a_strength_is_drawn_in_every_graph() {
        let experiment = Experiment::from_csv(TABLE, "x.csv").expect("read");
        let curve = |trial| Curve {
            trial,
            frames: vec![1.0, 2.0, 3.0],
            total_reward: vec![f64::NAN, 1.0, 2.0],
            total_reward_ma: vec![f64::NAN, 1.0, 1.5],
        };
        let [(_, scatter), (name, raw), (_, ma), (_, parallel)] = pictures("ppo_x", &experiment, &[curve(0), curve(2)]);
        assert_eq!(name, "multi_trial_graph_mean_returns_vs_frames");
        let dots = |picture: &Picture| picture.to_svg().matches("<circle").count();
        // 2 variables; 8 metrics of the first trial, 7 of the second, which has no consistency
        assert_eq!(dots(&scatter), 2 * (8 + 7));
        assert!(scatter.to_svg().contains("stability (cut at \u{2212}1)"));
        for picture in [&raw, &ma] {
            assert_eq!(picture.to_svg().matches("stroke-width=\"2\"").count(), 2);
        }
        assert_eq!(parallel.to_svg().matches("stroke-width=\"1.8\"").count(), 3);
        for picture in [&scatter, &raw, &ma, &parallel] {
            assert!(!picture.to_svg().contains("NaN"));
            assert_eq!(picture.to_png()[..4], *b"\x89PNG");
        }
    }

    #[test]
    fn a_search_without_a_result_is_drawn_empty() {
        let experiment = Experiment::from_csv("trial,lr,status,frame,strength\n", "x.csv").expect("read");
        for (_, picture) in pictures("ppo_x", &experiment, &[]) {
            assert!(!picture.to_svg().contains("NaN") && !picture.to_svg().contains("inf"));
        }
    }
}
