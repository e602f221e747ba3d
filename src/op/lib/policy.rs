//! Action distributions inside fused ops: sampling, log-probability, entropy and their slopes, on 16 rows at a time, and
//! the plain definition on one row in f64.
//!
//! A net's outputs for `A` action words: Categorical has one logit per action; a Gaussian has `A` means, then `A` log
//! standard deviations unless those are parameters of their own.

use super::rng::unit;
use super::trig;
pub use crate::env::{LANES, Lanes};

/// Most outputs of a policy: bounds the arrays on the stack.
pub const OUTPUTS: usize = 64;
/// Range of log standard deviations, as SLM Lab clamps them.
pub const LOG_STD: (f32, f32) = (-5.0, 2.0);
/// Log-ratios are clamped to this before they are exponentiated.
pub const LOG_RATIO: f32 = 20.0;

pub const HALF_LN_2PI: f64 = 0.918_938_533_204_672_7;

/// A family of distributions over actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// One of `n` actions.
    Categorical { n: usize },
    /// A diagonal Gaussian over `n` words.
    Gaussian {
        n: usize,
        /// Standard deviations are parameters, the same in every state.
        free_std: bool,
        /// The action is the tanh of the sample. The rollout stores the sample itself, so nothing is inverted.
        squashed: bool,
    },
}

impl Policy {
    /// Words of one stored action.
    pub fn action_len(self) -> usize {
        match self {
            Policy::Categorical { .. } => 1,
            Policy::Gaussian { n, .. } => n,
        }
    }

    /// Outputs the net must have.
    pub fn outputs(self) -> usize {
        match self {
            Policy::Categorical { n } => n,
            Policy::Gaussian { n, free_std, .. } => n * if free_std { 1 } else { 2 },
        }
    }

    /// Parameters beside the net's: log standard deviations.
    pub fn free_len(self) -> usize {
        match self {
            Policy::Gaussian { n, free_std: true, .. } => n,
            _ => 0,
        }
    }

    /// Definition: `(log_prob, entropy)` of one row. `out` holds the net's outputs, then the free parameters.
    pub fn define(self, out: &[f64], action: &[f32]) -> (f64, f64) {
        match self {
            Policy::Categorical { n } => {
                let top = out[..n].iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let ln_sum = out[..n].iter().map(|l| (l - top).exp()).sum::<f64>().ln() + top;
                let entropy = -out[..n].iter().map(|l| (l - ln_sum).exp() * (l - ln_sum)).sum::<f64>();
                (out[action[0] as usize] - ln_sum, entropy)
            }
            Policy::Gaussian { n, squashed, .. } => {
                let (mut log_prob, mut entropy) = (0.0, 0.0);
                for i in 0..n {
                    let log_std = out[n + i].clamp(LOG_STD.0.into(), LOG_STD.1.into());
                    let x = f64::from(action[i]);
                    let z = (x - out[i]) / log_std.exp();
                    log_prob += -0.5 * z * z - log_std - HALF_LN_2PI;
                    entropy += 0.5 + HALF_LN_2PI + log_std;
                    if squashed {
                        // log of the slope of tanh, without cancellation
                        let slope = 2.0 * (std::f64::consts::LN_2 - x - (-2.0 * x).exp().ln_1p());
                        log_prob -= slope;
                        entropy += slope;
                    }
                }
                (log_prob, entropy)
            }
        }
    }

    /// Definition: slopes of log-probability and entropy with respect to `out` of one row.
    pub fn define_slopes(self, out: &[f64], action: &[f32]) -> (Vec<f64>, Vec<f64>) {
        match self {
            Policy::Categorical { n } => {
                let top = out[..n].iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let ln_sum = out[..n].iter().map(|l| (l - top).exp()).sum::<f64>().ln() + top;
                let entropy = self.define(out, action).1;
                let probs = || out[..n].iter().map(|l| (l - ln_sum).exp());
                let log_prob =
                    probs().enumerate().map(|(j, p)| f64::from(u8::from(j == action[0] as usize)) - p).collect();
                (log_prob, probs().map(|p| -p * (p.ln() + entropy)).collect())
            }
            Policy::Gaussian { n, .. } => {
                let (mut log_prob, mut entropy) = (vec![0.0; 2 * n], vec![0.0; 2 * n]);
                for i in 0..n {
                    let inside = out[n + i] > LOG_STD.0.into() && out[n + i] < LOG_STD.1.into();
                    let std = out[n + i].clamp(LOG_STD.0.into(), LOG_STD.1.into()).exp();
                    let z = (f64::from(action[i]) - out[i]) / std;
                    log_prob[i] = z / std;
                    log_prob[n + i] = if inside { z * z - 1.0 } else { 0.0 };
                    entropy[n + i] = f64::from(u8::from(inside));
                }
                (log_prob, entropy)
            }
        }
    }

    /// Log-probability and entropy of 16 rows, and their slopes with respect to `out`; `out` as in [`Policy::define`].
    #[inline(always)]
    pub fn evaluate(
        self,
        out: &[Lanes; OUTPUTS],
        action: &[Lanes],
        d_log_prob: &mut [Lanes; OUTPUTS],
        d_entropy: &mut [Lanes; OUTPUTS],
    ) -> (Lanes, Lanes) {
        let (mut log_prob, mut entropy) = ([0.0; LANES], [0.0; LANES]);
        match self {
            Policy::Categorical { n } => {
                let (top, ln_sum) = log_sum_exp(&out[..n]);
                for j in 0..n {
                    for i in 0..LANES {
                        let log_p = out[j][i] - top[i] - ln_sum[i];
                        let p = trig::exp(log_p);
                        let chosen = if action[0][i] == j as f32 { 1.0 } else { 0.0 };
                        log_prob[i] += chosen * log_p;
                        entropy[i] -= p * log_p;
                        d_log_prob[j][i] = chosen - p;
                        d_entropy[j][i] = p;
                    }
                }
                for j in 0..n {
                    for i in 0..LANES {
                        d_entropy[j][i] *= -(out[j][i] - top[i] - ln_sum[i] + entropy[i]);
                    }
                }
            }
            Policy::Gaussian { n, squashed, .. } => {
                for j in 0..n {
                    for i in 0..LANES {
                        let raw = out[n + j][i];
                        let log_std = trig::clamp(raw, LOG_STD.0, LOG_STD.1);
                        let inside = if raw > LOG_STD.0 && raw < LOG_STD.1 { 1.0 } else { 0.0 };
                        let inv_std = trig::exp(-log_std);
                        let z = (action[j][i] - out[j][i]) * inv_std;
                        log_prob[i] += -0.5 * z * z - log_std - HALF_LN_2PI as f32;
                        entropy[i] += 0.5 + HALF_LN_2PI as f32 + log_std;
                        d_log_prob[j][i] = z * inv_std;
                        d_log_prob[n + j][i] = inside * (z * z - 1.0);
                        d_entropy[j][i] = 0.0;
                        d_entropy[n + j][i] = inside;
                        if squashed {
                            let slope = ln_tanh_slope(action[j][i]);
                            log_prob[i] -= slope;
                            entropy[i] += slope;
                        }
                    }
                }
            }
        }
        (log_prob, entropy)
    }

    /// Samples 16 actions (`greedy`: the most likely ones) from the words of one Philox block per lane and action group;
    /// writes the stored action and returns its log-probability. `words[w][lane]`: word `w` of the lane's blocks, four
    /// per block; a Gaussian uses two words per action word, rounded up to a pair.
    #[inline(always)]
    pub fn sample(self, out: &[Lanes; OUTPUTS], words: &[[u32; LANES]], greedy: bool, action: &mut [Lanes]) -> Lanes {
        let mut log_prob = [0.0; LANES];
        match self {
            Policy::Categorical { n } => {
                let (top, ln_sum) = log_sum_exp(&out[..n]);
                let mut best = [0.0; LANES];
                if greedy {
                    for j in 1..n {
                        for i in 0..LANES {
                            let mut high = out[0][i];
                            for seen in &out[1..j] {
                                high = if seen[i] > high { seen[i] } else { high };
                            }
                            best[i] = if out[j][i] > high { j as f32 } else { best[i] };
                        }
                    }
                } else {
                    // the first action whose cumulative probability passes u; the last one takes what rounding leaves
                    let mut sum = [0.0; LANES];
                    for j in 0..n - 1 {
                        for i in 0..LANES {
                            sum[i] += trig::exp(out[j][i] - top[i] - ln_sum[i]);
                            best[i] += if unit(words[0][i]) > sum[i] { 1.0 } else { 0.0 };
                        }
                    }
                }
                for j in 0..n {
                    for i in 0..LANES {
                        let log_p = out[j][i] - top[i] - ln_sum[i];
                        log_prob[i] = if best[i] == j as f32 { log_p } else { log_prob[i] };
                    }
                }
                action[0] = best;
            }
            Policy::Gaussian { n, squashed, .. } => {
                for j in 0..n {
                    let pair = j & !1;
                    for i in 0..LANES {
                        let log_std = trig::clamp(out[n + j][i], LOG_STD.0, LOG_STD.1);
                        let (u, v) = (unit(words[pair][i]), unit(words[pair + 1][i]));
                        let (sin, cos) = trig::sin_cos(v * std::f32::consts::TAU);
                        // Box and Muller 1958: two normals from two uniforms
                        let normal = (-2.0 * trig::ln(u)).sqrt() * if j == pair { cos } else { sin };
                        let z = if greedy { 0.0 } else { normal };
                        action[j][i] = out[j][i] + trig::exp(log_std) * z;
                        log_prob[i] += -0.5 * z * z - log_std - HALF_LN_2PI as f32;
                        if squashed {
                            log_prob[i] -= ln_tanh_slope(action[j][i]);
                        }
                    }
                }
            }
        }
        log_prob
    }

    /// Philox blocks of four words that [`Policy::sample`] reads per row.
    pub fn blocks(self) -> usize {
        match self {
            Policy::Categorical { .. } => 1,
            Policy::Gaussian { n, .. } => n.next_multiple_of(2).div_ceil(4),
        }
    }
}

/// Maximum and `ln(sum(exp(x - max)))` over the outputs, per lane.
#[inline(always)]
pub fn log_sum_exp(out: &[Lanes]) -> (Lanes, Lanes) {
    let mut top = out[0];
    for x in &out[1..] {
        for i in 0..LANES {
            top[i] = if x[i] > top[i] { x[i] } else { top[i] };
        }
    }
    let mut sum = [0.0; LANES];
    for x in out {
        for i in 0..LANES {
            sum[i] += trig::exp(x[i] - top[i]);
        }
    }
    let mut ln_sum = [0.0; LANES];
    for i in 0..LANES {
        ln_sum[i] = trig::ln(sum[i]);
    }
    (top, ln_sum)
}

/// `ln(1 - tanh(x)^2) = 2 (ln 2 - x - softplus(-2x))`, stable for large `|x|`.
#[inline(always)]
pub(super) fn ln_tanh_slope(x: f32) -> f32 {
    let a = x.abs();
    2.0 * (std::f32::consts::LN_2 - a - trig::ln(1.0 + trig::exp(-2.0 * a)))
}
