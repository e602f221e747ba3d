//! Gradient of one minibatch: gather, forward, loss, backward, in one pass over blocks of rows that stay in cache.
//!
//! Losses: policy gradient (REINFORCE, A2C) or PPO's clipped surrogate (Schulman et al. 2017), entropy bonus, value loss.
//! Activations are recomputed here, never stored by the rollout. Each tile of rows gives its own partial gradient, so
//! that the sum over tiles has an order of its own, whatever ran them.

use super::advantage;
use super::hyper::{self, update};
use super::lib::mlp::{Mlp, ROWS, Round, backward, exact, forward, to_bf16, unpack_grad};
use super::lib::nets::{Nets, Packed, cut, normalize};
use super::lib::policy::{LANES, LOG_RATIO, Lanes, OUTPUTS, Policy};
use super::lib::simd::sum16;
use super::lib::trig;
use super::{Draw, Shape, gpu, schedule};
use crate::device::{Cx, Kernel, Kind, Limits, Precision, Shader};

/// How the value's distance from its target is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distance {
    /// `d^2`
    Mse,
    /// `d^2 / (2 beta)` below `beta`, `|d| - beta / 2` beyond (PyTorch's `SmoothL1Loss`).
    SmoothL1 { beta: f32 },
}

impl Distance {
    /// Definition: the loss of an error, and its slope.
    pub fn define(self, e: f64) -> (f64, f64) {
        match self {
            Distance::Mse => (e * e, 2.0 * e),
            Distance::SmoothL1 { beta } => {
                let beta = f64::from(beta);
                if e.abs() < beta { (0.5 * e * e / beta, e / beta) } else { (e.abs() - 0.5 * beta, e.signum()) }
            }
        }
    }

    /// The loss of an error, and its slope.
    #[inline(always)]
    pub fn of(self, e: f32) -> (f32, f32) {
        match self {
            Distance::Mse => (e * e, 2.0 * e),
            Distance::SmoothL1 { beta } => {
                let near = e.abs() < beta;
                let loss = if near { 0.5 * e * e / beta } else { e.abs() - 0.5 * beta };
                (loss, if near { e / beta } else { 1.0f32.copysign(e) })
            }
        }
    }
}

/// What is fixed when a minibatch is recorded.
#[derive(Debug, Clone)]
pub struct GradShape {
    pub nets: Nets,
    /// Words of an observation, `O`.
    pub obs: usize,
    /// Rows of the rollout, `M = T N`, and its environments.
    pub rows: usize,
    pub envs: usize,
    /// Rows of this minibatch: `index[start..start + len]`, counted through all epochs.
    pub start: usize,
    pub len: usize,
    /// Which minibatch this is, counted through all epochs, and how many an epoch has.
    pub minibatch: usize,
    pub minibatches: usize,
    /// Epochs that `index` and `moments` hold.
    pub epochs: usize,
    /// PPO's clipped surrogate; otherwise the plain policy gradient.
    pub clipped: bool,
    pub distance: Distance,
    /// The larger of the losses of the value and of the value held within `clip_eps` of the old one, halved.
    pub clip_value: bool,
    /// Values and targets are compressed by `sign(x) ln(1 + |x|)` before they are compared (Hafner et al. 2023).
    pub symlog: bool,
    /// Values and targets are divided by the running deviation of the targets before they are compared.
    pub normalize_targets: bool,
    pub normalize_obs: bool,
    /// Rows of a tile: [`tile_rows`] of the device kind.
    pub tile_rows: usize,
    /// Of the products of nets; on a gpu alone.
    pub precision: Precision,
}

/// Most tiles of a minibatch.
const TILES: usize = 64;
/// Fewest rows of a tile: below this, packing the parameters would cost more than a second thread brings.
const TILE_ROWS: usize = 256;
/// Targets in units of their deviation are held within this.
pub const TARGET_MAX: f32 = 10.0;

/// Rows of a tile of a minibatch of `len` rows: each kind of device cuts as its cores like it.
pub fn tile_rows(kind: Kind, nets: &Nets, precision: Precision, len: usize) -> usize {
    match kind {
        Kind::Cpu => len.div_ceil(TILES).next_multiple_of(ROWS).max(TILE_ROWS),
        Kind::Cuda => gpu::minibatch_grad::tile_rows(nets, precision, len),
        Kind::Wgpu => super::shaders::minibatch_grad::tile_rows(nets, len),
    }
}

impl GradShape {
    /// What becomes of the operands of products.
    fn round(&self) -> Round {
        if self.precision == Precision::Bf16 { to_bf16 } else { exact }
    }
}

impl Shape for GradShape {
    fn tiles(&self) -> usize {
        self.len.div_ceil(self.tile_rows)
    }

    fn scratch_words(&self) -> usize {
        let each = || std::iter::once(&self.nets.actor).chain(&self.nets.critic);
        let grads: usize = each().map(|net| net.packed_grad_len() + ROWS * net.out_pad()).sum();
        let slopes = each().map(|net| net.slopes_len()).max().unwrap_or(0);
        self.nets.packed_len() + grads + slopes + ROWS * self.obs + 4 * OUTPUTS * LANES
    }

    fn flops(&self) -> f64 {
        // forward once, backward twice as much less the slopes of the observations
        let first: usize = std::iter::once(&self.nets.actor)
            .chain(&self.nets.critic)
            .map(|net| net.input * net.hidden.first().unwrap_or(&net.output))
            .sum();
        2.0 * self.len as f64 * (3 * self.nets.madds() - first) as f64
    }

    fn on_cpu(&self) -> bool {
        self.precision == Precision::F32
    }

    /// Where operands are rounded, one of about ten thousand lies so near the middle of two numbers of 8 bits that the
    /// definition, which sums in f64, rounds it the other way: that moves an operand by 2^-8 of its size.
    fn tolerance(&self, declared: f64) -> f64 {
        if self.precision == Precision::Bf16 { 2e-3 } else { declared }
    }

    fn kernels(&self) -> Vec<Kernel> {
        gpu::minibatch_grad::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        gpu::minibatch_grad::device_scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::minibatch_grad::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::minibatch_grad::scratch(self)
    }

    fn cases() -> Vec<GradShape> {
        super::lib::cases::grad_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        super::lib::cases::sample_grad(self, arg, words, draw)
    }
}

crate::op! {
    /// Partial gradients and losses of one minibatch; losses are divided by the minibatch's rows in the gradient, and
    /// are plain sums over rows in `partial_loss`.
    MinibatchGrad(d: GradShape) = "minibatch_grad", within 2e-5, run = run {
        read index: u32[d.epochs * d.rows];
        read moments: f32[d.epochs * d.minibatches, 2] in 0.5..1.5;
        read obs: f32[d.rows, d.obs] in -2.0..2.0;
        read normalizer: f32[2, d.obs] in 0.5..1.5;
        read action: f32[d.rows, d.nets.policy.action_len()] in -1.0..1.0;
        read log_prob: f32[d.rows] in -1.5..-0.2;
        read value: f32[d.rows + d.envs] in -1.0..1.0;
        read advantage: f32[d.rows] in -2.0..2.0;
        read returns: f32[d.rows] in -3.0..3.0;
        read value_moments: f32[4] in 0.2..1.0;
        read hyper: f32[hyper::len(d.nets.groups())];
        read schedule: f32[schedule::LEN + d.nets.groups()] in 0.05..0.3;
        read params: f32[d.nets.len()] in -0.7..0.7;
        write partial: f32[d.tiles(), d.nets.len()];
        write partial_loss: f32[d.tiles(), update::LOSSES];
    }
}

/// The numbers of a session that a loss needs.
#[derive(Clone, Copy)]
struct Numbers {
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
    fn new(d: &GradShape, hyper: &[f32], schedule: &[f32], moments: &[f32], value_moments: &[f32]) -> Numbers {
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

/// One row of the minibatch as the definition sees it.
struct Row<'a> {
    x: Vec<f64>,
    action: &'a [f32],
    log_prob: f64,
    value: f64,
    advantage: f64,
    returns: f64,
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
        let (loss, d_error) = d.distance.define(p - t);
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

fn row<'a>(d: &GradShape, a: &'a Args<'_>, i: usize) -> Row<'a> {
    let m = a.index[i] as usize;
    let actions = d.nets.policy.action_len();
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    let x = (0..d.obs).map(|o| {
        let x = a.obs[m * d.obs + o];
        f64::from(if d.normalize_obs { normalize(x, o, a.normalizer, clip) } else { x })
    });
    Row {
        x: x.collect(),
        action: &a.action[m * actions..][..actions],
        log_prob: a.log_prob[m].into(),
        value: a.value[m].into(),
        advantage: a.advantage[m].into(),
        returns: a.returns[m].into(),
    }
}

/// Definition of what is minimised: the mean over the minibatch, as a function of the parameters. The gradient test
/// differentiates this numerically.
pub fn objective(d: &GradShape, a: &Args<'_>, params: &[f64]) -> f64 {
    let n = Numbers::new(d, a.hyper, a.schedule, a.moments, a.value_moments);
    let total: f64 = (d.start..d.start + d.len)
        .map(|i| {
            let row = row(d, a, i);
            let (out, value) = d.nets.define(params, &row.x, d.round());
            let (log_prob, entropy) = d.nets.policy.define(&out, row.action);
            let ([policy, value, ..], ..) = define_losses(d, n, &row, log_prob, entropy, value);
            let value = if d.nets.has_value() { f64::from(n.value_coef) * value } else { 0.0 };
            f64::from(n.policy_coef) * policy + value - f64::from(n.entropy_coef) * entropy
        })
        .sum();
    total / d.len as f64
}

/// The plain definition, row by row in f64.
fn define(d: &GradShape, a: Args<'_>) {
    let n = Numbers::new(d, a.hyper, a.schedule, a.moments, a.value_moments);
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let (actor_len, outputs, round) = (d.nets.actor_len(), d.nets.policy.outputs(), d.round());
    for tile in 0..d.tiles() {
        let mut grad = vec![0.0; d.nets.len()];
        let mut sums = [0.0; update::LOSSES];
        let begin = tile * d.tile_rows;
        for i in begin..(begin + d.tile_rows).min(d.len) {
            let row = row(d, &a, d.start + i);
            let (out, value) = d.nets.define(&params, &row.x, round);
            let (log_prob, entropy) = d.nets.policy.define(&out, row.action);
            let (losses, d_policy, d_value) = define_losses(d, n, &row, log_prob, entropy, value);
            let (slope_log_prob, slope_entropy) = d.nets.policy.define_slopes(&out, row.action);
            let mean = |x: f64| x / d.len as f64;
            let d_out = slope_log_prob.iter().zip(&slope_entropy);
            let mut d_out: Vec<f64> = d_out
                .map(|(l, e)| mean(f64::from(n.policy_coef) * d_policy * l - f64::from(n.entropy_coef) * e))
                .collect();
            for (g, d) in grad[d.nets.actor.len()..actor_len].iter_mut().zip(d_out.split_off(outputs)) {
                *g += d;
            }
            let d_value = mean(f64::from(n.value_coef) * d_value);
            if d.nets.shared() {
                d_out.push(d_value);
            }
            let mut backward = |net: &Mlp, at: usize, d_out: &[f64]| {
                let (params, grad) = (&params[at..], &mut grad[at..]);
                net.define_backward(params, &net.define_forward(params, &row.x, round), d_out, grad, round);
            };
            backward(&d.nets.actor, 0, &d_out);
            if let Some(critic) = &d.nets.critic {
                backward(critic, actor_len, &[d_value]);
            }
            let has_value = f64::from(u8::from(d.nets.has_value()));
            for (c, (sum, loss)) in sums.iter_mut().zip(losses).enumerate() {
                *sum += if c == update::VALUE { loss * has_value } else { loss };
            }
        }
        let to_f32 = |(to, from): (&mut f32, &f64)| *to = *from as f32;
        a.partial[tile * d.nets.len()..][..d.nets.len()].iter_mut().zip(&grad).for_each(to_f32);
        a.partial_loss[tile * update::LOSSES..][..update::LOSSES].iter_mut().zip(&sums).for_each(to_f32);
    }
}

/// 16 rows, one per lane: what a loss reads, and the slopes that it writes.
struct Work {
    action: [Lanes; OUTPUTS],
    log_prob: Lanes,
    old_value: Lanes,
    advantage: Lanes,
    returns: Lanes,
    /// 1 where the lane holds a row.
    live: Lanes,
    /// Outputs of the nets, and the slopes of the loss there.
    out: [Lanes; OUTPUTS],
    value: Lanes,
    d_out: [Lanes; OUTPUTS],
    d_entropy: [Lanes; OUTPUTS],
    d_value: Lanes,
    /// Losses so far, by lane.
    sums: [Lanes; update::LOSSES],
}

fn run(d: &GradShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (isa, tile, scratch) = (cx.isa, cx.tile, &mut *cx.scratch);
    let p = d.nets.len();
    // SAFETY: every tile has its own rows of both outputs
    let (partial, partial_loss) = unsafe {
        (
            a.partial.part(tile * p..(tile + 1) * p),
            a.partial_loss.part(tile * update::LOSSES..(tile + 1) * update::LOSSES),
        )
    };
    let n = Numbers::new(d, a.hyper, a.schedule, a.moments, a.value_moments);
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    let mut scratch = scratch;
    let mut nets = Packed::new(&d.nets, a.params, &mut scratch);
    let grad_actor = cut(&mut scratch, d.nets.actor.packed_grad_len());
    grad_actor.fill(0.0);
    let grad_critic = cut(&mut scratch, d.nets.critic.as_ref().map_or(0, |c| c.packed_grad_len()));
    grad_critic.fill(0.0);
    let d_actor = cut(&mut scratch, ROWS * d.nets.actor.out_pad());
    let d_critic = cut(&mut scratch, ROWS * d.nets.critic.as_ref().map_or(0, |c| c.out_pad()));
    let x = cut(&mut scratch, ROWS * d.obs);
    let mut w = Work {
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
        sums: [[0.0; LANES]; update::LOSSES],
    };
    let mut free = [[0.0f32; LANES]; OUTPUTS];
    let outputs = d.nets.policy.outputs();

    let begin = d.start + tile * d.tile_rows;
    let end = (begin + d.tile_rows).min(d.start + d.len);
    let mut at = begin;
    while at < end {
        let index = &a.index[at..(at + ROWS).min(end)];
        let rows = index.len();
        for (x, &m) in x.chunks_exact_mut(d.obs).zip(index) {
            x.copy_from_slice(&a.obs[m as usize * d.obs..][..d.obs]);
            if d.normalize_obs {
                x.iter_mut().enumerate().for_each(|(o, x)| *x = normalize(*x, o, a.normalizer, clip));
            }
        }
        forward(isa, &d.nets.actor, nets.actor.packed, (x, d.obs), rows, nets.actor.acts, nets.actor.out);
        if let (Some(mlp), Some(critic)) = (&d.nets.critic, &mut nets.critic) {
            forward(isa, mlp, critic.packed, (x, d.obs), rows, critic.acts, critic.out);
        }
        for first in (0..rows).step_by(LANES) {
            gather(d, &a, &index[first..(first + LANES).min(rows)], &mut w);
            nets.policy_lanes(&d.nets, a.params, first, &mut w.out);
            w.value = nets.value_lanes(&d.nets, first);
            losses(isa, d, n, &mut w);
            let pad = d.nets.actor.out_pad();
            for i in 0..LANES {
                for j in 0..outputs {
                    d_actor[(first + i) * pad + j] = w.d_out[j][i];
                }
            }
            if d.nets.shared() {
                (0..LANES).for_each(|i| d_actor[(first + i) * pad + outputs] = w.d_value[i]);
            } else if let Some(mlp) = &d.nets.critic {
                (0..LANES).for_each(|i| d_critic[(first + i) * mlp.out_pad()] = w.d_value[i]);
            }
            for j in 0..d.nets.policy.free_len() {
                for i in 0..LANES {
                    free[j][i] += w.d_out[outputs + j][i];
                }
            }
        }
        backward(
            isa,
            &d.nets.actor,
            nets.actor.packed,
            (x, d.obs),
            rows,
            nets.actor.acts,
            d_actor,
            scratch,
            grad_actor,
        );
        if let (Some(mlp), Some(critic)) = (&d.nets.critic, &nets.critic) {
            backward(isa, mlp, critic.packed, (x, d.obs), rows, critic.acts, d_critic, scratch, grad_critic);
        }
        at += rows;
    }

    unpack_grad(&d.nets.actor, grad_actor, partial);
    for (j, free) in free[..d.nets.policy.free_len()].iter().enumerate() {
        partial[d.nets.actor.len() + j] = sum16(free);
    }
    if let Some(critic) = &d.nets.critic {
        unpack_grad(critic, grad_critic, &mut partial[d.nets.actor_len()..]);
    }
    for (c, sum) in w.sums.iter().enumerate() {
        partial_loss[c] = if c == update::VALUE && !d.nets.has_value() { 0.0 } else { sum16(sum) };
    }
}

/// Puts rows into lanes; lanes without a row keep finite numbers and do not count.
fn gather(d: &GradShape, a: &Tile<'_>, index: &[u32], w: &mut Work) {
    let actions = d.nets.policy.action_len();
    w.live = [0.0; LANES];
    for (i, &m) in index.iter().enumerate() {
        let m = m as usize;
        for j in 0..actions {
            w.action[j][i] = a.action[m * actions + j];
        }
        w.log_prob[i] = a.log_prob[m];
        w.old_value[i] = a.value[m];
        w.advantage[i] = a.advantage[m];
        w.returns[i] = a.returns[m];
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
        let (loss, d_error) = d.distance.of(e);
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
