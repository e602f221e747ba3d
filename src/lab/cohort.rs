//! A cohort: sessions of equal shapes that travel through the same launches.

pub use crate::device::Dtype;
use crate::error::Result;
use crate::plan::Plan;

/// Names of the numbers of a log row, in order: the columns of the session data frame that come from the device.
/// `frame` and `opt_step` are exact integers up to 2^53, so a row is f64.
pub const COLUMNS: [&str; 17] = [
    "frame",
    "t",
    "opt_step",
    "episodes",
    "total_reward",
    "episode_length",
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_frac",
    "explained_var",
    "grad_norm",
    "lr",
    "clip_eps",
    "entropy_coef",
];

/// One log row of one session; NaN where there is nothing yet (no finished episode, no update).
pub type Row = [f64; COLUMNS.len()];

/// A named array that leaves or enters device memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    /// `F32` or `U32`.
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Little-endian words.
    pub words: Vec<u32>,
}

/// S sessions in training.
pub struct Cohort {
    _todo: (),
}

/// What stopped a session before its last frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The op that produced the first non-finite number.
    pub op: &'static str,
    pub frame: u64,
}

impl Cohort {
    /// Allocates every buffer, draws initial parameters and resets the environments of `sessions` (their indices within
    /// the trial; a session's numbers depend on (seed, index) alone, never on who travels with it).
    pub fn new(plan: &Plan, seed: u32, sessions: &[u32]) -> Result<Cohort> {
        let _ = (plan, seed, sessions);
        todo!()
    }
    /// Collects one rollout and learns from it, for every session still running. Allocates nothing.
    pub fn iterate(&mut self) {
        todo!()
    }
    /// Frames done so far (equal in all sessions).
    pub fn frame(&self) -> u64 {
        todo!()
    }
    /// True when `max_frame` is reached or no session is left.
    pub fn done(&self) -> bool {
        todo!()
    }
    /// Log rows that the last `iterate` produced for session position `s` (0..S), in frame order.
    pub fn rows(&self, s: usize) -> &[Row] {
        let _ = s;
        todo!()
    }
    /// Set once a loss or parameter of session position `s` was not finite; that session no longer moves.
    pub fn fault(&self, s: usize) -> Option<&Fault> {
        let _ = s;
        todo!()
    }
    /// Everything the next `iterate` reads, each `[S, ..]`: the resumable checkpoint.
    pub fn snapshot(&self) -> Vec<Tensor> {
        todo!()
    }
    /// Continues from a snapshot of the same plan; an error names the tensor that is missing or has another shape.
    pub fn restore(&mut self, tensors: &[Tensor]) -> Result<()> {
        let _ = tensors;
        todo!()
    }
    /// What a model file of session position `s` holds: named layers (`actor.0.weight` [out, in] as in PyTorch,
    /// `actor.0.bias`, `critic.2.weight`, `log_std`) and normaliser moments.
    pub fn model(&self, s: usize) -> Vec<Tensor> {
        let _ = s;
        todo!()
    }
}

/// One session that acts and does not learn: `enjoy`, evaluation, rendering.
pub struct Player {
    _todo: (),
}

/// What one step of a [`Player`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The state after the step (before an auto-reset), in the env's own words.
    pub state: Vec<f32>,
    pub action: Vec<f32>,
    pub reward: f32,
    pub terminated: bool,
    pub truncated: bool,
}

impl Player {
    /// A player of one environment with the parameters of a model file (see [`Cohort::model`]).
    pub fn new(plan: &Plan, model: &[Tensor], seed: u32, deterministic: bool) -> Result<Player> {
        let _ = (plan, model, seed, deterministic);
        todo!()
    }
    /// Acts once; after an episode's end the next step begins a new one.
    pub fn step(&mut self) -> Step {
        todo!()
    }
}
