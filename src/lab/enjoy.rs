//! `enjoy`: the best model of a finished run acts again. Reads the run's folder, never writes into it.

use std::path::{Path, PathBuf};

use crate::env::EnvSpec;
use crate::error::{Error, Result};
use crate::lab::cohort::{Player, Step};
use crate::lab::trial::TRIAL;
use crate::metric::SessionMetrics;
use crate::plan::Plan;
use crate::report::checkpoint::Checkpoint;
use crate::report::experiment::Experiment;
use crate::report::files::RunFolder;
use crate::report::json;
use crate::spec;

/// A trained session that plays.
pub struct Enjoy {
    /// `{spec}_t{T}_s{S}`.
    pub name: String,
    /// The session's `total_reward_ma`; none where the run is not finished.
    pub total_reward_ma: Option<f64>,
    pub env: &'static EnvSpec,
    /// The file of the model.
    pub model: PathBuf,
    player: Player,
}

/// One episode that was played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Episode {
    /// Sum of the rewards, as the environment gives them.
    pub total_reward: f64,
    pub steps: u64,
}

impl Enjoy {
    /// Loads the best checkpoint of the session with the highest `total_reward_ma` in the run's `folder`; of a search,
    /// from its best trial.
    ///
    /// # Errors
    /// A folder that is no run or has no model yet, a model that is damaged or does not fit the saved spec.
    pub fn open(folder: &Path, seed: u32, deterministic: bool) -> Result<Enjoy> {
        Enjoy::open_trial(folder, None, seed, deterministic)
    }

    /// As [`Enjoy::open`], from one trial where it is named.
    ///
    /// # Errors
    /// As [`Enjoy::open`].
    pub fn open_trial(folder: &Path, trial: Option<u32>, seed: u32, deterministic: bool) -> Result<Enjoy> {
        let folder = RunFolder::open(folder)?;
        let trial = match trial {
            Some(trial) => trial,
            None => best_trial(&folder)?,
        };
        let own = folder.trial_spec(trial);
        let path = if own.exists() { own } else { folder.spec() };
        let spec = spec::load(&path, Some(folder.spec_name()), &[])?.spec;
        let plan = Plan::new(&spec).map_err(|e| e.within(&path.display().to_string()))?;
        let (session, total_reward_ma) = best_session(&folder, trial, plan.max_session)?;
        let path = folder.best_model(trial, session);
        let model = Checkpoint::read(&path)?;
        let player = Player::new(&plan, &model.tensors, seed, deterministic)
            .map_err(|error| error.within(&path.display().to_string()))?;
        let name = format!("{}_t{trial}_s{session}", folder.spec_name());
        Ok(Enjoy { name, total_reward_ma, env: plan.env, model: path, player })
    }

    /// Plays one episode to its end; `see` is shown every step.
    ///
    /// # Errors
    /// Whatever `see` returns.
    pub fn episode(&mut self, mut see: impl FnMut(&Step) -> Result<()>) -> Result<Episode> {
        let mut episode = Episode { total_reward: 0.0, steps: 0 };
        loop {
            let step = self.player.step();
            episode.total_reward += f64::from(step.reward);
            episode.steps += 1;
            see(&step)?;
            if step.terminated || step.truncated {
                return Ok(episode);
            }
        }
    }
}

/// The best trial of a search, as far as it has come; the only one of a `train`.
fn best_trial(folder: &RunFolder) -> Result<u32> {
    let is_search = folder.experiment_df().exists() || folder.experiment_info("experiment_df.csv").exists();
    let best = if is_search { Experiment::open(folder)?.rows.first().map(|row| row.trial) } else { None };
    Ok(best.unwrap_or(TRIAL))
}

/// The session with the highest `total_reward_ma` among those with a model; the first one where no metrics are written.
fn best_session(folder: &RunFolder, trial: u32, max_session: u32) -> Result<(u32, Option<f64>)> {
    let mut best: Option<(u32, Option<f64>)> = None;
    for session in (0..max_session).filter(|&session| folder.best_model(trial, session).exists()) {
        let path = folder.session_info(trial, session, "metrics_scalar_train.json");
        let score = if path.exists() { Some(json::read::<SessionMetrics>(&path)?.total_reward_ma) } else { None };
        let score = score.filter(|score| score.is_finite());
        // a session without a score comes before none at all, and after every session with one
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((session, score));
        }
    }
    best.ok_or_else(|| {
        Error::new(folder.root().display().to_string(), "no session of this trial has a best model")
            .hint("a model is written once an episode has ended; `slm-fast train --resume FOLDER` continues a run, and a search keeps \
                 the models of its best trials (`--keep`)")
    })
}
