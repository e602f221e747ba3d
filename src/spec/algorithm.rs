//! `agent.algorithm`: one struct of keys for each family of SLM Lab's algorithms.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::by_name::by_name;
use super::schedule::Schedule;

/// What learns, chosen by `agent.algorithm.name`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "name")]
pub enum Algorithm {
    /// REINFORCE (Williams 1992).
    Reinforce(Reinforce),
    /// Advantage actor-critic, A2C (Mnih et al. 2016).
    ActorCritic(ActorCritic),
    /// Proximal policy optimisation (Schulman et al. 2017).
    PPO(Ppo),
    /// SARSA (Rummery & Niranjan 1994).
    SARSA(Sarsa),
    /// Q-learning with one net and a replay memory.
    VanillaDQN(Dqn),
    /// DQN's base class in SLM Lab: [`Algorithm::DQN`].
    DQNBase(Dqn),
    /// DQN with a target net (Mnih et al. 2015).
    DQN(Dqn),
    /// Double DQN (van Hasselt et al. 2016).
    DoubleDQN(Dqn),
    /// DQN for several environments at once, gone from SLM Lab 5; not built.
    HydraDQN(Dqn),
    /// Soft Actor-Critic (Haarnoja et al. 2018), also with discrete actions (Christodoulou 2019).
    SoftActorCritic(SoftActorCritic),
    /// CrossQ (Bhatt et al. 2024): Soft Actor-Critic without target nets, its critics normalised over the batch.
    CrossQ(SoftActorCritic),
    /// A2C with self-imitation (Oh et al. 2018).
    SIL(Sil),
    /// PPO with self-imitation (Oh et al. 2018).
    PPOSIL(PpoSil),
    /// A uniformly random policy; not built.
    Random(RandomPolicy),
}

by_name!(Algorithm {
    Reinforce,
    ActorCritic,
    PPO,
    SARSA,
    VanillaDQN,
    DQNBase,
    DQN,
    DoubleDQN,
    HydraDQN,
    SoftActorCritic,
    CrossQ,
    SIL,
    PPOSIL,
    Random,
});

/// Runs `$body` with the keys of whichever variant it is, for the keys that all but `Random` have.
macro_rules! for_all {
    ($self:expr, $keys:ident => $body:expr, $random:expr) => {
        match $self {
            Algorithm::Reinforce($keys) => $body,
            Algorithm::ActorCritic($keys) => $body,
            Algorithm::PPO($keys) => $body,
            Algorithm::SARSA($keys) => $body,
            Algorithm::VanillaDQN($keys)
            | Algorithm::DQNBase($keys)
            | Algorithm::DQN($keys)
            | Algorithm::DoubleDQN($keys)
            | Algorithm::HydraDQN($keys) => $body,
            Algorithm::SoftActorCritic($keys) | Algorithm::CrossQ($keys) => $body,
            Algorithm::SIL($keys) => $body,
            Algorithm::PPOSIL($keys) => $body,
            Algorithm::Random(_) => $random,
        }
    };
}

impl Algorithm {
    /// The action distribution.
    pub fn action_pdtype(&self) -> Pdtype {
        for_all!(self, keys => keys.action_pdtype, Pdtype::Default)
    }

    /// How actions are drawn from it.
    pub fn action_policy(&self) -> ActionPolicy {
        for_all!(self, keys => keys.action_policy, ActionPolicy::Random)
    }

    /// Epsilon or temperature of the exploring policies.
    pub fn explore_var_spec(&self) -> Option<&Schedule> {
        for_all!(self, keys => keys.explore_var_spec.as_ref(), None)
    }

    /// Discount factor; 1 for `Random`.
    pub fn gamma(&self) -> f64 {
        for_all!(self, keys => keys.gamma, 1.0)
    }
}

/// A distribution over actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Pdtype {
    /// `Categorical` for discrete actions, `Normal` for real ones.
    #[default]
    #[serde(rename = "default")]
    Default,
    /// One of n actions, from logits.
    Categorical,
    /// A Gaussian for each dimension; the net gives mean and log std, or `net.log_std_init` makes the log std a
    /// parameter of its own.
    Normal,
    /// A Gaussian squashed by tanh into the action bounds.
    NormalTanh,
    /// The action of the largest value.
    Argmax,
    /// One of n actions as `Categorical`, learnt from by Soft Actor-Critic through samples of a Gumbel-softmax at temperature
    /// 1 instead of by expectations over all actions.
    GumbelSoftmax,
    /// Not built.
    MultiCategorical,
    /// Not built.
    Bernoulli,
    /// Not built.
    Beta,
    /// Not built.
    Gumbel,
    /// Not built.
    LogNormal,
    /// Not built.
    MultivariateNormal,
}

/// How an action is drawn from the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionPolicy {
    /// Sampled.
    #[default]
    Default,
    /// Uniform over the action space.
    Random,
    /// Greedy, but random with probability epsilon; one coin for each environment.
    EpsilonGreedy,
    /// Sampled from logits over a temperature.
    Boltzmann,
}

/// What PPO does to the advantages of a minibatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormalizeAdvantages {
    /// Mean 0 and standard deviation 1.
    #[default]
    Standardize,
    /// Divided by the running range between the 5th and the 95th percentile.
    Percentile,
    /// Nothing.
    None,
}

fn unit() -> f64 {
    1.0
}

/// Keys of [`Algorithm::Reinforce`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reinforce {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// Take the batch mean off the returns.
    #[serde(default)]
    pub center_return: bool,
    /// Weight of the entropy bonus.
    #[serde(default)]
    pub entropy_coef_spec: Option<Schedule>,
    /// Weight of the policy loss.
    #[serde(default = "unit")]
    pub policy_loss_coef: f64,
    /// Vector steps of one batch.
    pub training_frequency: usize,
}

/// Keys of [`Algorithm::ActorCritic`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActorCritic {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// GAE's lambda; null: n-step returns.
    #[serde(default)]
    pub lam: Option<f64>,
    /// Steps of the n-step return where `lam` is null; it is then also the batch length.
    #[serde(default)]
    pub num_step_returns: Option<usize>,
    /// Weight of the entropy bonus.
    #[serde(default)]
    pub entropy_coef_spec: Option<Schedule>,
    /// Weight of the policy loss.
    #[serde(default = "unit")]
    pub policy_loss_coef: f64,
    /// Weight of the value loss.
    #[serde(default = "unit")]
    pub val_loss_coef: f64,
    /// Divide values and targets by the targets' running standard deviation inside the loss.
    #[serde(default)]
    pub normalize_v_targets: bool,
    /// Vector steps of one batch.
    pub training_frequency: usize,
}

/// Keys of [`Algorithm::PPO`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ppo {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// GAE's lambda.
    pub lam: f64,
    /// Half width of the ratio's clip range.
    pub clip_eps_spec: Schedule,
    /// Weight of the entropy bonus.
    #[serde(default)]
    pub entropy_coef_spec: Option<Schedule>,
    /// Weight of the value loss.
    #[serde(default = "unit")]
    pub val_loss_coef: f64,
    /// Clip the value's move to `clip_eps` as well.
    #[serde(default)]
    pub clip_vloss: bool,
    /// Compare values and targets as `sign(x) ln(1 + |x|)`.
    #[serde(default)]
    pub symlog: bool,
    /// What is done to the advantages of a minibatch.
    #[serde(default)]
    pub normalize_advantages: NormalizeAdvantages,
    /// Divide values and targets by the targets' running standard deviation inside the loss.
    #[serde(default)]
    pub normalize_v_targets: bool,
    /// Vector steps of one rollout. As written, where SLM Lab rounds it and `minibatch_size` up to multiples of
    /// `env.num_envs`.
    pub time_horizon: usize,
    /// Samples of one minibatch.
    #[serde(default = "minibatch_size")]
    pub minibatch_size: usize,
    /// Passes over one rollout.
    pub training_epoch: usize,
}

fn minibatch_size() -> usize {
    4
}

/// Keys of [`Algorithm::SARSA`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sarsa {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// Vector steps of one batch.
    pub training_frequency: usize,
}

/// Keys of the DQN family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dqn {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// Gradient steps on one batch.
    pub training_batch_iter: usize,
    /// Batches of one training; needed unless there is `update_to_data`.
    #[serde(default)]
    pub training_iter: Option<usize>,
    /// Gradient steps for each frame, whatever the number of environments; in place of `training_iter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_to_data: Option<f64>,
    /// Frames between two trainings, rounded up to whole vector steps; with `update_to_data` the least.
    #[serde(default = "one")]
    pub training_frequency: usize,
    /// Frames before the first training; absent: the memory's `batch_size`.
    #[serde(default)]
    pub training_start_step: Option<u64>,
    /// Most steps of a return before the net's value takes over.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub num_step_returns: usize,
}

fn is_one(x: &usize) -> bool {
    *x == 1
}

/// Keys of [`Algorithm::SoftActorCritic`] and [`Algorithm::CrossQ`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SoftActorCritic {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// Updates of one training; absent: `env.num_envs`.
    #[serde(default)]
    pub training_iter: Option<usize>,
    /// Updates for each frame, whatever the number of environments; in place of `training_iter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_to_data: Option<f64>,
    /// Frames between two trainings, rounded up to whole vector steps; with `update_to_data` the least.
    #[serde(default = "one")]
    pub training_frequency: usize,
    /// Frames of random actions before the first training; absent: the larger of 1000 and the batch size.
    #[serde(default)]
    pub training_start_step: Option<u64>,
    /// Critic updates for one actor update.
    #[serde(default = "one")]
    pub policy_delay: usize,
    /// Weight of the entropy penalty with discrete actions.
    #[serde(default)]
    pub entropy_penalty_coef: f64,
    /// Least log of the entropy weight.
    #[serde(default = "log_alpha_min")]
    pub log_alpha_min: f64,
    /// Greatest log of the entropy weight.
    #[serde(default = "log_alpha_max")]
    pub log_alpha_max: f64,
    /// Learning rate of the entropy weight; null: the actor's.
    #[serde(default)]
    pub alpha_lr: Option<f64>,
    /// An entropy weight that is not learnt.
    #[serde(default)]
    pub fixed_alpha: Option<f64>,
    /// Frames over which `fixed_alpha` falls to 0; 0: it stays.
    #[serde(default)]
    pub alpha_anneal_frames: u64,
    /// Spectral norm in the critics.
    #[serde(default)]
    pub spectral_norm: bool,
    /// Compare values and targets as `sign(x) ln(1 + |x|)`.
    #[serde(default)]
    pub symlog: bool,
    /// Entropy aimed at: a number or `auto`.
    #[serde(default)]
    pub target_entropy: TargetEntropy,
    /// A target entropy that moves, with discrete actions.
    #[serde(default)]
    pub entropy_anneal: Option<EntropyAnneal>,
}

/// `target_entropy`: a number, or `auto`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number or `auto`")]
pub enum TargetEntropy {
    /// A fixed entropy in nats.
    Nats(f64),
    /// `auto`: from the action space.
    Named(Auto),
}

impl Default for TargetEntropy {
    fn default() -> Self {
        TargetEntropy::Named(Auto::Auto)
    }
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// `auto`.
    #[default]
    Auto,
}

/// `entropy_anneal` of discrete SAC, as ratios of the greatest entropy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntropyAnneal {
    /// First ratio.
    #[serde(default = "start_ratio")]
    pub start_ratio: f64,
    /// Last ratio; absent: `start_ratio`.
    #[serde(default)]
    pub end_ratio: Option<f64>,
    /// Frames of the way.
    #[serde(default)]
    pub frames: u64,
}

fn start_ratio() -> f64 {
    0.6
}

fn one() -> usize {
    1
}

fn log_alpha_min() -> f64 {
    -5.0
}

fn log_alpha_max() -> f64 {
    2.0
}

/// Keys of [`Algorithm::SIL`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sil {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// GAE's lambda; null: n-step returns.
    #[serde(default)]
    pub lam: Option<f64>,
    /// Steps of the n-step return.
    #[serde(default)]
    pub num_step_returns: Option<usize>,
    /// Weight of the entropy bonus.
    #[serde(default)]
    pub entropy_coef_spec: Option<Schedule>,
    /// Weight of the policy loss.
    #[serde(default = "unit")]
    pub policy_loss_coef: f64,
    /// Weight of the value loss.
    #[serde(default = "unit")]
    pub val_loss_coef: f64,
    /// Divide values and targets by the targets' running standard deviation inside the loss.
    #[serde(default)]
    pub normalize_v_targets: bool,
    /// Weight of the imitation's policy loss.
    pub sil_policy_loss_coef: f64,
    /// Weight of the imitation's value loss.
    pub sil_val_loss_coef: f64,
    /// Gradient steps on one replayed batch.
    pub training_batch_iter: usize,
    /// Replayed batches of one training.
    pub training_iter: usize,
    /// Vector steps of one batch.
    pub training_frequency: usize,
}

/// Keys of [`Algorithm::PPOSIL`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PpoSil {
    /// Action distribution.
    #[serde(default)]
    pub action_pdtype: Pdtype,
    /// How actions are drawn.
    #[serde(default)]
    pub action_policy: ActionPolicy,
    /// Epsilon or temperature.
    #[serde(default)]
    pub explore_var_spec: Option<Schedule>,
    /// Discount factor.
    pub gamma: f64,
    /// GAE's lambda.
    pub lam: f64,
    /// Half width of the ratio's clip range.
    pub clip_eps_spec: Schedule,
    /// Weight of the entropy bonus.
    #[serde(default)]
    pub entropy_coef_spec: Option<Schedule>,
    /// Weight of the value loss.
    #[serde(default = "unit")]
    pub val_loss_coef: f64,
    /// Clip the value's move to `clip_eps` as well.
    #[serde(default)]
    pub clip_vloss: bool,
    /// Compare values and targets as `sign(x) ln(1 + |x|)`.
    #[serde(default)]
    pub symlog: bool,
    /// What is done to the advantages of a minibatch.
    #[serde(default)]
    pub normalize_advantages: NormalizeAdvantages,
    /// Divide values and targets by the targets' running standard deviation inside the loss.
    #[serde(default)]
    pub normalize_v_targets: bool,
    /// Weight of the imitation's policy loss.
    pub sil_policy_loss_coef: f64,
    /// Weight of the imitation's value loss.
    pub sil_val_loss_coef: f64,
    /// Gradient steps on one replayed batch.
    pub training_batch_iter: usize,
    /// Replayed batches of one training.
    pub training_iter: usize,
    /// Vector steps of one rollout.
    pub time_horizon: usize,
    /// Samples of one minibatch.
    #[serde(default = "minibatch_size")]
    pub minibatch_size: usize,
    /// Passes over one rollout.
    pub training_epoch: usize,
}

/// Keys of [`Algorithm::Random`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RandomPolicy {
    /// Read by SLM Lab, without effect.
    pub training_frequency: usize,
}
