//! Ranges: every number of a spec that has one, with its place.

use super::imitation::memory_is_whole;
use super::{Algorithm, Clip, Decay, Env, LrScheduler, Memory, Meta, Net, Optim, Schedule, Spec};
use crate::error::{Error, Result};

/// Widest layer; sums of wider products would overflow a count of bytes.
const MAX_WIDTH: usize = 1 << 20;

/// Most passes over one rollout.
const MAX_EPOCHS: usize = 1 << 20;

/// Most sessions of one trial.
const MAX_SESSIONS: usize = 1 << 16;

/// The first number that is out of its range.
pub(super) fn in_range(spec: &Spec) -> Result<()> {
    algorithm(&spec.agent.algorithm)?;
    memory(&spec.agent.memory)?;
    memory_is_whole(spec)?;
    net("agent.net", &spec.agent.net)?;
    if let Some(critic) = &spec.agent.critic_net {
        net("agent.critic_net", critic)?;
    }
    env(&spec.env)?;
    meta(&spec.meta)
}

fn algorithm(algorithm: &Algorithm) -> Result<()> {
    let at = |key: &str| format!("agent.algorithm.{key}");
    within(&at("gamma"), algorithm.gamma(), 0.0, 1.0)?;
    schedule(&at("explore_var_spec"), algorithm.explore_var_spec(), 0.0)?;
    if let Some(a) = algorithm.imitating() {
        at_least(&at("sil_policy_loss_coef"), a.policy_loss_coef, 0.0)?;
        at_least(&at("sil_val_loss_coef"), a.val_loss_coef, 0.0)?;
        positive(&at("training_iter"), a.updates)?;
        positive(&at("training_batch_iter"), a.repeats)?;
    }
    match &*algorithm.on_policy() {
        Algorithm::Reinforce(a) => {
            schedule(&at("entropy_coef_spec"), a.entropy_coef_spec.as_ref(), f64::MIN)?;
            finite(&at("policy_loss_coef"), a.policy_loss_coef)?;
            positive(&at("training_frequency"), a.training_frequency)
        }
        Algorithm::ActorCritic(a) => {
            schedule(&at("entropy_coef_spec"), a.entropy_coef_spec.as_ref(), f64::MIN)?;
            finite(&at("policy_loss_coef"), a.policy_loss_coef)?;
            at_least(&at("val_loss_coef"), a.val_loss_coef, 0.0)?;
            within(&at("lam"), a.lam.unwrap_or(0.0), 0.0, 1.0)?;
            positive(&at("num_step_returns"), a.num_step_returns.unwrap_or(1))?;
            positive(&at("training_frequency"), a.training_frequency)
        }
        Algorithm::PPO(a) => {
            schedule(&at("clip_eps_spec"), Some(&a.clip_eps_spec), 0.0)?;
            schedule(&at("entropy_coef_spec"), a.entropy_coef_spec.as_ref(), f64::MIN)?;
            at_least(&at("val_loss_coef"), a.val_loss_coef, 0.0)?;
            within(&at("lam"), a.lam, 0.0, 1.0)?;
            positive(&at("time_horizon"), a.time_horizon)?;
            positive(&at("minibatch_size"), a.minibatch_size)?;
            counted(&at("training_epoch"), a.training_epoch, MAX_EPOCHS)
        }
        Algorithm::SARSA(a) => positive(&at("training_frequency"), a.training_frequency),
        Algorithm::VanillaDQN(a)
        | Algorithm::DQNBase(a)
        | Algorithm::DQN(a)
        | Algorithm::DoubleDQN(a)
        | Algorithm::HydraDQN(a) => {
            positive(&at("training_batch_iter"), a.training_batch_iter)?;
            if a.training_iter.is_none() && a.update_to_data.is_none() {
                return Err(Error::new(at("training_iter"), "is missing")
                    .hint("batches of one training; or give `update_to_data`, gradient steps for each frame"));
            }
            updates(&at, a.training_iter, a.update_to_data)?;
            positive(&at("num_step_returns"), a.num_step_returns)?;
            positive(&at("training_frequency"), a.training_frequency)
        }
        Algorithm::SoftActorCritic(a) | Algorithm::CrossQ(a) => {
            updates(&at, a.training_iter, a.update_to_data)?;
            positive(&at("training_frequency"), a.training_frequency)?;
            positive(&at("policy_delay"), a.policy_delay)?;
            at_least(&at("fixed_alpha"), a.fixed_alpha.unwrap_or(0.0), 0.0)?;
            at_least(&at("alpha_lr"), a.alpha_lr.unwrap_or(0.0), 0.0)?;
            at_least(&at("log_alpha_max"), a.log_alpha_max, a.log_alpha_min)
        }
        Algorithm::SIL(_) | Algorithm::PPOSIL(_) | Algorithm::Random(_) => Ok(()),
    }
}

/// How much is learnt from a frame is said in one way.
fn updates(at: &impl Fn(&str) -> String, training_iter: Option<usize>, update_to_data: Option<f64>) -> Result<()> {
    positive(&at("training_iter"), training_iter.unwrap_or(1))?;
    match (training_iter, update_to_data) {
        (Some(_), Some(_)) => Err(Error::new(at("update_to_data"), "and `training_iter` say the same in two ways")
            .hint("leave one of them out")),
        (_, Some(ratio)) if !(ratio > 0.0 && ratio.is_finite()) => {
            Err(Error::new(at("update_to_data"), format!("{ratio} is no ratio"))
                .hint("a number above 0, such as 1 or 0.25"))
        }
        _ => Ok(()),
    }
}

fn memory(memory: &Memory) -> Result<()> {
    let at = |key: &str| format!("agent.memory.{key}");
    match memory {
        Memory::OnPolicyBatchReplay(a) | Memory::OnPolicyReplay(a) => {
            positive(&at("batch_size"), a.batch_size.unwrap_or(1))?;
            positive(&at("max_size"), a.max_size.unwrap_or(1))?;
            at_least(&at("alpha"), a.alpha.unwrap_or(0.0), 0.0)?;
            at_least(&at("epsilon"), a.epsilon.unwrap_or(0.0), 0.0)?;
            schedule(&at("beta_spec"), a.beta_spec.as_ref(), 0.0)
        }
        Memory::OnPolicyCrossEntropy(a) => within(&at("cross_entropy"), a.cross_entropy, 0.0, 1.0),
        Memory::Replay(a) => {
            positive(&at("batch_size"), a.batch_size)?;
            positive(&at("max_size"), a.max_size)
        }
        Memory::PrioritizedReplay(a) => {
            at_least(&at("alpha"), a.alpha, 0.0)?;
            at_least(&at("epsilon"), a.epsilon, 0.0)?;
            at_least(&at("new_error"), a.new_error, 0.0)?;
            schedule(&at("beta_spec"), a.beta_spec.as_ref(), 0.0)?;
            positive(&at("batch_size"), a.batch_size)?;
            positive(&at("max_size"), a.max_size)
        }
    }
}

fn net(place: &str, net: &Net) -> Result<()> {
    let at = |key: &str| format!("{place}.{key}");
    for (key, widths) in [
        ("hid_layers", Some(&net.hid_layers)),
        ("actor_hid_layers", net.actor_hid_layers.as_ref()),
        ("critic_hid_layers", net.critic_hid_layers.as_ref()),
        ("fc_hid_layers", net.fc_hid_layers.as_ref()),
    ] {
        for (i, width) in widths.into_iter().flatten().enumerate() {
            counted(&at(&format!("{key}[{i}]")), *width, MAX_WIDTH)?;
        }
    }
    for (key, std) in [("actor_init_std", net.actor_init_std), ("critic_init_std", net.critic_init_std)] {
        at_least(&at(key), std.unwrap_or(0.0), 0.0)?;
    }
    finite(&at("log_std_init"), net.log_std_init.unwrap_or(0.0))?;
    for (key, norm) in [
        ("clip_grad_val", net.clip_grad_val),
        ("actor_clip_grad_val", net.actor_clip_grad_val),
        ("critic_clip_grad_val", net.critic_clip_grad_val),
    ] {
        above(&at(key), norm.unwrap_or(1.0), 0.0)?;
    }
    counted(&at("rnn_hidden_size"), net.rnn_hidden_size.unwrap_or(1), MAX_WIDTH)?;
    positive(&at("seq_len"), net.seq_len.unwrap_or(1))?;
    if let Some(a) = &net.batch_renorm {
        let at = |inner: &str| at(&format!("batch_renorm.{inner}"));
        within(&at("momentum"), a.momentum, 0.0, 1.0)?;
        above(&at("eps"), a.eps, 0.0)?;
        at_least(&at("r_max"), a.r_max, 1.0)?;
        at_least(&at("d_max"), a.d_max, 0.0)?;
    }
    within(&at("polyak_coef"), net.polyak_coef.unwrap_or(0.0), 0.0, 1.0)?;
    if let super::Loss::SmoothL1Loss(a) = &net.loss_spec {
        above(&at("loss_spec.beta"), a.beta, 0.0)?;
    }
    for (key, lr_scheduler) in net.lr_schedulers() {
        let at = |inner: &str| format!("{place}.{key}.{inner}");
        match lr_scheduler {
            LrScheduler::LinearToZero(a) => above(&at("frame"), a.frame as f64, 0.0)?,
            LrScheduler::LinearToMin(a) => {
                above(&at("frame"), a.frame as f64, 0.0)?;
                within(&at("min_factor"), a.min_factor, 0.0, 1.0)?;
            }
            _ => {}
        }
    }
    net.optims().into_iter().try_for_each(|(key, o)| optim(&at(key), o))
}

fn optim(place: &str, optim: &Optim) -> Result<()> {
    let at = |key: &str| format!("{place}.{key}");
    at_least(&at("lr"), optim.lr(), 0.0)?;
    let betas =
        |betas: &[f64; 2]| betas.iter().enumerate().try_for_each(|(i, b)| below_one(&at(&format!("betas[{i}]")), *b));
    match optim {
        Optim::Adam(a) => {
            betas(&a.betas)?;
            at_least(&at("eps"), a.eps, 0.0)?;
            at_least(&at("weight_decay"), a.weight_decay, 0.0)
        }
        Optim::AdamW(a) => {
            betas(&a.betas)?;
            at_least(&at("eps"), a.eps, 0.0)?;
            at_least(&at("weight_decay"), a.weight_decay, 0.0)
        }
        Optim::RMSprop(a) => {
            below_one(&at("alpha"), a.alpha)?;
            at_least(&at("eps"), a.eps, 0.0)?;
            at_least(&at("weight_decay"), a.weight_decay, 0.0)?;
            at_least(&at("momentum"), a.momentum, 0.0)
        }
        Optim::SGD(a) => {
            at_least(&at("momentum"), a.momentum, 0.0)?;
            finite(&at("dampening"), a.dampening)?;
            at_least(&at("weight_decay"), a.weight_decay, 0.0)?;
            if a.nesterov && (a.momentum == 0.0 || a.dampening != 0.0) {
                return Err(Error::new(at("nesterov"), "needs `momentum` above 0 and `dampening` 0"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn env(env: &Env) -> Result<()> {
    positive("env.num_envs", env.num_envs)?;
    above("env.max_frame", env.max_frame as f64, 0.0)?;
    above("env.max_t", env.max_t.unwrap_or(1) as f64, 0.0)?;
    finite("env.reward_scale", env.reward_scale)?;
    clip("env.clip_obs", env.clip_obs)?;
    clip("env.clip_reward", env.clip_reward)
}

fn clip(place: &str, clip: Option<Clip>) -> Result<()> {
    let Some((low, high)) = clip.map(Clip::bounds) else { return Ok(()) };
    if low < high { Ok(()) } else { Err(Error::new(place, format!("the bounds {low} and {high} enclose nothing"))) }
}

fn meta(meta: &Meta) -> Result<()> {
    above("meta.log_frequency", meta.log_frequency as f64, 0.0)?;
    above("meta.eval_frequency", meta.eval_frequency as f64, 0.0)?;
    counted("meta.max_session", meta.max_session, MAX_SESSIONS)?;
    positive("meta.max_trial", meta.max_trial.unwrap_or(1))?;
    positive("meta.search_wave", meta.search_wave.unwrap_or(1))?;
    if let Some(s) = &meta.search_scheduler {
        above("meta.search_scheduler.reduction_factor", s.reduction_factor, 1.0)?;
    }
    if let Some(r) = &meta.search_resources {
        at_least("meta.search_resources.cpu", r.cpu, 0.0)?;
        at_least("meta.search_resources.gpu", r.gpu, 0.0)?;
    }
    Ok(())
}

/// A schedule whose values are at least `least` and whose steps are in order.
fn schedule(place: &str, schedule: Option<&Schedule>, least: f64) -> Result<()> {
    let Some(s) = schedule else { return Ok(()) };
    at_least(&format!("{place}.start_val"), s.start_val, least)?;
    at_least(&format!("{place}.end_val"), s.end_val.unwrap_or(s.start_val), least)?;
    let end_step = s.end_step.unwrap_or(s.start_step);
    if s.name != Decay::NoDecay && end_step <= s.start_step {
        return Err(Error::new(
            format!("{place}.end_step"),
            format!("{end_step} is not behind `start_step` {}", s.start_step),
        )
        .hint("write the frame at which `end_val` is reached, or `no_decay`"));
    }
    Ok(())
}

fn positive(place: &str, n: usize) -> Result<()> {
    if n >= 1 { Ok(()) } else { Err(Error::new(place, "must be at least 1, found 0")) }
}

/// At least 1, and not so many that a slip of the keys ends in no memory or no end.
fn counted(place: &str, n: usize, most: usize) -> Result<()> {
    positive(place, n)?;
    if n <= most { Ok(()) } else { Err(Error::new(place, format!("must be at most {most}, found {n}"))) }
}

fn finite(place: &str, x: f64) -> Result<()> {
    if x.is_finite() { Ok(()) } else { Err(Error::new(place, format!("must be finite, found {x}"))) }
}

fn within(place: &str, x: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&x) {
        Ok(())
    } else {
        Err(Error::new(place, format!("must be between {low} and {high}, found {x}")))
    }
}

fn below_one(place: &str, x: f64) -> Result<()> {
    if (0.0..1.0).contains(&x) {
        Ok(())
    } else {
        Err(Error::new(place, format!("must be at least 0 and below 1, found {x}")))
    }
}

fn at_least(place: &str, x: f64, low: f64) -> Result<()> {
    if x >= low && x.is_finite() {
        Ok(())
    } else {
        Err(Error::new(place, format!("must be at least {low}, found {x}")))
    }
}

fn above(place: &str, x: f64, low: f64) -> Result<()> {
    if x > low && x.is_finite() { Ok(()) } else { Err(Error::new(place, format!("must be above {low}, found {x}"))) }
}
