//! Several runs in one graph: for each the mean return of its sessions with their deviation, as SLM Lab's `plot` does it.

use serde_json::Value as Json;

use super::experiment::Experiment;
use super::files::RunFolder;
use super::frame::DataFrame;
use super::plot::{Graph, Series};
use super::{json, runs};
use crate::error::{Error, Result};

/// The order of legends, as in SLM Lab; others come behind.
const ORDER: [&str; 9] = ["REINFORCE", "SARSA", "DQN", "DDQN", "DDQN+PER", "A2C", "PPO", "SAC", "CrossQ"];

/// A run as a line.
#[derive(Debug, Clone)]
pub struct Run {
    env: String,
    /// The algorithm as papers write it.
    legend: String,
    /// What tells the run from another of the same algorithm: the spec, then the folder.
    spec: String,
    folder: String,
    series: Series,
}

impl Run {
    /// Reads a run's folder; of a search its best trial.
    ///
    /// # Errors
    /// A folder that is no run or has no data yet, a file that cannot be read.
    pub fn open(root: &std::path::Path) -> Result<Run> {
        let folder = RunFolder::open(root)?;
        let is_search = folder.experiment_df().exists() || folder.experiment_info("experiment_df.csv").exists();
        let best = if is_search { Experiment::open(&folder)?.rows.first().map(|row| row.trial) } else { None };
        let trial = best.unwrap_or(0);
        let sessions = runs::sessions(&folder)?.remove(&trial).unwrap_or_default();
        let frames = sessions.iter().map(|&session| runs::session_frame(&folder, trial, session));
        let frames = frames.collect::<Result<Vec<DataFrame>>>()?;
        if frames.iter().all(|frame| frame.rows.is_empty()) {
            return Err(Error::new(root.display().to_string(), "this run has no data yet")
                .hint("a first row is written within seconds of training"));
        }
        let trial_spec = folder.trial_spec(trial);
        let spec: Json = json::read(&if trial_spec.exists() { trial_spec } else { folder.spec() })?;
        let (mean, std) = runs::over_sessions(&frames, "total_reward_ma");
        let series = Series { name: String::new(), x: runs::longest(&frames), mean, std: Some(std) };
        Ok(Run {
            env: spec["env"]["name"].as_str().unwrap_or("env").to_string(),
            legend: algorithm(&spec),
            spec: folder.spec_name().to_string(),
            folder: root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned(),
            series,
        })
    }
}

/// The algorithm's short name: `DDQN+PER` for a `DoubleDQN` with a prioritised memory.
fn algorithm(spec: &Json) -> String {
    let agent = &spec["agent"];
    let name = agent["algorithm"]["name"].as_str().unwrap_or("agent");
    let per = agent["memory"]["name"].as_str().is_some_and(|memory| memory.contains("Prioritized"));
    let short = match name {
        "Reinforce" => "REINFORCE",
        "Sarsa" => "SARSA",
        "VanillaDQN" => "DQN",
        "DoubleDQN" => "DDQN",
        "ActorCritic" => "A2C",
        "SoftActorCritic" => "SAC",
        other => other,
    };
    if per { format!("{short}+PER") } else { short.to_string() }
}

/// The graph of runs. Title: their environment; legends: their algorithms, or what tells them apart.
///
/// # Errors
/// Another number of legends than of runs.
pub fn graph(mut runs: Vec<Run>, title: Option<String>, legends: Option<&[String]>) -> Result<Graph> {
    match legends {
        Some(legends) if legends.len() != runs.len() => {
            let what = format!("{} legends for {} folders", legends.len(), runs.len());
            return Err(
                Error::new("--legends", what).hint("give one per folder, with commas between: `--legends PPO,A2C`")
            );
        }
        Some(legends) => runs.iter_mut().zip(legends).for_each(|(run, legend)| run.legend.clone_from(legend)),
        None => {
            tell_apart(&mut runs, |run| run.spec.clone());
            tell_apart(&mut runs, |run| run.folder.clone());
            let place = |run: &Run| ORDER.iter().position(|name| *name == run.legend).unwrap_or(ORDER.len());
            runs.sort_by_key(place);
        }
    }
    let mut envs: Vec<&str> = runs.iter().map(|run| run.env.as_str()).collect();
    envs.dedup();
    let title = title.unwrap_or_else(|| envs.join(", "));
    let series = runs.into_iter().map(|run| Series { name: run.legend, ..run.series }).collect();
    Ok(Graph { title, x_label: "frames".to_string(), y_label: "mean_returns_ma".to_string(), series })
}

/// Gives runs that share a legend another one.
fn tell_apart(runs: &mut [Run], other: fn(&Run) -> String) {
    let legends: Vec<String> = runs.iter().map(|run| run.legend.clone()).collect();
    for run in runs {
        if legends.iter().filter(|legend| **legend == run.legend).count() > 1 {
            run.legend = other(run);
        }
    }
}

/// The name of the file, without ending, where none is given: `{env}_multi_trial_graph_mean_returns_ma_vs_frames`.
pub fn file_stem(graph: &Graph) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    format!("{}_multi_trial_graph_mean_returns_ma_vs_frames", graph.title.chars().map(safe).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(algorithm: &str, spec: &str, folder: &str) -> Run {
        let series = Series { x: vec![1.0, 2.0], mean: vec![1.0, 2.0], ..Series::default() };
        Run { env: "CartPole-v1".into(), legend: algorithm.into(), spec: spec.into(), folder: folder.into(), series }
    }

    fn legends(runs: Vec<Run>) -> Vec<String> {
        graph(runs, None, None).expect("a graph").series.into_iter().map(|series| series.name).collect()
    }

    #[test]
    fn algorithms_have_their_short_names_and_their_order() {
        let short = |name: &str, memory: &str| {
            algorithm(&serde_json::json!({"agent": {"algorithm": {"name": name}, "memory": {"name": memory}}}))
        };
        assert_eq!(short("DoubleDQN", "PrioritizedReplay"), "DDQN+PER");
        assert_eq!(short("ActorCritic", "OnPolicyBatchReplay"), "A2C");
        assert_eq!(short("PPO", "OnPolicyBatchReplay"), "PPO");
        assert_eq!(legends(vec![run("PPO", "a", "x"), run("REINFORCE", "b", "y")]), ["REINFORCE", "PPO"]);
    }

    #[test]
    fn runs_of_one_algorithm_are_told_apart() {
        assert_eq!(legends(vec![run("PPO", "a", "x"), run("PPO", "b", "y")]), ["a", "b"]);
        assert_eq!(legends(vec![run("PPO", "a", "x"), run("PPO", "a", "y"), run("A2C", "c", "z")]), ["A2C", "x", "y"]);
    }

    #[test]
    fn title_and_legends_can_be_given() {
        let runs = vec![run("PPO", "a", "x"), run("A2C", "b", "y")];
        let given = graph(runs.clone(), Some("t".into()), Some(&["one".into(), "two".into()])).expect("a graph");
        assert_eq!((given.title.as_str(), given.series[0].name.as_str()), ("t", "one"));
        let error = graph(runs.clone(), None, Some(&["one".into()])).expect_err("too few");
        assert_eq!(error.what, "1 legends for 2 folders");
        let graph = graph(runs, None, None).expect("a graph");
        assert_eq!(file_stem(&graph), "CartPole-v1_multi_trial_graph_mean_returns_ma_vs_frames");
    }
}
