//! What the ops of Soft Actor-Critic share (Haarnoja et al. 2018; with discrete actions Christodoulou 2019): the nets as
//! one parameter vector, samples that gradients go through, of a squashed Gaussian or of a Gumbel-softmax, and rows of the
//! replay ring.
//!
//! Parameters: the actor's net, `log_alpha`, the first critic's net, the second's. With real actions a critic sees an
//! observation with the action behind it, within [-1, 1], and has one output. With discrete ones it sees the observation
//! and has an output for every action; or, where these are sampled, it sees the one-hot vector of one behind the
//! observation, and has one output.

use super::activation::Activation;
use super::mlp::{Mlp, ROWS};
use super::nets::normalize;
use super::policy::{HALF_LN_2PI, LANES, LOG_STD, Lanes, OUTPUTS, Policy, ln_tanh_slope, log_sum_exp};
use super::rng::{Purpose, philox, unit};
use super::trig;
use crate::device::Precision;
use crate::op::{hyper, schedule};

/// Most words of a real action.
pub const WORDS: usize = OUTPUTS / 2;

/// Sizes of an actor and of its two critics.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftNets {
    pub actor: Mlp,
    /// Of each of the two.
    pub critic: Mlp,
    pub policy: Policy,
}

impl SoftNets {
    /// The same nets with products of that format.
    pub fn with_precision(mut self, precision: Precision) -> SoftNets {
        (self.actor.precision, self.critic.precision) = (precision, precision);
        self
    }

    /// Where `log_alpha` lies in the parameters.
    pub fn log_alpha(&self) -> usize {
        self.actor.len()
    }

    /// Where critic `k` begins in the parameters.
    pub fn critic_at(&self, k: usize) -> usize {
        self.log_alpha() + 1 + k * self.critic.len()
    }

    /// All parameters.
    pub fn len(&self) -> usize {
        self.critic_at(2)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words of an observation.
    pub fn obs(&self) -> usize {
        self.actor.input
    }

    /// Words of an action that a critic sees; none where it has an output for every action.
    pub fn seen_words(&self) -> usize {
        self.critic.input - self.obs()
    }

    /// Actions to choose from where critics value all of them, so that expectations are exact; `None` where an action is
    /// sampled.
    pub fn choices(&self) -> Option<usize> {
        match self.policy {
            Policy::Categorical { n } if self.seen_words() == 0 => Some(n),
            _ => None,
        }
    }

    /// Whether a discrete action is sampled, and gradients go through its Gumbel-softmax.
    pub fn relaxed(&self) -> bool {
        matches!(self.policy, Policy::Categorical { .. }) && self.seen_words() > 0
    }

    /// What critics see of a stored action: its words, or the one-hot vector of its number.
    pub fn show(&self, stored: &[f32], seen: &mut [f32]) {
        if self.relaxed() {
            seen.iter_mut().enumerate().for_each(|(j, x)| *x = f32::from(u8::from(stored[0] == j as f32)));
        } else {
            seen.copy_from_slice(&stored[..seen.len()]);
        }
    }

    /// Panics unless the sizes of the nets fit the policy.
    pub fn check(&self) {
        let (obs, outputs) = (self.actor.input, self.policy.outputs());
        let critic = match self.policy {
            Policy::Categorical { n } if self.relaxed() => (obs + n, 1),
            Policy::Categorical { n } => (obs, n),
            Policy::Gaussian { n, free_std, squashed } => {
                assert!(squashed && !free_std && n <= WORDS, "actions are squashed, deviations come from the net");
                (obs + n, 1)
            }
        };
        assert_eq!((self.critic.input, self.critic.output), critic, "a critic sees what this policy does");
        assert!(self.actor.output == outputs && outputs <= OUTPUTS, "the actor has the policy's outputs");
    }

    /// Definition: the value of every action that a critic knows of; `action` is what it sees of one.
    pub fn define_critic(&self, params: &[f64], x: &[f64], action: &[f64]) -> Vec<f64> {
        let seen: Vec<f64> = x.iter().chain(action).copied().collect();
        self.critic.define_forward(params, &seen).0.pop().expect("a net has an output layer")
    }

    /// Definition: what is drawn for a row's action: normals, or Gumbel numbers.
    pub fn define_drawn(&self, noise: Noise, row: usize) -> Vec<f64> {
        let draw = if self.relaxed() { Noise::define_gumbel } else { Noise::define };
        draw(noise, row, self.seen_words())
    }

    /// Definition: the sampled action as critics see it, and its log-probability.
    pub fn define_sample(&self, out: &[f64], drawn: &[f64]) -> (Vec<f64>, f64) {
        if !self.relaxed() {
            return define_squashed(out, drawn);
        }
        let (action, _) = define_relaxed(out, drawn);
        let log_prob = define_log_softmax(out).iter().zip(&action).map(|(l, chosen)| l * chosen).sum();
        (action, log_prob)
    }

    /// Definition: the actor's outputs.
    pub fn define_actor(&self, params: &[f64], x: &[f64]) -> Vec<f64> {
        self.actor.define_forward(params, x).0.pop().expect("a net has an output layer")
    }
}

/// The weight of the entropy: `exp(log_alpha)` where it is learnt, else what the schedule says.
#[inline(always)]
pub fn alpha(learned: bool, log_alpha: f32, schedule: &[f32]) -> f32 {
    if learned { trig::exp(log_alpha) } else { schedule[schedule::ENTROPY_COEF] }
}

/// Definition of [`alpha`].
pub fn define_alpha(learned: bool, log_alpha: f64, schedule: &[f32]) -> f64 {
    if learned { log_alpha.exp() } else { schedule[schedule::ENTROPY_COEF].into() }
}

/// Which numbers are drawn: for what, by which session, at which optimiser call. The row of the batch is the first word
/// of the counter.
#[derive(Clone, Copy)]
pub struct Noise {
    pub purpose: Purpose,
    pub key: [u32; 2],
    pub clock: u32,
}

impl Noise {
    /// `seed` and `clock` are the buffers of those names.
    pub fn new(purpose: Purpose, seed: &[u32], clock: &[u32]) -> Noise {
        Noise { purpose, key: [seed[0], seed[1]], clock: clock[hyper::CLOCK_OPT] }
    }

    #[inline(always)]
    fn block(self, row: u32, block: u32) -> [u32; 4] {
        philox([row, self.clock, self.purpose as u32, block], self.key)
    }

    /// Definition: `n` standard normals of a row, in pairs (Box and Muller 1958).
    pub fn define(self, row: usize, n: usize) -> Vec<f64> {
        let unit = |w: usize| f64::from(unit(self.block(row as u32, (w / 4) as u32)[w % 4]));
        let normal = |i: usize| {
            let (u, v) = (unit(i & !1), unit(i | 1) * std::f64::consts::TAU);
            (-2.0 * u.ln()).sqrt() * if i.is_multiple_of(2) { v.cos() } else { v.sin() }
        };
        (0..n).map(normal).collect()
    }

    /// Definition: `n` standard Gumbel numbers of a row.
    pub fn define_gumbel(self, row: usize, n: usize) -> Vec<f64> {
        let unit = |w: usize| f64::from(unit(self.block(row as u32, (w / 4) as u32)[w % 4]));
        (0..n).map(|j| -(-unit(j).ln()).ln()).collect()
    }
}

/// Definition: the squashed action and its log-probability, from the actor's outputs and standard normals.
pub fn define_squashed(out: &[f64], normal: &[f64]) -> (Vec<f64>, f64) {
    let n = normal.len();
    let mut log_prob = 0.0;
    let action = (0..n).map(|i| {
        let log_std = out[n + i].clamp(LOG_STD.0.into(), LOG_STD.1.into());
        let x = out[i] + log_std.exp() * normal[i];
        let slope = 2.0 * (std::f64::consts::LN_2 - x - (-2.0 * x).exp().ln_1p());
        log_prob += -0.5 * normal[i] * normal[i] - log_std - HALF_LN_2PI - slope;
        x.tanh()
    });
    (action.collect(), log_prob)
}

/// Definition: the choice of the greatest logit with its Gumbel number as a one-hot vector, and its relaxation at
/// temperature 1, the softmax of the same sums (Jang et al. 2017; Maddison et al. 2017). The choice has the probabilities
/// that the logits say; the relaxation has a slope.
pub fn define_relaxed(out: &[f64], gumbel: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let scores: Vec<f64> = out.iter().zip(gumbel).map(|(logit, g)| logit + g).collect();
    let best = (1..scores.len()).fold(0, |best, j| if scores[j] > scores[best] { j } else { best });
    let hard = (0..scores.len()).map(|j| if j == best { 1.0 } else { 0.0 }).collect();
    (hard, define_log_softmax(&scores).iter().map(|l| l.exp()).collect())
}

/// Definition: log-probabilities of all actions from their logits.
pub fn define_log_softmax(out: &[f64]) -> Vec<f64> {
    let top = out.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let ln_sum = out.iter().map(|l| (l - top).exp()).sum::<f64>().ln() + top;
    out.iter().map(|l| l - ln_sum).collect()
}

/// Actions of 16 rows.
pub struct Squashed {
    /// Within [-1, 1].
    pub action: [Lanes; WORDS],
    /// How far the sample lies from the mean before it is squashed: the slope of the sample by the log deviation.
    pub offset: [Lanes; WORDS],
    pub log_prob: Lanes,
}

impl Squashed {
    pub fn new() -> Squashed {
        Squashed { action: [[0.0; LANES]; WORDS], offset: [[0.0; LANES]; WORDS], log_prob: [0.0; LANES] }
    }

    /// Samples `n` words for the rows from `row` on, from means and log deviations.
    #[inline(always)]
    pub fn sample(&mut self, n: usize, out: &[Lanes; OUTPUTS], row: usize, noise: Noise) {
        self.log_prob = [0.0; LANES];
        let mut words = [[0; LANES]; 4];
        for j in 0..n {
            if j.is_multiple_of(4) {
                for i in 0..LANES {
                    let four = noise.block((row + i) as u32, (j / 4) as u32);
                    for w in 0..4 {
                        words[w][i] = four[w];
                    }
                }
            }
            let pair = (j % 4) & !1;
            for i in 0..LANES {
                let log_std = trig::clamp(out[n + j][i], LOG_STD.0, LOG_STD.1);
                let (u, v) = (unit(words[pair][i]), unit(words[pair + 1][i]));
                let (sin, cos) = trig::sin_cos(v * std::f32::consts::TAU);
                let normal = (-2.0 * trig::ln(u)).sqrt() * if j.is_multiple_of(2) { cos } else { sin };
                let offset = trig::exp(log_std) * normal;
                let x = out[j][i] + offset;
                self.offset[j][i] = offset;
                self.action[j][i] = trig::tanh(x);
                self.log_prob[i] += -0.5 * normal * normal - log_std - HALF_LN_2PI as f32 - ln_tanh_slope(x);
            }
        }
    }
}

impl Default for Squashed {
    fn default() -> Squashed {
        Squashed::new()
    }
}

/// Discrete actions of 16 rows, sampled by Gumbel-softmax.
pub struct Relaxed {
    /// One-hot.
    pub action: [Lanes; OUTPUTS],
    /// The relaxation at temperature 1, whose slope the action borrows.
    pub soft: [Lanes; OUTPUTS],
    /// Of every action.
    pub log_probs: [Lanes; OUTPUTS],
    /// Of the one that was chosen, and the mean over all.
    pub log_prob: Lanes,
    pub mean: Lanes,
}

impl Relaxed {
    pub fn new() -> Relaxed {
        let [action, soft, log_probs] = [[[0.0; LANES]; OUTPUTS]; 3];
        Relaxed { action, soft, log_probs, log_prob: [0.0; LANES], mean: [0.0; LANES] }
    }

    /// Samples one of `n` actions for the rows from `row` on, from their logits.
    #[inline(always)]
    pub fn sample(&mut self, n: usize, out: &[Lanes; OUTPUTS], row: usize, noise: Noise) {
        let (top, ln_sum) = log_sum_exp(&out[..n]);
        let mut words = [[0; LANES]; 4];
        for j in 0..n {
            if j.is_multiple_of(4) {
                for i in 0..LANES {
                    let four = noise.block((row + i) as u32, (j / 4) as u32);
                    for w in 0..4 {
                        words[w][i] = four[w];
                    }
                }
            }
            for i in 0..LANES {
                // scores, until the greatest is known
                self.soft[j][i] = out[j][i] - trig::ln(-trig::ln(unit(words[j % 4][i])));
            }
        }
        let (high, ln_high) = log_sum_exp(&self.soft[..n]);
        (self.log_prob, self.mean) = ([0.0; LANES], [0.0; LANES]);
        // 1 until the first of the greatest has come by
        let mut open = [1.0; LANES];
        for j in 0..n {
            for i in 0..LANES {
                let chosen = if self.soft[j][i] == high[i] { open[i] } else { 0.0 };
                open[i] -= chosen;
                let log_p = out[j][i] - top[i] - ln_sum[i];
                self.action[j][i] = chosen;
                self.log_probs[j][i] = log_p;
                self.log_prob[i] += chosen * log_p;
                self.mean[i] += trig::exp(log_p) * log_p;
                self.soft[j][i] = trig::exp(self.soft[j][i] - high[i] - ln_high[i]);
            }
        }
    }
}

impl Default for Relaxed {
    fn default() -> Relaxed {
        Relaxed::new()
    }
}

/// Observations of the ring as nets see them.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Words of an observation.
    pub obs: usize,
    /// `[2, O]`, and the bounds of what it gives; none where observations are seen raw.
    pub normalizer: Option<(&'a [f32], (f32, f32))>,
}

impl<'a> Seen<'a> {
    pub fn new(obs: usize, normalize: bool, normalizer: &'a [f32], hyper: &[f32]) -> Seen<'a> {
        let clip = (hyper[hyper::OBS_CLIP_LOW], hyper[hyper::OBS_CLIP_HIGH]);
        Seen { obs, normalizer: normalize.then_some((normalizer, clip)) }
    }

    /// Definition: row `m` of `obs [rows, O]`.
    pub fn define(&self, obs: &[f32], m: u32) -> Vec<f64> {
        let mut x = vec![0.0; self.obs];
        self.rows(obs, &[m], &mut x, self.obs);
        x.into_iter().map(f64::from).collect()
    }

    /// Puts rows `index` of `obs [rows, O]` at the start of rows of `row` words.
    pub fn rows(&self, obs: &[f32], index: &[u32], x: &mut [f32], row: usize) {
        for (x, &m) in x.chunks_exact_mut(row).zip(index) {
            let x = &mut x[..self.obs];
            x.copy_from_slice(&obs[m as usize * self.obs..][..self.obs]);
            if let Some((normalizer, clip)) = self.normalizer {
                x.iter_mut().enumerate().for_each(|(o, x)| *x = normalize(*x, o, normalizer, clip));
            }
        }
    }
}

/// The first `n` columns of 16 rows from `row` on, a lane for each row; rows of `out` are `pad` words.
#[inline(always)]
pub fn to_lanes(out: &[f32], pad: usize, row: usize, lanes: &mut [Lanes]) {
    for (j, lane) in lanes.iter_mut().enumerate() {
        for i in 0..LANES {
            lane[i] = out[(row + i) * pad + j];
        }
    }
}

/// Fewest rows of a tile on the cpu: with fewer, laying the nets out would cost more than a second thread brings.
const TILE_ROWS: usize = 128;
/// Most tiles of a batch.
const TILES: usize = 16;

/// Rows of a tile of a batch of `batch` rows.
pub fn tile_rows(batch: usize) -> usize {
    batch.div_ceil(TILES).next_multiple_of(ROWS).max(TILE_ROWS)
}

/// Nets of every kind that tests go through, small and odd.
pub fn all_nets() -> Vec<SoftNets> {
    let build = |obs: usize, policy: Policy, sampled: bool, actor: &[usize], critic: &[usize], activation| {
        let mlp = |input, hidden: &[usize], output| Mlp {
            input,
            hidden: hidden.to_vec(),
            activation,
            output,
            precision: Precision::F32,
        };
        let (seen, outputs) = match policy {
            Policy::Categorical { n } if !sampled => (0, n),
            Policy::Categorical { n } | Policy::Gaussian { n, .. } => (n, 1),
        };
        let nets =
            SoftNets { actor: mlp(obs, actor, policy.outputs()), critic: mlp(obs + seen, critic, outputs), policy };
        nets.check();
        nets
    };
    let make = |obs, policy, actor: &[usize], critic: &[usize], activation| {
        build(obs, policy, false, actor, critic, activation)
    };
    let relaxed = |obs, n, actor: &[usize], critic: &[usize], activation| {
        build(obs, Policy::Categorical { n }, true, actor, critic, activation)
    };
    let gauss = |n| Policy::Gaussian { n, free_std: false, squashed: true };
    let choice = |n| Policy::Categorical { n };
    vec![
        make(3, gauss(1), &[24, 17], &[19, 33], Activation::Relu),
        make(4, choice(2), &[32, 20], &[17, 40], Activation::Relu),
        make(17, gauss(6), &[21], &[18, 9], Activation::Tanh),
        make(6, choice(3), &[11, 7, 5], &[23], Activation::Silu),
        // actions on both sides of a border of 16 columns, and an odd number of normals
        make(14, gauss(5), &[16], &[16, 16], Activation::Elu),
        make(30, gauss(3), &[9, 9], &[40], Activation::Gelu),
        make(5, gauss(2), &[], &[], Activation::Relu),
        make(5, choice(4), &[], &[], Activation::Relu),
        make(1, gauss(17), &[6], &[8], Activation::LeakyRelu),
        make(2, choice(18), &[70], &[66, 3], Activation::Tanh),
        relaxed(4, 2, &[32, 20], &[17, 40], Activation::Relu),
        relaxed(14, 5, &[11, 7], &[23], Activation::Silu),
        relaxed(5, 3, &[], &[], Activation::Relu),
        relaxed(3, 37, &[9], &[70, 5], Activation::Tanh),
    ]
}
