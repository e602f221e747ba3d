//! The `agent` section: algorithm, memory and nets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::by_name::by_name;
use super::net::{Net, Tower};
use super::schedule::Schedule;

/// The `agent` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// A free label, shown in graphs.
    #[serde(default)]
    pub name: String,
    /// What learns.
    pub algorithm: Algorithm,
    /// What it remembers.
    pub memory: Memory,
    /// Its net, or its actor and critic.
    pub net: Net,
    /// CrossQ's critics; absent: as `net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critic_net: Option<Net>,
}

impl Agent {
    /// What the critics are made of: CrossQ's have a section of their own.
    pub fn critic(&self) -> Tower<'_> {
        self.critic_net.as_ref().unwrap_or(&self.net).critic()
    }
}

/// `agent.memory`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "name")]
pub enum Memory {
    /// The last batch of vector steps; cleared once it is trained on.
    OnPolicyBatchReplay(OnPolicyArgs),
    /// Whole episodes of one environment; not built.
    OnPolicyReplay(OnPolicyArgs),
    /// The episodes of highest return; not built.
    OnPolicyCrossEntropy(CrossEntropyArgs),
    /// A ring of transitions, drawn uniformly.
    Replay(ReplayArgs),
    /// A ring of transitions, drawn by their error (Schaul et al. 2016).
    PrioritizedReplay(PrioritizedArgs),
}

by_name!(Memory { OnPolicyBatchReplay, OnPolicyReplay, OnPolicyCrossEntropy, Replay, PrioritizedReplay });

impl Memory {
    /// The memory of the on-policy algorithms.
    pub fn on_policy() -> Self {
        Memory::OnPolicyBatchReplay(OnPolicyArgs::default())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::on_policy()
    }
}

/// Keys of the on-policy memories; all of them belong to the second memory of SIL and PPOSIL.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnPolicyArgs {
    /// Name of the second memory: `Replay`, drawn uniformly, or `PrioritizedReplay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sil_replay_name: Option<String>,
    /// Transitions of one batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Transitions kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<usize>,
    /// Put the newest transitions into every batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_cer: Option<bool>,
    /// Of `PrioritizedReplay`: power of `max(R - V, 0)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Of `PrioritizedReplay`: added before the power is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Of `PrioritizedReplay`: exponent of importance weights; absent: all weights are 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_spec: Option<Schedule>,
}

/// Keys of [`Memory::OnPolicyCrossEntropy`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CrossEntropyArgs {
    /// Share of the episodes that is dropped.
    pub cross_entropy: f64,
}

impl Default for CrossEntropyArgs {
    fn default() -> Self {
        CrossEntropyArgs { cross_entropy: 1.0 }
    }
}

/// Keys of [`Memory::Replay`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayArgs {
    /// Transitions of one batch.
    pub batch_size: usize,
    /// Transitions kept.
    pub max_size: usize,
    /// Put the newest transitions into every batch.
    #[serde(default)]
    pub use_cer: bool,
    /// Keep it in the resumable checkpoint. Without, a resumed run fills it anew before it learns on, and its bits are not
    /// those of an unbroken one.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub in_checkpoint: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(x: &bool) -> bool {
    *x
}

fn new_error() -> f64 {
    1e5
}

fn is_new_error(x: &f64) -> bool {
    *x == new_error()
}

/// Keys of [`Memory::PrioritizedReplay`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrioritizedArgs {
    /// Power of the error.
    pub alpha: f64,
    /// Added to the error.
    pub epsilon: f64,
    /// Error that a new transition counts as until it is learnt from, as long as there was no larger one. SLM Lab's, the
    /// default, has nearly every new one drawn at once; with 0 new ones get the largest priority so far (Schaul et al. 2016).
    #[serde(default = "new_error", skip_serializing_if = "is_new_error")]
    pub new_error: f64,
    /// Exponent of importance weights; absent: all weights are 1, as in SLM Lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta_spec: Option<Schedule>,
    /// Transitions of one batch.
    pub batch_size: usize,
    /// Transitions kept.
    pub max_size: usize,
    /// Put the newest transitions into every batch.
    #[serde(default)]
    pub use_cer: bool,
    /// Keep it in the resumable checkpoint; as for `Replay`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub in_checkpoint: bool,
}
