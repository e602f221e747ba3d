//! The spec: what a person writes in JSON or YAML, typed, strict and documented. Opens no device.
//!
//! The schema is SLM Lab's; its own files load unmodified. What is added is optional: `meta.random_seed`,
//! `meta.device`, `meta.precision`, `meta.spec_version`, `meta.search_sampler`, `meta.search_wave`,
//! `agent.net.init_activation`, `agent.net.batch_renorm`.

mod agent;
mod algorithm;
mod arc;
mod by_name;
mod check;
mod dead;
mod env;
mod fault;
mod imitation;
mod load;
mod meta;
mod missing;
mod net;
mod optim;
mod schedule;
mod schema;
mod search;
mod text;

pub use agent::{Agent, CrossEntropyArgs, Memory, OnPolicyArgs, PrioritizedArgs, ReplayArgs};
pub use algorithm::{
    ActionPolicy, ActorCritic, Algorithm, Auto, Dqn, EntropyAnneal, NormalizeAdvantages, Pdtype, Ppo, PpoSil,
    RandomPolicy, Reinforce, Sarsa, Sil, SoftActorCritic, TargetEntropy,
};
pub use by_name::Args;
pub use env::{Clip, Env};
pub use imitation::Imitating;
pub use load::{Loaded, from_value, load, names};
pub use meta::{DeviceChoice, Distributed, Meta, Precision, SearchResources, SearchSampler, SearchScheduler};
pub use missing::Missing;
pub use net::{Activation, BatchRenorm, CellType, Gpu, InitFn, Net, NetType, Tower, UpdateType};
pub use optim::{
    AdamArgs, AdamWArgs, LinearToMinArgs, LinearToZeroArgs, Loss, LrScheduler, NoArgs, Optim, RmsPropArgs, SgdArgs,
    SmoothL1Args,
};
pub use schedule::{Decay, Schedule};
pub use schema::schema;
pub use search::{Distribution, Search, SearchParam};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of the spec format that this program writes, and the newest it reads.
pub const SPEC_VERSION: u32 = 1;

/// One experiment, as read from a file with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What learns.
    pub agent: Agent,
    /// What it learns in.
    pub env: Env,
    /// How it is run.
    pub meta: Meta,
    /// Which keys a search varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// The spec's name, the key it stands under in its file.
    #[serde(default)]
    pub name: String,
}
