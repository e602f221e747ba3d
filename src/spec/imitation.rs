//! Self-imitation: SIL and PPOSIL are an on-policy algorithm, and a second memory that it imitates itself from.

use std::borrow::Cow;

use super::algorithm::{ActorCritic, Algorithm, Ppo, PpoSil, Sil};
use super::{Memory, OnPolicyArgs, Spec};
use crate::error::{Error, Result};

/// What self-imitation adds to an on-policy algorithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Imitating {
    /// Weight of `-log pi(a|s) max(R - V(s), 0)`.
    pub policy_loss_coef: f64,
    /// Weight of `1/2 max(R - V(s), 0)^2`.
    pub val_loss_coef: f64,
    /// Batches of one training.
    pub updates: usize,
    /// Gradient steps on one batch.
    pub repeats: usize,
}

impl Sil {
    fn on_policy(&self) -> ActorCritic {
        ActorCritic {
            action_pdtype: self.action_pdtype,
            action_policy: self.action_policy,
            explore_var_spec: self.explore_var_spec.clone(),
            gamma: self.gamma,
            lam: self.lam,
            num_step_returns: self.num_step_returns,
            entropy_coef_spec: self.entropy_coef_spec.clone(),
            policy_loss_coef: self.policy_loss_coef,
            val_loss_coef: self.val_loss_coef,
            normalize_v_targets: self.normalize_v_targets,
            training_frequency: self.training_frequency,
        }
    }
}

impl PpoSil {
    fn on_policy(&self) -> Ppo {
        Ppo {
            action_pdtype: self.action_pdtype,
            action_policy: self.action_policy,
            explore_var_spec: self.explore_var_spec.clone(),
            gamma: self.gamma,
            lam: self.lam,
            clip_eps_spec: self.clip_eps_spec.clone(),
            entropy_coef_spec: self.entropy_coef_spec.clone(),
            val_loss_coef: self.val_loss_coef,
            clip_vloss: self.clip_vloss,
            symlog: self.symlog,
            normalize_advantages: self.normalize_advantages,
            normalize_v_targets: self.normalize_v_targets,
            time_horizon: self.time_horizon,
            minibatch_size: self.minibatch_size,
            training_epoch: self.training_epoch,
        }
    }
}

impl Algorithm {
    /// The algorithm without self-imitation: `ActorCritic` for `SIL`, `PPO` for `PPOSIL`, itself for the others.
    pub fn on_policy(&self) -> Cow<'_, Algorithm> {
        match self {
            Algorithm::SIL(a) => Cow::Owned(Algorithm::ActorCritic(a.on_policy())),
            Algorithm::PPOSIL(a) => Cow::Owned(Algorithm::PPO(a.on_policy())),
            other => Cow::Borrowed(other),
        }
    }

    /// What it imitates itself by, where it does.
    pub fn imitating(&self) -> Option<Imitating> {
        match self {
            Algorithm::SIL(a) => Some(Imitating {
                policy_loss_coef: a.sil_policy_loss_coef,
                val_loss_coef: a.sil_val_loss_coef,
                updates: a.training_iter,
                repeats: a.training_batch_iter,
            }),
            Algorithm::PPOSIL(a) => Some(Imitating {
                policy_loss_coef: a.sil_policy_loss_coef,
                val_loss_coef: a.sil_val_loss_coef,
                updates: a.training_iter,
                repeats: a.training_batch_iter,
            }),
            _ => None,
        }
    }
}

/// The second memory has a name that is known, and the keys of that name.
pub(super) fn memory_is_whole(spec: &Spec) -> Result<()> {
    let (Some(_), Memory::OnPolicyBatchReplay(a) | Memory::OnPolicyReplay(a)) =
        (spec.agent.algorithm.imitating(), &spec.agent.memory)
    else {
        return Ok(());
    };
    let at = |key: &str| format!("agent.memory.{key}");
    let prioritized = match a.sil_replay_name.as_deref() {
        Some("Replay") => false,
        Some("PrioritizedReplay") => true,
        found => {
            let found = found.map_or("missing key".into(), |name| format!("there is no memory `{name}`"));
            return Err(Error::new(at("sil_replay_name"), found).hint("take `Replay` or `PrioritizedReplay`"));
        }
    };
    let OnPolicyArgs { batch_size, max_size, alpha, epsilon, beta_spec, .. } = a;
    let stated = [
        ("batch_size", batch_size.is_some(), true),
        ("max_size", max_size.is_some(), true),
        ("alpha", alpha.is_some(), prioritized),
        ("epsilon", epsilon.is_some(), prioritized),
    ];
    for (key, is_stated, needed) in stated {
        if needed && !is_stated {
            let name = a.sil_replay_name.as_deref().unwrap_or_default();
            return Err(Error::new(at(key), "missing key").hint(format!("the memory `{name}` needs it")));
        }
    }
    for (key, is_stated) in
        [("alpha", alpha.is_some()), ("epsilon", epsilon.is_some()), ("beta_spec", beta_spec.is_some())]
    {
        if is_stated && !prioritized {
            return Err(Error::new(at(key), "rows of `Replay` have no priorities")
                .hint("take it out, or set `sil_replay_name` to `PrioritizedReplay`"));
        }
    }
    Ok(())
}
