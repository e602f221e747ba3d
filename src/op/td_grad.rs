//! Gradient of one batch of temporal-difference errors of a Q net: gather, forward at both ends of each transition, loss,
//! backward. SARSA (Rummery & Niranjan 1994), Q-learning with one net, with a target net (Mnih et al. 2015), double
//! (van Hasselt et al. 2016), each with a plain or a dueling head (Wang et al. 2016).

use super::hyper::{self, update};
use super::lib::bf16;
use super::lib::mlp::{Gradient, Mlp, ROWS, backward, forward};
use super::lib::nets::{PackedNet, cut, normalize};
use super::lib::policy::{LANES, Lanes, OUTPUTS};
use super::lib::simd::sum16;
use super::minibatch_grad::Distance;
use super::{Draw, Shape};
use crate::device::{Cx, Kernel, Kind, Limits, Precision, Shader};

/// What the value of the next state is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backup {
    /// The value, by the net itself, of the action that was taken next.
    Sarsa,
    /// The largest value by the net itself.
    Own,
    /// The largest value by the target net.
    Target,
    /// The target net's value of the action that the net itself likes best.
    Double,
}

/// Sizes and choices of [`TdGrad`].
#[derive(Debug, Clone)]
pub struct TdShape {
    /// One output per action; a dueling net has the state's value as one more.
    pub net: Mlp,
    pub actions: usize,
    pub dueling: bool,
    /// Rows of the ring and environments.
    pub rows: usize,
    pub envs: usize,
    /// Rows of this batch: `batch` of the `samples` that were drawn, from `start` on.
    pub samples: usize,
    pub start: usize,
    pub batch: usize,
    pub backup: Backup,
    pub distance: Distance,
    pub normalize_obs: bool,
    /// Rows of a tile: [`tile_rows`].
    pub tile_rows: usize,
}

/// Rows of a tile on the cpu: below this, packing the parameters again would cost more than a second thread brings.
const TILE_ROWS: usize = 256;

/// Rows of a tile of a batch: each kind of device cuts as its cores like it.
pub fn tile_rows(kind: Kind, net: &Mlp, batch: usize) -> usize {
    match kind {
        Kind::Cuda => super::gpu::td_grad::tile_rows(net, batch),
        Kind::Cpu | Kind::Wgpu => batch.next_multiple_of(ROWS).min(TILE_ROWS),
    }
}

impl TdShape {
    fn obs(&self) -> usize {
        self.net.input
    }

    /// Parameters of the target net that the backup asks.
    fn target(&self) -> usize {
        if matches!(self.backup, Backup::Target | Backup::Double) { self.net.len() } else { 0 }
    }

    /// Whether the net itself looks at the next state.
    fn asks_itself(&self) -> bool {
        self.backup != Backup::Target
    }
}

impl TdShape {
    /// Of the products of its nets.
    pub fn precision(&self) -> Precision {
        self.net.precision
    }
}

impl Shape for TdShape {
    fn tiles(&self) -> usize {
        self.batch.div_ceil(self.tile_rows)
    }

    fn scratch_words(&self) -> usize {
        let nets = if self.target() > 0 { 2 } else { 1 };
        nets * PackedNet::words(&self.net)
            + Gradient::words(&self.net)
            + self.net.slopes_len()
            + ROWS * (self.net.out_pad() + self.obs())
    }

    fn flops(&self) -> f64 {
        let ahead = 1 + usize::from(self.target() > 0) + usize::from(self.asks_itself());
        let first = self.net.input * self.net.hidden.first().unwrap_or(&self.net.output);
        2.0 * self.batch as f64 * ((ahead + 2) * self.net.madds() - first) as f64
    }

    fn on(&self, kind: Kind) -> bool {
        kind == Kind::Cpu || self.precision() == Precision::F32
    }

    fn tolerance(&self, declared: f64) -> f64 {
        bf16::tolerance(self.precision(), declared)
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::td_grad::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::td_grad::device_scratch(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::td_grad::shaders(self)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::td_grad::scratch(self)
    }

    fn cases() -> Vec<TdShape> {
        super::lib::cases::td_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "hyper" => hyper::sample(words, draw),
            "index" | "last" => words.iter_mut().for_each(|word| *word = draw.below(self.rows as u32)),
            "action" => words.iter_mut().for_each(|word| *word = (draw.below(self.actions as u32) as f32).to_bits()),
            // a row in four is left out, one has terminated
            "weight" | "discount" => words.iter_mut().for_each(|word| {
                *word = if draw.below(4) == 0 { 0.0 } else { draw.range(0.2, 1.0) }.to_bits();
            }),
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Partial gradients and losses of one batch, and the size of every row's error. The loss is the mean over the batch
    /// of `weight * distance(Q(s, a) - y)`, `y = returns + discount * V(s')`; the target holds no gradient.
    TdGrad(d: TdShape) = "td_grad", within 2e-5, run = run {
        read index: u32[d.samples];
        read last: u32[d.samples];
        read returns: f32[d.samples] in -2.0..2.0;
        read discount: f32[d.samples];
        read weight: f32[d.samples];
        read obs: f32[d.rows, d.obs()] in -2.0..2.0;
        read next_obs: f32[d.rows, d.obs()] in -2.0..2.0;
        read action: f32[d.rows];
        read normalizer: f32[2, d.obs()] in 0.5..1.5;
        read hyper: f32[hyper::len(1)];
        read params: f32[d.net.len()] in -0.7..0.7;
        read target: f32[d.target()] in -0.7..0.7;
        write partial: f32[d.tiles(), d.net.len()];
        write partial_loss: f32[d.tiles(), update::LOSSES];
        write error: f32[d.batch];
    }
}

/// Definition: values of the actions from the outputs of a net.
pub(super) fn define_values(d: &TdShape, out: &[f64]) -> Vec<f64> {
    let advantages = &out[..d.actions];
    let mean = advantages.iter().sum::<f64>() / d.actions as f64;
    advantages.iter().map(|a| if d.dueling { out[d.actions] + a - mean } else { *a }).collect()
}

/// Definition: what the next state is worth, by the action values of the net itself and of the target net there.
pub(super) fn define_value(
    d: &TdShape,
    own: impl Fn() -> Vec<f64>,
    target: impl Fn() -> Vec<f64>,
    next_action: impl Fn() -> usize,
) -> f64 {
    let best = |values: &[f64]| (1..d.actions).fold(0, |best, j| if values[j] > values[best] { j } else { best });
    match d.backup {
        Backup::Sarsa => own()[next_action()],
        Backup::Own => own().into_iter().fold(f64::NEG_INFINITY, f64::max),
        Backup::Target => target().into_iter().fold(f64::NEG_INFINITY, f64::max),
        Backup::Double => target()[best(&own())],
    }
}

/// Definition: the slopes at the outputs, given the slope at the value of the `chosen` action.
pub(super) fn define_slopes(d: &TdShape, chosen: usize, slope: f64) -> Vec<f64> {
    let share = if d.dueling { 1.0 / d.actions as f64 } else { 0.0 };
    let of_action = |j| slope * (f64::from(u8::from(j == chosen)) - share);
    (0..d.actions).map(of_action).chain(d.dueling.then_some(slope)).collect()
}

/// Definition: an observation as the net sees it.
pub(super) fn see(d: &TdShape, obs: &[f32], normalizer: &[f32], hyper: &[f32]) -> Vec<f64> {
    let clip = (hyper[hyper::OBS_CLIP_LOW], hyper[hyper::OBS_CLIP_HIGH]);
    let seen = |(o, &x): (usize, &f32)| if d.normalize_obs { normalize(x, o, normalizer, clip) } else { x };
    obs.iter().enumerate().map(|x| seen(x).into()).collect()
}

/// Activations and slopes of one row, by layer.
type Passed = (Vec<Vec<f64>>, Vec<Vec<f64>>);

/// Definition: the error of sample `i` by a net's parameters, and what the net's forward pass left behind.
fn define_error(d: &TdShape, a: &Args<'_>, params: &[f64], i: usize) -> (f64, Passed) {
    let (row, last, o) = (a.index[i] as usize, a.last[i] as usize, d.obs());
    let own: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let target: Vec<f64> = a.target.iter().map(|&p| p.into()).collect();
    let next = see(d, &a.next_obs[last * o..][..o], a.normalizer, a.hyper);
    let values = |params: &[f64]| {
        let out = d.net.define_forward(params, &next).0.pop().expect("a net has an output layer");
        define_values(d, &out)
    };
    let next_action = || a.action[(last + d.envs) % d.rows] as usize;
    let value = define_value(d, || values(&own), || values(&target), next_action);
    let y = f64::from(a.returns[i]) + f64::from(a.discount[i]) * value;
    let passed = d.net.define_forward(params, &see(d, &a.obs[row * o..][..o], a.normalizer, a.hyper));
    let out = passed.0.last().expect("a net has an output layer");
    (define_values(d, out)[a.action[row] as usize] - y, passed)
}

/// Definition of what is minimised, as a function of the parameters; those of the target stay. The gradient test
/// differentiates this numerically.
pub fn objective(d: &TdShape, a: &Args<'_>, params: &[f64]) -> f64 {
    let loss = |i: usize| f64::from(a.weight[i]) * d.distance.define(define_error(d, a, params, i).0).0;
    (d.start..d.start + d.batch).map(loss).sum::<f64>() / d.batch as f64
}

/// The plain definition, row by row in f64.
fn define(d: &TdShape, a: Args<'_>) {
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    for tile in 0..d.tiles() {
        let mut grad = vec![0.0; d.net.len()];
        let mut sum = 0.0;
        for b in tile * d.tile_rows..((tile + 1) * d.tile_rows).min(d.batch) {
            let i = d.start + b;
            let (error, passed) = define_error(d, &a, &params, i);
            let (loss, slope) = d.distance.define(error);
            let weight = f64::from(a.weight[i]);
            a.error[b] = error.abs() as f32;
            sum += weight * loss;
            let slope = weight * slope / d.batch as f64;
            let chosen = a.action[a.index[i] as usize] as usize;
            let d_out = define_slopes(d, chosen, slope);
            d.net.define_backward(&params, &passed, &d_out, &mut grad);
        }
        let partial = &mut a.partial[tile * d.net.len()..][..d.net.len()];
        partial.iter_mut().zip(&grad).for_each(|(to, from)| *to = *from as f32);
        let losses = &mut a.partial_loss[tile * update::LOSSES..][..update::LOSSES];
        losses.fill(0.0);
        losses[update::VALUE] = sum as f32;
    }
}

/// 16 rows, one per lane.
pub(super) struct Work {
    /// Values by the net itself and by the target net, of one end of a transition.
    pub own: [Lanes; OUTPUTS],
    pub other: [Lanes; OUTPUTS],
    pub d_out: [Lanes; OUTPUTS],
    pub action: Lanes,
    next_action: Lanes,
    pub returns: Lanes,
    pub discount: Lanes,
    pub weight: Lanes,
    /// What the next state is worth.
    value: Lanes,
    pub error: Lanes,
    pub loss: Lanes,
}

impl Work {
    pub fn new() -> Work {
        let (none, zero) = ([[0.0; LANES]; OUTPUTS], [0.0; LANES]);
        Work {
            own: none,
            other: none,
            d_out: none,
            action: zero,
            next_action: zero,
            returns: zero,
            discount: zero,
            weight: zero,
            value: zero,
            error: zero,
            loss: zero,
        }
    }
}

fn run(d: &TdShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (isa, tile, p, o) = (cx.isa, cx.tile, d.net.len(), d.obs());
    // SAFETY: every tile has its own rows of the outputs, here and below
    let (partial, partial_loss) = unsafe {
        (
            a.partial.part(tile * p..(tile + 1) * p),
            a.partial_loss.part(tile * update::LOSSES..(tile + 1) * update::LOSSES),
        )
    };
    let mut scratch = &mut *cx.scratch;
    let net = PackedNet::new(isa, &d.net, a.params, &mut scratch);
    let mut target = (d.target() > 0).then(|| PackedNet::ahead(isa, &d.net, a.target, &mut scratch));
    let apart = cut(&mut scratch, Gradient::words(&d.net));
    let mut grad = Gradient::new(&d.net, partial, apart);
    let d_out = cut(&mut scratch, ROWS * d.net.out_pad());
    let x = cut(&mut scratch, ROWS * o);
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    let gather = |obs: &[f32], index: &[u32], x: &mut [f32]| {
        for (x, &m) in x.chunks_exact_mut(o).zip(index) {
            x.copy_from_slice(&obs[m as usize * o..][..o]);
            if d.normalize_obs {
                x.iter_mut().enumerate().for_each(|(o, x)| *x = normalize(*x, o, a.normalizer, clip));
            }
        }
    };
    let (mut w, zero) = (Work::new(), [0.0; LANES]);
    let mut values = [zero; ROWS / LANES];

    let end = ((tile + 1) * d.tile_rows).min(d.batch);
    for first in (tile * d.tile_rows..end).step_by(ROWS) {
        let rows = ROWS.min(end - first);
        let samples = d.start + first..d.start + first + rows;
        let (index, last) = (&a.index[samples.clone()], &a.last[samples.clone()]);
        gather(a.next_obs, last, x);
        // the next states first, for the activations of the others are needed on the way back
        if d.asks_itself() {
            forward(isa, &d.net, net.packed, (x, o), rows, net.acts, net.out);
        }
        if let Some(target) = &mut target {
            forward(isa, &d.net, target.packed, (x, o), rows, target.acts, target.out);
        }
        for (block, value) in values[..rows.div_ceil(LANES)].iter_mut().enumerate() {
            let row = block * LANES;
            for j in 0..d.net.output {
                w.own[j] = net.lanes(&d.net, row, j);
                w.other[j] = target.as_ref().map_or(zero, |target| target.lanes(&d.net, row, j));
            }
            for (i, &last) in last[row..].iter().take(LANES).enumerate() {
                w.next_action[i] = a.action[(last as usize + d.envs) % d.rows];
            }
            next_value(isa, d, &mut w);
            *value = w.value;
        }

        gather(a.obs, index, x);
        forward(isa, &d.net, net.packed, (x, o), rows, net.acts, net.out);
        for (block, value) in values[..rows.div_ceil(LANES)].iter().enumerate() {
            let row = block * LANES;
            w.weight = zero;
            for (i, sample) in samples.clone().skip(row).take(LANES).enumerate() {
                w.action[i] = a.action[a.index[sample] as usize];
                w.returns[i] = a.returns[sample];
                w.discount[i] = a.discount[sample];
                w.weight[i] = a.weight[sample];
            }
            for j in 0..d.net.output {
                w.own[j] = net.lanes(&d.net, row, j);
            }
            w.value = *value;
            losses(isa, d, &mut w);
            let pad = d.net.out_pad();
            for i in 0..LANES {
                for j in 0..d.net.output {
                    d_out[(row + i) * pad + j] = w.d_out[j][i];
                }
            }
            let lanes = LANES.min(rows - row);
            // SAFETY: as above
            unsafe { a.error.part(first + row..first + row + lanes) }.copy_from_slice(&w.error[..lanes]);
        }
        backward(isa, &d.net, net.packed, (x, o), rows, net.acts, d_out, scratch, grad.sum());
    }
    grad.finish();
    partial_loss.fill(0.0);
    partial_loss[update::VALUE] = sum16(&w.loss);
}

/// Values of the actions, in place, of a net's outputs.
#[inline(always)]
fn to_values(d: &TdShape, out: &mut [Lanes; OUTPUTS]) {
    if !d.dueling {
        return;
    }
    let share = 1.0 / d.actions as f32;
    for i in 0..LANES {
        let mean = out[..d.actions].iter().map(|a| a[i]).sum::<f32>() * share;
        let state = out[d.actions][i];
        out[..d.actions].iter_mut().for_each(|a| a[i] = state + a[i] - mean);
    }
}

crate::per_isa! {
    /// What the next states of 16 rows are worth.
    pub(super) fn next_value(d: &TdShape, w: &mut Work) {
        to_values(d, &mut w.own);
        to_values(d, &mut w.other);
        let (by, of) = match d.backup {
            Backup::Sarsa | Backup::Own => (&w.own, &w.own),
            Backup::Target => (&w.other, &w.other),
            Backup::Double => (&w.own, &w.other),
        };
        let (mut most, mut value) = (by[0], of[0]);
        for j in 1..d.actions {
            for i in 0..LANES {
                let better =
                    if d.backup == Backup::Sarsa { w.next_action[i] == j as f32 } else { by[j][i] > most[i] };
                most[i] = if better { by[j][i] } else { most[i] };
                value[i] = if better { of[j][i] } else { value[i] };
            }
        }
        w.value = value;
    }

    /// Errors and losses of 16 rows, and their slopes at the outputs. Lanes without a row have weight 0.
    pub(super) fn losses(d: &TdShape, w: &mut Work) {
        to_values(d, &mut w.own);
        let inv_batch = 1.0 / d.batch as f32;
        let share = if d.dueling { 1.0 / d.actions as f32 } else { 0.0 };
        let mut slope = [0.0; LANES];
        for i in 0..LANES {
            let mut q = w.own[0][i];
            for j in 1..d.actions {
                q = if w.action[i] == j as f32 { w.own[j][i] } else { q };
            }
            let error = q - (w.returns[i] + w.discount[i] * w.value[i]);
            let (loss, d_error) = d.distance.of(error);
            w.error[i] = error.abs();
            w.loss[i] += w.weight[i] * loss;
            slope[i] = w.weight[i] * d_error * inv_batch;
        }
        for j in 0..d.actions {
            for i in 0..LANES {
                let chosen = if w.action[i] == j as f32 { 1.0 } else { 0.0 };
                w.d_out[j][i] = slope[i] * (chosen - share);
            }
        }
        if d.dueling {
            w.d_out[d.actions] = slope;
        }
    }
}
