//! The `env` section: which environment, how many, for how long, and its wrappers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds of a clipped value: a number `c` stands for `[-c, c]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number or [low, high]")]
pub enum Clip {
    /// `[-c, c]`.
    Symmetric(f64),
    /// `[low, high]`.
    Bounds([f64; 2]),
}

impl Clip {
    /// `(low, high)`.
    pub fn bounds(self) -> (f64, f64) {
        match self {
            Clip::Symmetric(c) => (-c, c),
            Clip::Bounds([low, high]) => (low, high),
        }
    }
}

/// The `env` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Env {
    /// Gymnasium's id, for example `CartPole-v1`.
    pub name: String,
    /// Environments stepped side by side in one session.
    #[serde(default = "one")]
    pub num_envs: usize,
    /// Steps after which an episode is truncated, where that is below the environment's own limit; null: that limit.
    #[serde(default)]
    pub max_t: Option<u64>,
    /// Frames of one session, summed over its environments.
    pub max_frame: u64,
    /// Observations divided by running standard deviation after the running mean is taken off.
    #[serde(default)]
    pub normalize_obs: bool,
    /// Rewards divided by the running standard deviation of the discounted return.
    #[serde(default)]
    pub normalize_reward: bool,
    /// Bounds of observations after normalisation; absent: 10 with `normalize_obs`, else none.
    #[serde(default)]
    pub clip_obs: Option<Clip>,
    /// Bounds of rewards after normalisation; absent: 10 with `normalize_reward`, else none.
    #[serde(default)]
    pub clip_reward: Option<Clip>,
    /// Words of an observation, counted from 0, that the agent sees as 0: `[1, 3]` hides CartPole's velocities. Not together
    /// with `normalize_obs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hide_obs: Vec<usize>,
    /// Factor on rewards before anything else.
    #[serde(default = "unit")]
    pub reward_scale: f64,

    /// LunarLander with real actions; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuous: Option<bool>,
    /// ALE: a lost life ends the episode for learning; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_loss_info: Option<bool>,
    /// ALE: probability that the last action is repeated; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_action_probability: Option<f64>,
    /// ALE: frames of one step; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frameskip: Option<u32>,
    /// ALE: all 18 actions; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_action_space: Option<bool>,
    /// ALE: the mode of the game; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// ALE: its difficulty; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<u32>,
    /// LunarLander with wind; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_wind: Option<bool>,
    /// BipedalWalker with obstacles; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardcore: Option<bool>,
    /// Pendulum: gravity; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub g: Option<f64>,
    /// MountainCar: least velocity at the goal; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal_velocity: Option<f64>,
    /// CartPole: reward -1 at the end and 0 else; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sutton_barto_reward: Option<bool>,
    /// MuJoCo Playground: where it computes; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Env {
    /// The keys given that are arguments of particular environments.
    pub fn arguments(&self) -> Vec<&'static str> {
        let given = [
            ("continuous", self.continuous.is_some()),
            ("life_loss_info", self.life_loss_info.is_some()),
            ("repeat_action_probability", self.repeat_action_probability.is_some()),
            ("frameskip", self.frameskip.is_some()),
            ("full_action_space", self.full_action_space.is_some()),
            ("mode", self.mode.is_some()),
            ("difficulty", self.difficulty.is_some()),
            ("enable_wind", self.enable_wind.is_some()),
            ("hardcore", self.hardcore.is_some()),
            ("g", self.g.is_some()),
            ("goal_velocity", self.goal_velocity.is_some()),
            ("sutton_barto_reward", self.sutton_barto_reward.is_some()),
            ("device", self.device.is_some()),
        ];
        given.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| *key).collect()
    }
}

fn one() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}
