//! Losses of actor and critic on rows of a rollout: the definition row by row, and 16 rows at a time with their slopes.

use super::nets::Nets;
use super::policy::{LANES, LOG_RATIO, Lanes, OUTPUTS, Policy};
use super::simd::sum16;
use super::trig;
use crate::device::cpu::Isa;
use crate::op::advantage;
use crate::op::hyper::{self, update};
use crate::op::minibatch_grad::{GradShape, TARGET_MAX};
use crate::op::schedule;

/// The numbers of a session that a loss needs.
#[derive(Clone, Copy)]
pub struct Numbers {
    clip_eps: f32,
    entropy_coef: f32,
    policy_coef: f32,
    value_coef: f32,
    /// 1 / deviation of the targets.
    target_scale: f32,
    mean: f32,
    scale: f32,
}

impl Numbers {
    pub fn new(d: &GradShape, hyper: &[f32], schedule: &[f32], moments: &[f32], value_moments: &[f32]) -> Numbers {
        Numbers {
            clip_eps: schedule[schedule::CLIP_EPS],
            entropy_coef: schedule[schedule::ENTROPY_COEF],
            policy_coef: hyper[hyper::POLICY_LOSS_COEF],
            value_coef: hyper[hyper::VAL_LOSS_COEF],
            target_scale: if d.normalize_targets { value_moments[advantage::SCALE] } else { 1.0 },
            mean: moments[2 * d.minibatch],
            scale: moments[2 * d.minibatch + 1],
        }
    }
}

/// What a rollout has recorded of every row, `[M, ..]`, beside the observations.
#[derive(Clone, Copy)]
pub struct Records<'a> {
    pub action: &'a [f32],
    pub log_prob: &'a [f32],
    pub value: &'a [f32],
    pub advantage: &'a [f32],
    pub returns: &'a [f32],
}

/// One row of the minibatch as the definition of a loss sees it.
pub struct Row<'a> {
    pub action: &'a [f32],
    log_prob: f64,
    value: f64,
    advantage: f64,
    returns: f64,
}

impl<'a> Records<'a> {
    /// Row `m`.
    pub fn row(&self, policy: Policy, m: usize) -> Row<'a> {
        let actions = policy.action_len();
        Row {
            action: &self.action[m * actions..][..actions],
            log_prob: self.log_prob[m].into(),
            value: self.value[m].into(),
            advantage: self.advantage[m].into(),
            returns: self.returns[m].into(),
        }
    }
}

fn symlog(x: f64) -> f64 {
    x.signum() * x.abs().ln_1p()
}

/// Definition: the five losses of one row, the slope of the policy part at its log-probability, and of the value part
/// at the value.
fn define_losses(
    d: &GradShape,
    n: Numbers,
    row: &Row<'_>,
    log_prob: f64,
    entropy: f64,
    value: f64,
) -> ([f64; 5], f64, f64) {
    let advantage = (row.advantage - f64::from(n.mean)) * f64::from(n.scale);
    let eps = f64::from(n.clip_eps);
    let raw = log_prob - row.log_prob;
    let max = f64::from(LOG_RATIO);
    let log_ratio = raw.clamp(-max, max);
    let ratio = log_ratio.exp();
    let (policy, d_policy) = if d.clipped {
        let (free, held) = (ratio * advantage, ratio.clamp(1.0 - eps, 1.0 + eps) * advantage);
        let slope = if free <= held && raw.abs() < max { -free } else { 0.0 };
        (-free.min(held), slope)
    } else {
        (-log_prob * advantage, -advantage)
    };
    let scale = f64::from(n.target_scale);
    let distance = |value: f64| {
        let target = (row.returns * scale).clamp(-f64::from(TARGET_MAX), f64::from(TARGET_MAX));
        let target = if d.normalize_targets { target } else { row.returns };
        let (p, t, slope) = if d.symlog {
            (symlog(value * scale), symlog(target), scale / (1.0 + (value * scale).abs()))
        } else {
            (value * scale, target, scale)
        };
        let (loss, d_error) = d.distance.define(if d.one_sided { (p - t).min(0.0) } else { p - t });
        (loss, d_error * slope)
    };
    let (value_loss, d_value) = if d.clip_value {
        let held = value.clamp(row.value - eps, row.value + eps);
        let (free, held, moved) = (distance(value), distance(held), held == value);
        if free.0 >= held.0 || moved { (0.5 * free.0, 0.5 * free.1) } else { (0.5 * held.0, 0.0) }
    } else {
        distance(value)
    };
    let outside = f64::from(u8::from((ratio - 1.0).abs() > eps && d.clipped));
    let kl = ratio - 1.0 - log_ratio;
    ([policy, value_loss, entropy, kl, outside], d_policy, d_value)
}

/// Definition: the loss of one row, from what the nets say of it.
pub fn define_loss(d: &GradShape, n: Numbers, row: &Row<'_>, out: &[f64], value: f64) -> f64 {
    let (log_prob, entropy) = d.nets.policy.define(out, row.action);
    let ([policy, value, ..], ..) = define_losses(d, n, row, log_prob, entropy, value);
    let value = if d.nets.has_value() { f64::from(n.value_coef) * value } else { 0.0 };
    f64::from(n.policy_coef) * policy + value - f64::from(n.entropy_coef) * entropy
}

/// Definition: the slopes of one row's part of the mean loss at the actor's outputs (a shared net's value is the last) and
/// at the value; adds those at the free parameters to the gradient, and the losses to their sums.
pub fn define_slopes(
    d: &GradShape,
    n: Numbers,
    row: &Row<'_>,
    (out, value): (&[f64], f64),
    grad: &mut [f64],
    sums: &mut [f64; update::LOSSES],
) -> (Vec<f64>, f64) {
    let (log_prob, entropy) = d.nets.policy.define(out, row.action);
    let (losses, d_policy, d_value) = define_losses(d, n, row, log_prob, entropy, value);
    let (slope_log_prob, slope_entropy) = d.nets.policy.define_slopes(out, row.action);
    let mean = |x: f64| x / d.len as f64;
    let d_out = slope_log_prob.iter().zip(&slope_entropy);
    let mut d_out: Vec<f64> =
        d_out.map(|(l, e)| mean(f64::from(n.policy_coef) * d_policy * l - f64::from(n.entropy_coef) * e)).collect();
    for (g, d) in grad[d.nets.free()].iter_mut().zip(d_out.split_off(d.nets.policy.outputs())) {
        *g += d;
    }
    let d_value = mean(f64::from(n.value_coef) * d_value);
    if d.nets.shared() {
        d_out.push(d_value);
    }
    let has_value = f64::from(u8::from(d.nets.has_value()));
    for (c, (sum, loss)) in sums.iter_mut().zip(losses).enumerate() {
        *sum += if c == update::VALUE { loss * has_value } else { loss };
    }
    (d_out, d_value)
}

/// 16 rows, one per lane: what a loss reads, and the slopes that it writes.
pub struct Work {
    action: [Lanes; OUTPUTS],
    log_prob: Lanes,
    old_value: Lanes,
    advantage: Lanes,
    returns: Lanes,
    /// 1 where the lane holds a row.
    live: Lanes,
    /// Outputs of the nets, and the slopes of the loss there.
    pub out: [Lanes; OUTPUTS],
    pub value: Lanes,
    d_out: [Lanes; OUTPUTS],
    d_entropy: [Lanes; OUTPUTS],
    d_value: Lanes,
    /// Slopes at the free parameters and losses so far, by lane.
    free: [Lanes; OUTPUTS],
    sums: [Lanes; update::LOSSES],
}

impl Work {
    #[allow(clippy::new_without_default)] // there is nothing that it would be the default of
    pub fn new() -> Work {
        Work {
            action: [[0.0; LANES]; OUTPUTS],
            log_prob: [0.0; LANES],
            old_value: [0.0; LANES],
            advantage: [0.0; LANES],
            returns: [0.0; LANES],
            live: [0.0; LANES],
            out: [[0.0; LANES]; OUTPUTS],
            value: [0.0; LANES],
            d_out: [[0.0; LANES]; OUTPUTS],
            d_entropy: [[0.0; LANES]; OUTPUTS],
            d_value: [0.0; LANES],
            free: [[0.0; LANES]; OUTPUTS],
            sums: [[0.0; LANES]; update::LOSSES],
        }
    }

    /// Losses and slopes of the rows `index`, one for each lane, whose outputs stand in `out` and `value`. The slopes go to
    /// rows `first` on of `d_actor` and `d_critic`, where the way back through the nets begins.
    #[allow(clippy::too_many_arguments)] // what it reads, then what it writes
    pub fn judge(
        &mut self,
        isa: Isa,
        d: &GradShape,
        n: Numbers,
        records: Records<'_>,
        index: &[u32],
        first: usize,
        d_actor: &mut [f32],
        d_critic: &mut [f32],
    ) {
        gather(d.nets.policy, records, index, self);
        losses(isa, d, n, self);
        let (outputs, pad) = (d.nets.policy.outputs(), d.nets.actor.out_pad());
        for i in 0..LANES {
            for j in 0..outputs {
                d_actor[(first + i) * pad + j] = self.d_out[j][i];
            }
        }
        if d.nets.shared() {
            (0..LANES).for_each(|i| d_actor[(first + i) * pad + outputs] = self.d_value[i]);
        } else if let Some(mlp) = &d.nets.critic {
            (0..LANES).for_each(|i| d_critic[(first + i) * mlp.out_pad()] = self.d_value[i]);
        }
        for j in 0..d.nets.policy.free_len() {
            for i in 0..LANES {
                self.free[j][i] += self.d_out[outputs + j][i];
            }
        }
    }

    /// Writes what was summed over all rows: the gradient of the free parameters, and the losses.
    pub fn finish(&self, nets: &Nets, partial: &mut [f32], partial_loss: &mut [f32]) {
        for (to, free) in partial[nets.free()].iter_mut().zip(&self.free) {
            *to = sum16(free);
        }
        for (c, sum) in self.sums.iter().enumerate() {
            partial_loss[c] = if c == update::VALUE && !nets.has_value() { 0.0 } else { sum16(sum) };
        }
    }
}

/// Puts rows into lanes; lanes without a row keep finite numbers and do not count.
fn gather(policy: Policy, records: Records<'_>, index: &[u32], w: &mut Work) {
    let actions = policy.action_len();
    w.live = [0.0; LANES];
    for (i, &m) in index.iter().enumerate() {
        let m = m as usize;
        for j in 0..actions {
            w.action[j][i] = records.action[m * actions + j];
        }
        w.log_prob[i] = records.log_prob[m];
        w.old_value[i] = records.value[m];
        w.advantage[i] = records.advantage[m];
        w.returns[i] = records.returns[m];
        w.live[i] = 1.0;
    }
}

crate::per_isa! {
    /// Losses of 16 rows and their slopes at the nets' outputs. Lanes without a row hold finite numbers and count 0.
    fn losses(d: &GradShape, n: Numbers, w: &mut Work) {
        let inv_len = 1.0 / d.len as f32;
        let (log_prob, entropy) = d.nets.policy.evaluate(&w.out, &w.action, &mut w.d_out, &mut w.d_entropy);
        let mut d_log_prob = [0.0; LANES];
        for i in 0..LANES {
            let advantage = (w.advantage[i] - n.mean) * n.scale;
            let raw = log_prob[i] - w.log_prob[i];
            let log_ratio = trig::clamp(raw, -LOG_RATIO, LOG_RATIO);
            let ratio = trig::exp(log_ratio);
            let free = ratio * advantage;
            let held = trig::clamp(ratio, 1.0 - n.clip_eps, 1.0 + n.clip_eps) * advantage;
            let (policy, slope) = if d.clipped {
                let inside = free <= held && raw.abs() < LOG_RATIO;
                (-(if free < held { free } else { held }), if inside { -free } else { 0.0 })
            } else {
                (-log_prob[i] * advantage, -advantage)
            };
            d_log_prob[i] = n.policy_coef * slope * inv_len * w.live[i];
            let outside = if (ratio - 1.0).abs() > n.clip_eps && d.clipped { 1.0 } else { 0.0 };
            w.sums[update::POLICY][i] += policy * w.live[i];
            w.sums[update::ENTROPY][i] += entropy[i] * w.live[i];
            w.sums[update::KL][i] += (ratio - 1.0 - log_ratio) * w.live[i];
            w.sums[update::CLIP_FRAC][i] += outside * w.live[i];
        }
        let outputs = match d.nets.policy {
            Policy::Categorical { n } => n,
            Policy::Gaussian { n, .. } => 2 * n,
        };
        for j in 0..outputs {
            for i in 0..LANES {
                let bonus = n.entropy_coef * inv_len * w.live[i];
                w.d_out[j][i] = d_log_prob[i] * w.d_out[j][i] - bonus * w.d_entropy[j][i];
            }
        }
        if d.nets.has_value() {
            for i in 0..LANES {
                let (loss, slope) = value_loss(d, n, w.value[i], w.old_value[i], w.returns[i]);
                w.sums[update::VALUE][i] += loss * w.live[i];
                w.d_value[i] = n.value_coef * slope * inv_len * w.live[i];
            }
        }
    }
}

/// The value loss of one row and its slope.
#[inline(always)]
fn value_loss(d: &GradShape, n: Numbers, value: f32, old: f32, returns: f32) -> (f32, f32) {
    let held_target = trig::clamp(returns * n.target_scale, -TARGET_MAX, TARGET_MAX);
    let target = if d.normalize_targets { held_target } else { returns };
    let symlog = |x: f32| trig::ln(1.0 + x.abs()).copysign(x);
    let distance = |value: f32| {
        let scaled = value * n.target_scale;
        let (e, slope) = if d.symlog {
            (symlog(scaled) - symlog(target), n.target_scale / (1.0 + scaled.abs()))
        } else {
            (scaled - target, n.target_scale)
        };
        let (loss, d_error) = d.distance.of(if d.one_sided && e > 0.0 { 0.0 } else { e });
        (loss, d_error * slope)
    };
    let free = distance(value);
    if !d.clip_value {
        return free;
    }
    let held_value = trig::clamp(value, old - n.clip_eps, old + n.clip_eps);
    let held = distance(held_value);
    let keep = free.0 >= held.0 || held_value == value;
    (0.5 * if keep { free.0 } else { held.0 }, if keep { 0.5 * free.1 } else { 0.0 })
}
