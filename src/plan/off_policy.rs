//! What of a plan belongs to algorithms that learn step by step from a ring of transitions: value-based and off-policy.

use super::{MAX_ROWS, Plan, Sequence, activation};
use crate::env::{ActionSpace, EnvSpec};
use crate::error::{Error, Result};
use crate::op::hyper;
use crate::op::lib::acting::Explore;
use crate::op::lib::critic::Critic;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::lib::policy::Policy;
use crate::op::lib::renorm::Renorm;
use crate::op::sample::Drawing;
use crate::op::target::Follow;
use crate::op::td_grad::Backup;
use crate::spec::{self, ActionPolicy, Algorithm, Memory, NetType, Pdtype, Spec};
use std::fmt;

/// How an agent collects, remembers and learns.
///
/// A training comes every `every` vector steps and draws `updates` batches, each of which gives `repeats` gradient steps.
/// An iteration is `rounds` of these, recorded as one queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OffPolicy {
    /// Vector steps of the ring, `C`.
    pub ring: usize,
    /// Vector steps before the first training, and how actions come about until then.
    pub warmup: usize,
    pub warmup_explore: Explore,
    pub explore: Explore,
    pub every: usize,
    pub rounds: usize,
    pub updates: usize,
    pub repeats: usize,
    /// Rows of a batch, `B`.
    pub batch: usize,
    pub drawing: Drawing,
    /// What a batch is made of where the net is recurrent.
    pub sequence: Option<Sequence>,
    /// Whether the ring is in the resumable checkpoint; without, a resumed run fills it before it learns on.
    pub in_checkpoint: bool,
    /// Newest rows that take the last places of the first batch of a training.
    pub newest: usize,
    pub n_step: usize,
    pub follow: Follow,
    pub method: Method,
}

/// What is learnt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// A Q net, by temporal differences.
    Q { backup: Backup, dueling: bool },
    /// An actor and two critics, by Soft Actor-Critic: the actor, the weight of its entropy (where that is learnt) and the
    /// target critics move at every `delay`-th update.
    /// `crossed`: by CrossQ, whose critics are normalised over states and successors together and have no targets.
    Soft { delay: usize, learned: bool, crossed: bool },
}

/// Frames of random actions before the first training of Soft Actor-Critic, as SLM Lab has it.
const SOFT_START: usize = 1000;

/// Vector steps of an iteration, where nothing else decides: enough gradient steps for one recorded queue, few enough
/// for a smooth progress bar.
const ROUNDS: usize = 16;

impl OffPolicy {
    /// The plan of an algorithm that learns from a ring; `None` for one that learns from whole rollouts.
    ///
    /// # Errors
    /// Names the key whose number does not fit.
    pub fn new(spec: &Spec) -> Result<Option<OffPolicy>> {
        let n = spec.env.num_envs;
        let algorithm = &spec.agent.algorithm;
        let dueling = spec.agent.net.kind == NetType::DuelingMLPNet;
        let explore = explore(algorithm);
        let (batch, max_size, newest, drawing, in_checkpoint) = match &spec.agent.memory {
            Memory::Replay(a) => (a.batch_size, a.max_size, a.use_cer, Drawing::Uniform, a.in_checkpoint),
            Memory::PrioritizedReplay(a) => {
                (a.batch_size, a.max_size, a.use_cer, Drawing::Prioritized, a.in_checkpoint)
            }
            _ => (0, 0, false, Drawing::Ordered, true),
        };
        let plan = match algorithm {
            Algorithm::SARSA(a) => OffPolicy {
                // one step more than a batch: the action behind a batch's last step comes with the next rollout
                ring: a.training_frequency + 1,
                warmup: 0,
                warmup_explore: explore,
                explore,
                every: a.training_frequency,
                rounds: 1,
                updates: 1,
                repeats: 1,
                batch: a.training_frequency * n,
                drawing: Drawing::Ordered,
                sequence: None,
                in_checkpoint,
                newest: 0,
                n_step: 1,
                follow: Follow::Replace,
                method: Method::Q { backup: Backup::Sarsa, dueling },
            },
            Algorithm::VanillaDQN(a) | Algorithm::DQNBase(a) | Algorithm::DQN(a) | Algorithm::DoubleDQN(a) => {
                let least = a.training_frequency.div_ceil(n).max(1);
                let (every, updates) = match a.update_to_data {
                    Some(ratio) => cadence(ratio, n, a.training_batch_iter, least)?,
                    None => (least, a.training_iter.unwrap_or(1)),
                };
                OffPolicy {
                    ring: max_size.div_ceil(n),
                    warmup: usize::try_from(a.training_start_step.unwrap_or(batch as u64)).unwrap_or(usize::MAX) / n,
                    warmup_explore: explore,
                    explore,
                    every,
                    rounds: ROUNDS.div_ceil(every),
                    updates,
                    repeats: a.training_batch_iter,
                    batch,
                    drawing,
                    sequence: None,
                    in_checkpoint,
                    newest: if newest { every * n } else { 0 },
                    n_step: a.num_step_returns,
                    follow: match spec.agent.net.update_type.unwrap_or_default() {
                        spec::UpdateType::Replace => Follow::Replace,
                        spec::UpdateType::Polyak => Follow::Polyak,
                    },
                    method: Method::Q {
                        backup: match algorithm {
                            Algorithm::VanillaDQN(_) => Backup::Own,
                            Algorithm::DoubleDQN(_) => Backup::Double,
                            _ => Backup::Target,
                        },
                        dueling,
                    },
                }
            }
            Algorithm::SoftActorCritic(a) | Algorithm::CrossQ(a) => {
                let least = a.training_frequency.div_ceil(n).max(1);
                let (every, updates) = match a.update_to_data {
                    Some(ratio) => cadence(ratio, n, 1, least)?,
                    None => (least, a.training_iter.unwrap_or(n)),
                };
                let delay = a.policy_delay.max(1);
                let start = a.training_start_step.unwrap_or(SOFT_START.max(batch) as u64);
                // the actor's steps fall on the same updates of every iteration
                let cycle = (1..=delay).find(|rounds| rounds * updates % delay == 0).unwrap_or(1);
                OffPolicy {
                    ring: max_size.div_ceil(n),
                    warmup: usize::try_from(start).unwrap_or(usize::MAX).div_ceil(n),
                    warmup_explore: Explore::Uniform,
                    explore,
                    every,
                    rounds: ROUNDS.div_ceil(every).next_multiple_of(cycle),
                    updates,
                    repeats: 1,
                    batch,
                    drawing,
                    sequence: None,
                    in_checkpoint,
                    newest: if newest { every * n } else { 0 },
                    n_step: 1,
                    follow: Follow::Polyak,
                    method: Method::Soft {
                        delay,
                        learned: a.fixed_alpha.is_none(),
                        crossed: matches!(algorithm, Algorithm::CrossQ(_)),
                    },
                }
            }
            _ => return Ok(None),
        };
        plan.check(spec)?;
        plan.with_sequences(spec).map(Some)
    }

    /// Numbers that no launch could take.
    fn check(&self, spec: &Spec) -> Result<()> {
        let n = spec.env.num_envs;
        let schedule = spec.agent.algorithm.explore_var_spec();
        let place = "agent.algorithm.explore_var_spec";
        match (self.explore, schedule) {
            (Explore::EpsilonGreedy | Explore::Boltzmann, None) => {
                let hint =
                    r#"for example {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 10000}"#;
                return Err(Error::new(place, format!("{:?} needs one", self.explore)).hint(hint));
            }
            (Explore::Boltzmann, Some(s)) if s.start_val <= 0.0 || s.end_val() <= 0.0 => {
                return Err(Error::new(place, "a temperature is above 0").hint("0.01 is nearly greedy"));
            }
            _ => {}
        }
        let needed = self.every.max(self.n_step) + 1;
        if self.drawing != Drawing::Ordered && self.ring < needed {
            let what = format!("{} rows are {} vector steps; at least {needed} are needed", self.ring * n, self.ring);
            return Err(Error::new("agent.memory.max_size", what).hint("raise `max_size`, or lower `env.num_envs`"));
        }
        if self.ring.checked_mul(n).is_none_or(|rows| rows >= MAX_ROWS) {
            return Err(Error::new("agent.memory.max_size", "more rows than the kernels count").hint("lower it"));
        }
        Ok(())
    }

    /// Vector steps of an iteration.
    pub fn horizon(&self) -> usize {
        self.every * self.rounds
    }

    /// Gradient steps for each frame of `n` environments.
    pub fn steps_per_frame(&self, n: usize) -> f64 {
        (self.updates * self.repeats) as f64 / (self.every * n) as f64
    }

    /// Rows that one sampling draws.
    pub fn samples(&self) -> usize {
        // priorities move with every update, so those rows cannot be drawn ahead
        if self.drawing == Drawing::Prioritized { self.batch } else { self.batch * self.updates }
    }

    /// Whether rows have priorities.
    pub fn prioritized(&self) -> bool {
        self.drawing == Drawing::Prioritized
    }

    /// Whether a target net is kept.
    pub fn has_target(&self) -> bool {
        match self.method {
            Method::Q { backup, .. } => matches!(backup, Backup::Target | Backup::Double),
            Method::Soft { .. } => true,
        }
    }

    /// Optimiser calls of one iteration, one per net.
    pub fn gradient_steps(&self) -> usize {
        let updates = self.rounds * self.updates * self.repeats;
        match self.method {
            Method::Q { .. } => updates,
            Method::Soft { delay, .. } => 2 * updates + 2 * (updates / delay),
        }
    }

    /// Each of two critics beside the nets that act, where the method has them.
    pub(super) fn critic(&self, spec: &Spec, env: &EnvSpec, nets: &Nets) -> Option<Critic> {
        let Method::Soft { crossed, .. } = self.method else { return None };
        let tower = spec.agent.critic();
        let (seen, output) = match nets.policy {
            Policy::Categorical { n } if spec.agent.algorithm.action_pdtype() != Pdtype::GumbelSoftmax => (0, n),
            Policy::Categorical { n } | Policy::Gaussian { n, .. } => (n, 1),
        };
        let (hidden, activation) = (tower.hid_layers.to_vec(), activation(tower.activation));
        let mlp = Mlp { input: env.obs_len + seen, hidden, activation, output, precision: nets.actor.precision };
        if !crossed {
            return Some(Critic::Plain(mlp));
        }
        let a = spec.agent.critic_net.as_ref().and_then(|net| net.batch_renorm).unwrap_or_default();
        Some(Critic::Renorm(Renorm {
            mlp,
            momentum: a.momentum as f32,
            eps: a.eps as f32,
            warmup: a.warmup_steps,
            r_max: a.r_max as f32,
            d_max: a.d_max as f32,
        }))
    }
}

impl Plan {
    /// What counts as the largest priority so far when a session begins; 0 where rows have none.
    pub fn first_priority(&self) -> f32 {
        let Memory::PrioritizedReplay(a) = &self.spec.agent.memory else { return 0.0 };
        if a.new_error > 0.0 { (a.new_error + a.epsilon).powf(a.alpha) as f32 } else { 0.0 }
    }
}

/// Most vector steps between two trainings that a ratio of updates to frames may ask for.
const MOST_STEPS: usize = 1 << 12;

/// Vector steps between two trainings and batches of each, with `ratio` gradient steps for each frame, `repeats` on a batch:
/// the shortest whole number of `least` vector steps that gives a whole number of batches.
fn cadence(ratio: f64, n: usize, repeats: usize, least: usize) -> Result<(usize, usize)> {
    let batches = |every: usize| ratio * (every * n) as f64 / repeats.max(1) as f64;
    let is_whole = |x: f64| x.round() >= 1.0 && (x - x.round()).abs() < 1e-6 * x;
    let every = (1..).map(|times| times * least).take_while(|&every| every <= MOST_STEPS.max(least));
    every.map(|every| (every, batches(every))).find(|&(_, batches)| is_whole(batches)).map_or_else(
        || {
            let what = format!(
                "{ratio} gradient steps a frame, {repeats} on a batch, {n} environments: no {MOST_STEPS} vector steps make \
                 whole batches"
            );
            Err(Error::new("agent.algorithm.update_to_data", what).hint("take a rounder number, such as 0.25"))
        },
        |(every, batches)| Ok((every, batches.round() as usize)),
    )
}

/// Weight of new parameters in a target critic where the spec names none (Haarnoja et al. 2018).
const SOFT_POLYAK: f32 = 0.005;

/// The numbers of Soft Actor-Critic.
pub(super) fn soft_numbers(a: &spec::SoftActorCritic, env: &EnvSpec, table: &mut [f32]) {
    if table[hyper::POLYAK] == 0.0 {
        table[hyper::POLYAK] = SOFT_POLYAK;
    }
    (table[hyper::LOG_ALPHA_LOW], table[hyper::LOG_ALPHA_HIGH]) = (a.log_alpha_min as f32, a.log_alpha_max as f32);
    let line = |start_val: f64, end_val: f64, frames: u64| spec::Schedule {
        name: if frames == 0 { spec::Decay::NoDecay } else { spec::Decay::LinearDecay },
        start_val,
        end_val: Some(end_val),
        start_step: 0,
        end_step: Some(frames),
    };
    if let Some(alpha) = a.fixed_alpha {
        super::schedule(&mut table[hyper::ENTROPY_COEF..], Some(&line(alpha, 0.0, a.alpha_anneal_frames)));
    }
    let most = match env.action_space {
        ActionSpace::Discrete(n) => Some((n as f64).ln()),
        ActionSpace::Box { .. } => None,
    };
    let target = match (&a.target_entropy, most, &a.entropy_anneal) {
        (spec::TargetEntropy::Nats(nats), ..) => line(*nats, *nats, 0),
        (_, None, _) => line(-(env.action_space.words() as f64), 0.0, 0),
        (_, Some(most), None) => line(SOFT_RATIO * most, 0.0, 0),
        (_, Some(most), Some(anneal)) => {
            line(anneal.start_ratio * most, anneal.end_ratio.unwrap_or(anneal.start_ratio) * most, anneal.frames)
        }
    };
    super::schedule(&mut table[hyper::TARGET_ENTROPY..], Some(&target));
    let alpha = &mut table[hyper::group(1)..][..hyper::GROUP_LEN];
    if let Some(lr) = a.alpha_lr {
        alpha[hyper::LR] = lr as f32;
    }
    (alpha[hyper::CLIP_NORM], alpha[hyper::WEIGHT_DECAY]) = (f32::INFINITY, 0.0);
}

/// Share of the greatest entropy that discrete Soft Actor-Critic aims at, as SLM Lab has it.
const SOFT_RATIO: f64 = 0.6;

/// How actions come from a policy.
pub fn explore(algorithm: &Algorithm) -> Explore {
    match algorithm.action_policy() {
        ActionPolicy::Default if algorithm.action_pdtype() == Pdtype::Argmax => Explore::Greedy,
        ActionPolicy::Default => Explore::Sample,
        ActionPolicy::Random => Explore::Uniform,
        ActionPolicy::EpsilonGreedy => Explore::EpsilonGreedy,
        ActionPolicy::Boltzmann => Explore::Boltzmann,
    }
}

/// The lines that `check` prints of it.
pub(super) struct Outline<'a>(pub &'a OffPolicy, pub usize);

impl fmt::Display for Outline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outline(p, n) = *self;
        let drawn = match p.drawing {
            Drawing::Uniform => "drawn uniformly",
            Drawing::Prioritized => "drawn by priority",
            Drawing::Ordered => "the last rollout in order",
            Drawing::Sequences { .. } => "sequences drawn uniformly",
        };
        writeln!(f, "  memory        {} vector steps = {} transitions, {drawn}", p.ring, p.ring * n)?;
        writeln!(f, "  exploration   {:?}; {} frames before the first training", p.explore, p.warmup * n)?;
        let (per_frame, frames, updates, repeats) = (p.steps_per_frame(n), p.every * n, p.updates, p.repeats);
        let batch = match p.sequence {
            None => format!("{} rows", p.batch),
            Some(s) => format!("{} sequences of {} steps behind {} others", p.batch / s.steps(), s.learned, s.burn_in),
        };
        writeln!(
            f,
            "  learning      every {frames} frames {updates} batches of {batch}, {repeats} gradient steps each: {per_frame} a \
             frame"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_for_each_frame_do_not_depend_on_the_number_of_environments() {
        for (ratio, repeats) in [(1.0, 1), (0.25, 1), (4.0, 2), (0.1, 1), (1.0 / 3.0, 1), (2.5, 4)] {
            for n in [1, 3, 4, 7, 16, 2048] {
                let (every, updates) = cadence(ratio, n, repeats, 1).unwrap();
                let is = (updates * repeats) as f64 / (every * n) as f64;
                assert!((is - ratio).abs() < 1e-6 * ratio, "{ratio} with {n} environments is {is}");
            }
        }
        // never more often than asked for, and as often as can be
        assert_eq!(cadence(1.0, 4, 1, 3).unwrap(), (3, 12));
        assert_eq!(cadence(0.5, 1, 1, 3).unwrap(), (6, 3));
        assert_eq!(cadence(1e-9, 1, 1, 1).unwrap_err().place, "agent.algorithm.update_to_data");
    }
}
