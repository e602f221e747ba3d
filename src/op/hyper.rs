//! Names for the words of the small per-session tables: hyperparameters, clock, sums of an update, fault.
//!
//! Numbers that may differ between sessions of one cohort live here and never in a launch. Frame numbers are f32, exact
//! up to 2^24 and within 1e-7 of their size beyond, which is enough for schedules; counters that must be exact are u32
//! words of the clock.

use crate::op::Draw;

/// Discount.
pub const GAMMA: usize = 0;
/// Decay of generalised advantage estimation.
pub const LAM: usize = 1;
pub const VAL_LOSS_COEF: usize = 2;
/// 1 for PPO, which has no such coefficient.
pub const POLICY_LOSS_COEF: usize = 3;
/// Factor on (normalised) rewards, applied before the clip.
pub const REWARD_SCALE: usize = 4;
/// Bounds of scaled rewards; infinite for none.
pub const REWARD_CLIP_LOW: usize = 5;
pub const REWARD_CLIP_HIGH: usize = 6;
/// Bounds of (normalised) observations; infinite for none.
pub const OBS_CLIP_LOW: usize = 7;
pub const OBS_CLIP_HIGH: usize = 8;
/// Start of the schedule of the clip range, five words: [`KIND`] to [`END_STEP`].
pub const CLIP_EPS: usize = 9;
/// Start of the schedule of the entropy coefficient, five words.
pub const ENTROPY_COEF: usize = 14;
/// Start of the schedule of what explores (epsilon, or a temperature), five words.
pub const EXPLORE: usize = 19;
/// Start of the schedule of the exponent of importance weights, five words.
pub const BETA: usize = 24;
/// Start of the schedule of the entropy that SAC aims at, in nats, five words.
pub const TARGET_ENTROPY: usize = 29;
/// Power of an error in its priority, and what is added to the error before.
pub const PRIORITY_ALPHA: usize = 34;
pub const PRIORITY_EPSILON: usize = 35;
/// Weight of the new parameters where a target net follows at every update.
pub const POLYAK: usize = 36;
/// Frames between two copies where a target net is replaced.
pub const UPDATE_FREQUENCY: usize = 37;
/// Bounds of SAC's learnt log alpha.
pub const LOG_ALPHA_LOW: usize = 38;
pub const LOG_ALPHA_HIGH: usize = 39;
/// Weight of discrete SAC's penalty on moves of the entropy.
pub const ENTROPY_PENALTY: usize = 40;
/// Words before the first group.
pub const LEN: usize = 41;

/// Words of a schedule, counted from its start. Steps are frames.
pub const KIND: usize = 0;
pub const START_VAL: usize = 1;
pub const END_VAL: usize = 2;
pub const START_STEP: usize = 3;
pub const END_STEP: usize = 4;

/// `start_val` for ever.
pub const NO_DECAY: f32 = 0.0;
/// A straight line from `start_val` at `start_step` to `end_val` at `end_step`.
pub const LINEAR_DECAY: f32 = 1.0;
/// Geometric: twenty factors of 0.9 from `start_step` to `end_step`, never beyond `end_val`, and `end_val` after.
pub const RATE_DECAY: f32 = 2.0;
/// A cosine between `end_val` and a line that falls from `start_val` to it; 60 radians from start to end.
pub const PERIODIC_DECAY: f32 = 3.0;

/// Words of a parameter group, counted from [`group`].
pub const LR: usize = 0;
/// Adam's beta1, RMSprop's alpha; unused by SGD.
pub const B1: usize = 1;
/// Adam's beta2.
pub const B2: usize = 2;
pub const EPS: usize = 3;
pub const WEIGHT_DECAY: usize = 4;
/// Momentum of RMSprop and SGD; 0 for none.
pub const MOMENTUM: usize = 5;
/// Largest global norm of the group's gradient; infinite for none.
pub const CLIP_NORM: usize = 6;
/// [`LR_CONSTANT`] or [`LR_LINEAR_TO_MIN`].
pub const LR_KIND: usize = 7;
/// Frames in which the linear schedule reaches 0.
pub const LR_FRAMES: usize = 8;
/// Smallest factor of the linear schedule (0 for SLM Lab's `LinearToZero`).
pub const LR_MIN_FACTOR: usize = 9;
/// Words of a group.
pub const GROUP_LEN: usize = 10;

pub const LR_CONSTANT: f32 = 0.0;
pub const LR_LINEAR_TO_MIN: f32 = 1.0;

/// Where group `g` starts.
#[inline(always)]
pub const fn group(g: usize) -> usize {
    LEN + g * GROUP_LEN
}

/// Words of the table for that many groups.
#[inline(always)]
pub const fn len(groups: usize) -> usize {
    group(groups)
}

/// Vector steps done; one is a frame of every environment.
pub const CLOCK_STEP: usize = 0;
/// Optimiser calls done, one per group and minibatch, as SLM Lab counts one per net.
pub const CLOCK_OPT: usize = 1;
/// Iterations whose rollout is done.
pub const CLOCK_ITER: usize = 2;
/// Episodes finished.
pub const CLOCK_EPISODES: usize = 3;
/// Vector step with which the replay ring begins: 0, or where a run went on without one.
pub const CLOCK_RING: usize = 4;
pub const CLOCK_LEN: usize = 5;

/// Words of `update: f32`, the sums over the minibatches of one update. `advantage` zeroes them, `optimize` adds to
/// them, `log` divides by [`COUNT`](update::COUNT).
pub mod update {
    /// Policy loss without its coefficient and without the entropy bonus; that of Soft Actor-Critic's actor holds its
    /// entropy.
    pub const POLICY: usize = 0;
    /// Value loss without its coefficient.
    pub const VALUE: usize = 1;
    pub const ENTROPY: usize = 2;
    /// Mean of `(ratio - 1) - ln ratio`.
    pub const KL: usize = 3;
    pub const CLIP_FRAC: usize = 4;
    /// Columns that `partial_loss` has: the five above, as sums over rows.
    pub const LOSSES: usize = 5;
    /// What was minimised: `policy_loss_coef * policy + val_loss_coef * value - entropy_coef * entropy`; the last only
    /// where the policy's loss does not hold it already.
    pub const LOSS: usize = 5;
    /// Global norm over all groups, before the clip.
    pub const GRAD_NORM: usize = 6;
    /// Minibatches so far.
    pub const COUNT: usize = 7;
    /// `1 - Var(returns - value) / Var(returns)` of the rollout; set once, not a sum.
    pub const EXPLAINED_VAR: usize = 8;
    pub const LEN: usize = 9;
}

/// Words of `fault: u32`, the first non-finite number of a session; all zero while there is none.
pub mod fault {
    /// 0 for none, else [`GRADIENT`] or [`PARAMS`].
    pub const OP: usize = 0;
    /// [`super::CLOCK_STEP`] when it happened.
    pub const STEP: usize = 1;
    /// [`super::CLOCK_OPT`] when it happened.
    pub const OPT: usize = 2;
    /// Parameter group.
    pub const GROUP: usize = 3;
    pub const LEN: usize = 4;

    /// A gradient or loss was not finite; parameters are those before it.
    pub const GRADIENT: u32 = 1;
    /// An optimiser step made a parameter non-finite.
    pub const PARAMS: u32 = 2;
}

/// Fills a table with plausible numbers for tests: every schedule and learning-rate kind, clips that bite.
pub fn sample(words: &mut [u32], draw: &mut Draw) {
    let groups = (words.len() - LEN) / GROUP_LEN;
    let table: &mut [f32] = bytemuck::cast_slice_mut(words);
    table[GAMMA] = draw.range(0.8, 1.0);
    table[LAM] = draw.range(0.7, 1.0);
    table[VAL_LOSS_COEF] = draw.range(0.1, 1.0);
    table[POLICY_LOSS_COEF] = draw.range(0.5, 1.5);
    table[REWARD_SCALE] = draw.range(0.5, 2.0);
    (table[REWARD_CLIP_LOW], table[REWARD_CLIP_HIGH]) = (draw.range(-1.0, -0.2), draw.range(0.2, 1.0));
    (table[OBS_CLIP_LOW], table[OBS_CLIP_HIGH]) = (draw.range(-2.0, -0.5), draw.range(0.5, 2.0));
    for start in [CLIP_EPS, ENTROPY_COEF, EXPLORE, BETA, TARGET_ENTROPY] {
        table[start + KIND] = draw.below(4) as f32;
        table[start + START_VAL] = draw.range(0.05, 0.4);
        table[start + END_VAL] = draw.range(0.0, 0.3);
        table[start + START_STEP] = draw.below(500) as f32;
        table[start + END_STEP] = table[start + START_STEP] + 1.0 + draw.below(5_000) as f32;
    }
    (table[PRIORITY_ALPHA], table[PRIORITY_EPSILON]) = (draw.range(0.4, 1.0), draw.range(1e-4, 1e-2));
    (table[POLYAK], table[UPDATE_FREQUENCY]) = (draw.range(0.005, 0.5), 1.0 + draw.below(100) as f32);
    (table[LOG_ALPHA_LOW], table[LOG_ALPHA_HIGH]) = (draw.range(-5.0, -0.5), draw.range(-0.2, 0.2));
    table[ENTROPY_PENALTY] = draw.range(0.0, 1.0);
    for g in 0..groups {
        let group = &mut table[group(g)..][..GROUP_LEN];
        group[LR] = draw.range(1e-4, 1e-2);
        group[B1] = draw.range(0.8, 0.95);
        group[B2] = draw.range(0.95, 0.999);
        group[EPS] = draw.range(1e-6, 1e-3);
        group[WEIGHT_DECAY] = draw.range(0.0, 0.1);
        group[MOMENTUM] = draw.range(0.0, 0.9);
        group[CLIP_NORM] = if draw.below(2) == 0 { f32::INFINITY } else { draw.range(0.1, 2.0) };
        group[LR_KIND] = draw.below(2) as f32;
        group[LR_FRAMES] = 1.0 + draw.below(5_000) as f32;
        group[LR_MIN_FACTOR] = draw.range(0.0, 0.5);
    }
}
