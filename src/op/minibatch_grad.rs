//! Gradient of one minibatch: gather, forward, loss, backward, in one pass over blocks of rows that stay in cache.
//!
//! Losses: policy gradient (REINFORCE, A2C) or PPO's clipped surrogate (Schulman et al. 2017), entropy bonus, value loss.
//! Activations are recomputed here, never stored by the rollout. Each tile of rows gives its own partial gradient, so
//! that the sum over tiles has an order of its own, whatever ran them.

use super::hyper::{self, update};
use super::lib::bf16;
use super::lib::losses::{Numbers, Records, Row, Work, define_loss, define_slopes};
use super::lib::mlp::{Gradient, Mlp, ROWS, backward, forward};
use super::lib::nets::{Nets, Packed, cut, normalize};
use super::lib::policy::{LANES, OUTPUTS};
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
    /// Values above their targets are as good as on them (self-imitation, Oh et al. 2018).
    pub one_sided: bool,
    /// The larger of the losses of the value and of the value held within `clip_eps` of the old one, halved.
    pub clip_value: bool,
    /// Values and targets are compressed by `sign(x) ln(1 + |x|)` before they are compared (Hafner et al. 2023).
    pub symlog: bool,
    /// Values and targets are divided by the running deviation of the targets before they are compared.
    pub normalize_targets: bool,
    pub normalize_obs: bool,
    /// Rows of a tile: [`tile_rows`] of the device kind.
    pub tile_rows: usize,
}

/// Most tiles of a minibatch.
const TILES: usize = 64;
/// Fewest rows of a tile: below this, packing the parameters would cost more than a second thread brings.
const TILE_ROWS: usize = 256;
/// Targets in units of their deviation are held within this.
pub const TARGET_MAX: f32 = 10.0;

/// Rows of a tile of a minibatch of `len` rows: each kind of device cuts as its cores like it.
pub fn tile_rows(kind: Kind, nets: &Nets, len: usize) -> usize {
    match kind {
        Kind::Cpu => len.div_ceil(TILES).next_multiple_of(ROWS).max(TILE_ROWS),
        Kind::Cuda => gpu::minibatch_grad::tile_rows(nets, len),
        Kind::Wgpu => super::shaders::minibatch_grad::tile_rows(nets, len),
    }
}

impl GradShape {}

impl GradShape {
    /// Of the products of its nets.
    pub fn precision(&self) -> Precision {
        self.nets.precision()
    }
}

impl Shape for GradShape {
    fn tiles(&self) -> usize {
        self.len.div_ceil(self.tile_rows)
    }

    fn scratch_words(&self) -> usize {
        let each = || std::iter::once(&self.nets.actor).chain(&self.nets.critic);
        let grads: usize = each().map(|net| Gradient::words(net) + ROWS * net.out_pad()).sum();
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

    fn on(&self, kind: Kind) -> bool {
        kind != Kind::Wgpu || self.precision() == Precision::F32
    }

    fn tolerance(&self, declared: f64) -> f64 {
        bf16::tolerance(self.precision(), declared)
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

fn row<'a>(d: &GradShape, a: &Args<'a>, i: usize) -> (Vec<f64>, Row<'a>) {
    let m = a.index[i] as usize;
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    let x = (0..d.obs).map(|o| {
        let x = a.obs[m * d.obs + o];
        f64::from(if d.normalize_obs { normalize(x, o, a.normalizer, clip) } else { x })
    });
    let Args { action, log_prob, value, advantage, returns, .. } = *a;
    (x.collect(), Records { action, log_prob, value, advantage, returns }.row(d.nets.policy, m))
}

/// Definition of what is minimised: the mean over the minibatch, as a function of the parameters. The gradient test
/// differentiates this numerically.
pub fn objective(d: &GradShape, a: &Args<'_>, params: &[f64]) -> f64 {
    let n = Numbers::new(d, a.hyper, a.schedule, a.moments, a.value_moments);
    let total: f64 = (d.start..d.start + d.len)
        .map(|i| {
            let (x, row) = row(d, a, i);
            let (out, value) = d.nets.define(params, &x);
            define_loss(d, n, &row, &out, value)
        })
        .sum();
    total / d.len as f64
}

/// The plain definition, row by row in f64.
fn define(d: &GradShape, a: Args<'_>) {
    let n = Numbers::new(d, a.hyper, a.schedule, a.moments, a.value_moments);
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    for tile in 0..d.tiles() {
        let mut grad = vec![0.0; d.nets.len()];
        let mut sums = [0.0; update::LOSSES];
        let begin = tile * d.tile_rows;
        for i in begin..(begin + d.tile_rows).min(d.len) {
            let (x, row) = row(d, &a, d.start + i);
            let (out, value) = d.nets.define(&params, &x);
            let (d_out, d_value) = define_slopes(d, n, &row, (&out, value), &mut grad, &mut sums);
            let mut backward = |net: &Mlp, at: usize, d_out: &[f64]| {
                let (params, grad) = (&params[at..], &mut grad[at..]);
                net.define_backward(params, &net.define_forward(params, &x), d_out, grad);
            };
            backward(&d.nets.actor, 0, &d_out);
            if let Some(critic) = &d.nets.critic {
                backward(critic, d.nets.actor_len(), &[d_value]);
            }
        }
        let to_f32 = |(to, from): (&mut f32, &f64)| *to = *from as f32;
        a.partial[tile * d.nets.len()..][..d.nets.len()].iter_mut().zip(&grad).for_each(to_f32);
        a.partial_loss[tile * update::LOSSES..][..update::LOSSES].iter_mut().zip(&sums).for_each(to_f32);
    }
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
    let mut nets = Packed::new(isa, &d.nets, a.params, &mut scratch);
    let (of_actor, of_critic) = partial.split_at_mut(d.nets.actor_len());
    let apart = cut(&mut scratch, Gradient::words(&d.nets.actor));
    let mut grad_actor = Gradient::new(&d.nets.actor, of_actor, apart);
    let mut grad_critic = d.nets.critic.as_ref().map(|net| {
        let apart = cut(&mut scratch, Gradient::words(net));
        Gradient::new(net, of_critic, apart)
    });
    let d_actor = cut(&mut scratch, ROWS * d.nets.actor.out_pad());
    let d_critic = cut(&mut scratch, ROWS * d.nets.critic.as_ref().map_or(0, |c| c.out_pad()));
    let x = cut(&mut scratch, ROWS * d.obs);
    let mut w = Work::new();
    let Tile { action, log_prob, value, advantage, returns, .. } = a;
    let records = Records { action, log_prob, value, advantage, returns };

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
            nets.policy_lanes(&d.nets, a.params, first, &mut w.out);
            w.value = nets.value_lanes(&d.nets, first);
            let index = &index[first..(first + LANES).min(rows)];
            w.judge(isa, d, n, records, index, first, d_actor, d_critic);
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
            grad_actor.sum(),
        );
        if let (Some(mlp), Some(critic), Some(grad)) = (&d.nets.critic, &nets.critic, &mut grad_critic) {
            backward(isa, mlp, critic.packed, (x, d.obs), rows, critic.acts, d_critic, scratch, grad.sum());
        }
        at += rows;
    }

    grad_actor.finish();
    if let Some(grad) = grad_critic {
        grad.finish();
    }
    w.finish(&d.nets, partial, partial_loss);
}
