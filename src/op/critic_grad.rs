//! Gradient of Soft Actor-Critic's two critics on a batch from the replay ring (Haarnoja et al. 2018; with discrete
//! actions Christodoulou 2019): targets, forward, losses, backward, net by net, so that one net's weights stay in cache
//! while all rows of a tile pass.

use super::hyper::{self, update};
use super::lib::activation::Activation;
use super::lib::bf16;
use super::lib::mlp::{Gradient, ROWS, backward, forward, pack, pack_forward};
use super::lib::nets::cut;
use super::lib::policy::Policy;
use super::lib::policy::{LANES, Lanes, OUTPUTS, log_sum_exp};
use super::lib::rng::Purpose;
use super::lib::simd::sum16;
use super::lib::soft::{self, Noise, Relaxed, Seen, SoftNets, Squashed, to_lanes};
use super::lib::trig;
use super::minibatch_grad::Distance;
use super::{Draw, Shape, schedule};
use crate::device::{Cx, Kernel, Kind, Limits, Precision, Shader};

/// What is fixed when a batch is recorded.
#[derive(Debug, Clone)]
pub struct CriticGradShape {
    pub nets: SoftNets,
    /// Rows of the replay ring, `R`.
    pub rows: usize,
    /// Samples that were drawn together, and which of them are this batch: `start..start + batch`.
    pub samples: usize,
    pub start: usize,
    pub batch: usize,
    /// Parameter groups of the session.
    pub groups: usize,
    /// Whether the entropy's weight is `exp(log_alpha)`; otherwise it is `schedule[ENTROPY_COEF]`.
    pub learned: bool,
    pub distance: Distance,
    /// Values and targets are compressed by `sign(x) ln(1 + |x|)` before they are compared.
    pub symlog: bool,
    pub normalize_obs: bool,
    /// Rows of a tile: [`soft::tile_rows`].
    pub tile_rows: usize,
}

impl CriticGradShape {
    /// Probabilities of actions that are kept for every row.
    fn kept(&self) -> usize {
        self.nets.choices().unwrap_or(0)
    }
}

impl CriticGradShape {
    /// Of the products of its nets.
    pub fn precision(&self) -> Precision {
        self.nets.actor.precision
    }
}

impl Shape for CriticGradShape {
    fn tiles(&self) -> usize {
        self.batch.div_ceil(self.tile_rows)
    }

    fn scratch_words(&self) -> usize {
        let (actor, critic) = (&self.nets.actor, &self.nets.critic);
        let either = |len: fn(&super::lib::mlp::Mlp) -> usize| len(actor).max(len(critic));
        let packed = either(|net| net.packed_len()) + either(|net| net.acts_len());
        let outs = ROWS * (either(|net| net.out_pad()) + critic.out_pad());
        packed
            + outs
            + Gradient::words(critic)
            + critic.slopes_len()
            + self.tile_rows * (critic.input + self.kept() + 3)
    }

    fn flops(&self) -> f64 {
        let (actor, critic) = (&self.nets.actor, &self.nets.critic);
        let first = critic.input * critic.hidden.first().unwrap_or(&critic.output);
        2.0 * self.batch as f64 * (actor.madds() + 2 * (4 * critic.madds() - first)) as f64
    }

    fn on(&self, kind: Kind) -> bool {
        kind == Kind::Cpu || self.precision() == Precision::F32
    }

    fn tolerance(&self, declared: f64) -> f64 {
        bf16::tolerance(self.precision(), declared)
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::critic_grad::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::critic_grad::scratch(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::critic_grad::shaders(self)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::critic_grad::scratch(self)
    }

    fn cases() -> Vec<CriticGradShape> {
        let base = |nets: SoftNets| CriticGradShape {
            nets,
            rows: 96,
            samples: 90,
            start: 5,
            batch: 71,
            groups: 4,
            learned: true,
            distance: Distance::Mse,
            symlog: false,
            normalize_obs: false,
            tile_rows: 128,
        };
        let mut all: Vec<CriticGradShape> = soft::all_nets().into_iter().map(base).collect();
        let changes: [fn(&mut CriticGradShape); 6] = [
            |d| d.learned = false,
            |d| d.distance = Distance::SmoothL1 { beta: 0.7 },
            |d| d.symlog = true,
            |d| d.normalize_obs = true,
            |d| (d.samples, d.start, d.batch, d.groups) = (1, 0, 1, 3),
            // several tiles, the last one ragged; of so many rows one would lie where rounding decides whether a ReLU is on
            |d| {
                (d.rows, d.samples, d.start, d.batch) = (33, 700, 13, 601);
                (d.nets.actor.activation, d.nets.critic.activation) = (Activation::Silu, Activation::Silu);
            },
        ];
        for change in changes {
            all.extend([0, 1].map(|nets| {
                let mut shape = base(soft::all_nets().swap_remove(nets));
                change(&mut shape);
                shape
            }));
        }
        let relaxed = base(soft::all_nets().swap_remove(10));
        let many = CriticGradShape { rows: 33, samples: 400, start: 13, batch: 301, learned: false, ..relaxed.clone() };
        all.extend([many, CriticGradShape { samples: 1, start: 0, batch: 1, ..relaxed }]);
        let half =
            |d: &CriticGradShape| CriticGradShape { nets: d.nets.clone().with_precision(Precision::Bf16), ..d.clone() };
        let halves: Vec<CriticGradShape> = all.iter().map(half).collect();
        all.extend(halves);
        all
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        let rare = |draw: &mut Draw, value: f32| if draw.below(4) == 0 { 0.0 } else { value };
        for word in &mut *words {
            *word = match (arg, self.nets.policy) {
                ("index" | "last", _) => draw.below(self.rows as u32),
                ("action", Policy::Categorical { n }) => (draw.below(n as u32) as f32).to_bits(),
                ("weight", _) if self.samples == 1 => draw.range(0.3, 0.99).to_bits(),
                // the row's episode terminated; the row does not count
                ("discount" | "weight", _) => {
                    let value = draw.range(0.3, 0.99);
                    rare(draw, value).to_bits()
                }
                _ => break,
            };
        }
        if arg == "hyper" {
            hyper::sample(words, draw);
        }
        matches!(arg, "index" | "last" | "discount" | "weight" | "hyper")
            || (arg == "action" && matches!(self.nets.policy, Policy::Categorical { .. }))
    }
}

crate::op! {
    /// Partial gradients and losses of both critics on one batch, and how far the smaller of the two values is from its
    /// target (SLM Lab's error for priorities). The target is `returns + discount * (Q' - alpha ln pi(a'))` with the
    /// smaller of the target critics' values at an action sampled at `next_obs`; with discrete actions that critics value
    /// all of, the expectation over them, and the mean of the two values (Zhou et al. 2022). The loss is the mean over the batch of
    /// `weight` times the sum of both distances; `partial_loss` has plain sums over rows, in the column of the value.
    CriticGrad(d: CriticGradShape) = "critic_grad", within 2e-5, run = run {
        // row of the ring with observation and action, and the one whose next observation is bootstrapped from
        read index: u32[d.samples];
        read last: u32[d.samples];
        // discounted reward up to there, discount from there on (0 where the episode terminated), weight of the loss
        read returns: f32[d.samples] in -3.0..3.0;
        read discount: f32[d.samples];
        read weight: f32[d.samples];
        read obs: f32[d.rows, d.nets.obs()] in -2.0..2.0;
        read next_obs: f32[d.rows, d.nets.obs()] in -2.0..2.0;
        read action: f32[d.rows, d.nets.policy.action_len()] in -1.0..1.0;
        read normalizer: f32[2, d.nets.obs()] in 0.5..1.5;
        read hyper: f32[hyper::len(d.groups)];
        read schedule: f32[schedule::LEN + d.groups] in 0.05..0.3;
        read seed: u32[2] in 0.0..1e6;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..1000.0;
        read params: f32[d.nets.len()] in -0.7..0.7;
        // of the target critics
        read target: f32[2, d.nets.critic.len()] in -0.7..0.7;
        write partial: f32[d.tiles(), 2, d.nets.critic.len()];
        write partial_loss: f32[d.tiles(), update::LOSSES];
        write error: f32[d.batch];
    }
}

fn symlog(x: f64) -> f64 {
    x.signum() * x.abs().ln_1p()
}

/// Definition: the loss of one critic's value on one row, and its slope.
fn define_loss(d: &CriticGradShape, value: f64, target: f64) -> (f64, f64) {
    let (e, slope) =
        if d.symlog { (symlog(value) - symlog(target), 1.0 / (1.0 + value.abs())) } else { (value - target, 1.0) };
    let (loss, d_error) = d.distance.define(e);
    (loss, d_error * slope)
}

/// Definition: the target of a row of the batch.
fn define_target(d: &CriticGradShape, a: &Args<'_>, params: &[f64], target: &[f64], row: usize) -> f64 {
    let (nets, i) = (&d.nets, d.start + row);
    let x = Seen::new(nets.obs(), d.normalize_obs, a.normalizer, a.hyper).define(a.next_obs, a.last[i]);
    let alpha = soft::define_alpha(d.learned, params[nets.log_alpha()], a.schedule);
    let out = nets.define_actor(params, &x);
    let values = |action: &[f64]| {
        let critic = |k| nets.define_critic(&target[k * nets.critic.len()..], &x, action);
        (critic(0), critic(1))
    };
    let next = match nets.choices() {
        None => {
            let drawn = nets.define_drawn(Noise::new(Purpose::NextAction, a.seed, a.clock), row);
            let (action, log_prob) = nets.define_sample(&out, &drawn);
            let (first, second) = values(&action);
            first[0].min(second[0]) - alpha * log_prob
        }
        Some(n) => {
            let (log_probs, (first, second)) = (soft::define_log_softmax(&out), values(&[]));
            (0..n).map(|j| log_probs[j].exp() * (0.5 * (first[j] + second[j]) - alpha * log_probs[j])).sum()
        }
    };
    f64::from(a.returns[i]) + f64::from(a.discount[i]) * next
}

/// What a critic sees of the stored action, and which output is that action's.
fn define_action(d: &CriticGradShape, a: &Args<'_>, m: u32) -> (Vec<f64>, usize) {
    let stored = &a.action[m as usize * d.nets.policy.action_len()..][..d.nets.policy.action_len()];
    let mut seen = vec![0.0; d.nets.seen_words()];
    d.nets.show(stored, &mut seen);
    (seen.into_iter().map(f64::from).collect(), if d.nets.choices().is_some() { stored[0] as usize } else { 0 })
}

/// Definition of what is minimised, as a function of both critics' parameters; targets do not move with them. The
/// gradient test differentiates this numerically.
pub fn objective(d: &CriticGradShape, a: &Args<'_>, critics: &[f64]) -> f64 {
    let wide = |words: &[f32]| -> Vec<f64> { words.iter().map(|&x| x.into()).collect() };
    let (params, target) = (wide(a.params), wide(a.target));
    let seen = Seen::new(d.nets.obs(), d.normalize_obs, a.normalizer, a.hyper);
    let loss = |row: usize| -> f64 {
        let (m, y) = (a.index[d.start + row], define_target(d, a, &params, &target, row));
        let (x, (action, output)) = (seen.define(a.obs, m), define_action(d, a, m));
        let value = |k: usize| d.nets.define_critic(&critics[k * d.nets.critic.len()..], &x, &action)[output];
        f64::from(a.weight[d.start + row]) * (0..2).map(|k| define_loss(d, value(k), y).0).sum::<f64>()
    };
    (0..d.batch).map(loss).sum::<f64>() / d.batch as f64
}

/// The plain definition, row by row in f64.
fn define(d: &CriticGradShape, a: Args<'_>) {
    let wide = |words: &[f32]| -> Vec<f64> { words.iter().map(|&x| x.into()).collect() };
    let (params, target, critic) = (wide(a.params), wide(a.target), &d.nets.critic);
    let seen = Seen::new(d.nets.obs(), d.normalize_obs, a.normalizer, a.hyper);
    for tile in 0..d.tiles() {
        let (mut grad, mut sum) = (vec![0.0; 2 * critic.len()], 0.0);
        for row in tile * d.tile_rows..((tile + 1) * d.tile_rows).min(d.batch) {
            let (m, weight) = (a.index[d.start + row], f64::from(a.weight[d.start + row]));
            let y = define_target(d, &a, &params, &target, row);
            let (mut x, (action, output)) = (seen.define(a.obs, m), define_action(d, &a, m));
            x.extend(action);
            let mut smaller = f64::INFINITY;
            for k in 0..2 {
                let params = &params[d.nets.critic_at(k)..];
                let acts = critic.define_forward(params, &x);
                let value = acts.0.last().expect("a net has an output layer")[output];
                let (loss, slope) = define_loss(d, value, y);
                let mut d_out = vec![0.0; critic.output];
                d_out[output] = weight * slope / d.batch as f64;
                critic.define_backward(params, &acts, &d_out, &mut grad[k * critic.len()..]);
                sum += weight * loss;
                smaller = smaller.min(value);
            }
            a.error[row] = (smaller - y).abs() as f32;
        }
        let partial = &mut a.partial[tile * grad.len()..][..grad.len()];
        partial.iter_mut().zip(&grad).for_each(|(to, from)| *to = *from as f32);
        let losses = &mut a.partial_loss[tile * update::LOSSES..][..update::LOSSES];
        losses.fill(0.0);
        losses[update::VALUE] = sum as f32;
    }
}

fn run(d: &CriticGradShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (isa, tile, nets) = (cx.isa, cx.tile, &d.nets);
    let (actor, critic, width) = (&nets.actor, &nets.critic, nets.critic.input);
    let begin = tile * d.tile_rows;
    let rows = d.tile_rows.min(d.batch - begin);
    let samples = d.start + begin..d.start + begin + rows;
    let blocks = || (0..rows).step_by(ROWS).map(|at| (at, ROWS.min(rows - at)));
    // SAFETY: every tile has its own part of each output
    let (partial, partial_loss, error) = unsafe {
        (
            a.partial.part(tile * 2 * critic.len()..(tile + 1) * 2 * critic.len()),
            a.partial_loss.part(tile * update::LOSSES..(tile + 1) * update::LOSSES),
            a.error.part(begin..begin + rows),
        )
    };
    let seen = Seen::new(nets.obs(), d.normalize_obs, a.normalizer, a.hyper);
    let alpha = soft::alpha(d.learned, a.params[nets.log_alpha()], a.schedule);
    let noise = Noise::new(Purpose::NextAction, a.seed, a.clock);

    let mut scratch = &mut *cx.scratch;
    let packed = cut(&mut scratch, actor.packed_len().max(critic.packed_len()));
    let acts = cut(&mut scratch, actor.acts_len().max(critic.acts_len()));
    let out = cut(&mut scratch, ROWS * actor.out_pad().max(critic.out_pad()));
    let d_out = cut(&mut scratch, ROWS * critic.out_pad());
    let apart = cut(&mut scratch, Gradient::words(critic));
    let slopes = cut(&mut scratch, critic.slopes_len());
    let x = cut(&mut scratch, d.tile_rows * width);
    let probs = cut(&mut scratch, d.tile_rows * d.kept()).as_chunks_mut::<LANES>().0;
    let mut lanes = || cut(&mut scratch, d.tile_rows).as_chunks_mut::<LANES>().0;
    let (value, bonus, first) = (lanes(), lanes(), lanes());
    // lanes without a row stay finite
    out.fill(0.0);
    value.fill([0.0; LANES]);
    let mut w = Work { out: [[0.0; LANES]; OUTPUTS], next: Squashed::new(), choice: Relaxed::new() };
    let (n, words) = (d.kept(), nets.seen_words());

    // what the actor does at the next observations
    seen.rows(a.next_obs, &a.last[samples.clone()], x, width);
    pack_forward(isa, actor, &a.params[..actor.len()], packed);
    for (at, rows) in blocks() {
        forward(isa, actor, packed, (&x[at * width..], width), rows, acts, out);
        for row in (at..at + rows).step_by(LANES) {
            let g = row / LANES;
            to_lanes(out, actor.out_pad(), row - at, &mut w.out[..actor.output]);
            if nets.choices().is_some() {
                choose(isa, alpha, &w.out[..n], &mut probs[g * n..(g + 1) * n], &mut bonus[g]);
            } else {
                let action: &[Lanes] = if nets.relaxed() {
                    pick(isa, words, alpha, begin + row, noise, &mut w, &mut bonus[g]);
                    &w.choice.action
                } else {
                    act(isa, words, alpha, begin + row, noise, &mut w, &mut bonus[g]);
                    &w.next.action
                };
                for (i, x) in x[row * width..].chunks_exact_mut(width).take(LANES.min(at + rows - row)).enumerate() {
                    x[width - words..].iter_mut().zip(action).for_each(|(x, action)| *x = action[i]);
                }
            }
        }
    }

    // what the target critics say to that
    for (k, params) in a.target.chunks_exact(critic.len()).enumerate() {
        pack_forward(isa, critic, params, packed);
        for (at, rows) in blocks() {
            forward(isa, critic, packed, (&x[at * width..], width), rows, acts, out);
            for row in (at..at + rows).step_by(LANES) {
                let g = row / LANES;
                to_lanes(out, critic.out_pad(), row - at, &mut w.out[..critic.output]);
                if nets.choices().is_some() {
                    expect(isa, &w.out[..n], &probs[g * n..(g + 1) * n], &mut value[g]);
                } else if k == 0 {
                    value[g] = w.out[0];
                } else {
                    value[g] = std::array::from_fn(|i| value[g][i].min(w.out[0][i]));
                }
            }
        }
    }
    let target = value;
    for (row, i) in samples.clone().enumerate() {
        let (g, lane) = (row / LANES, row % LANES);
        target[g][lane] = a.returns[i] + a.discount[i] * (target[g][lane] - bonus[g][lane]);
    }

    // both critics at what was done
    let index = &a.index[samples.clone()];
    seen.rows(a.obs, index, x, width);
    if nets.choices().is_none() {
        for (x, &m) in x.chunks_exact_mut(width).zip(index) {
            let stored = nets.policy.action_len();
            nets.show(&a.action[m as usize * stored..][..stored], &mut x[width - words..]);
        }
    }
    let output = |row: usize| if n == 0 { 0 } else { a.action[index[row] as usize] as usize };
    let mut sum = [0.0; LANES];
    for (k, partial) in partial.chunks_exact_mut(critic.len()).enumerate() {
        let pad = critic.out_pad();
        pack(isa, critic, &a.params[nets.critic_at(k)..][..critic.len()], packed);
        let mut grad = Gradient::new(critic, partial, apart);
        for (at, rows) in blocks() {
            let x = (&x[at * width..], width);
            forward(isa, critic, packed, x, rows, acts, out);
            d_out.fill(0.0);
            for row in (at..at + rows).step_by(LANES) {
                let (g, live) = (row / LANES, LANES.min(at + rows - row));
                let (mut q, mut weight, mut slope) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
                for i in 0..live {
                    q[i] = out[(row - at + i) * pad + output(row + i)];
                    weight[i] = a.weight[samples.start + row + i];
                }
                losses(isa, d, &q, &target[g], &weight, &mut sum, &mut slope);
                for i in 0..live {
                    d_out[(row - at + i) * pad + output(row + i)] = slope[i];
                    if k == 1 {
                        error[row + i] = (first[g][i].min(q[i]) - target[g][i]).abs();
                    }
                }
                if k == 0 {
                    first[g] = q;
                }
            }
            backward(isa, critic, packed, x, rows, acts, d_out, slopes, grad.sum());
        }
        grad.finish();
    }
    partial_loss.fill(0.0);
    partial_loss[update::VALUE] = sum16(&sum);
}

/// Outputs of a net for 16 rows, and what the actor does there.
struct Work {
    out: [Lanes; OUTPUTS],
    next: Squashed,
    choice: Relaxed,
}

crate::per_isa! {
    /// Samples the next actions of 16 rows; `bonus` is `alpha ln pi`.
    fn act(words: usize, alpha: f32, row: usize, noise: Noise, w: &mut Work, bonus: &mut Lanes) {
        w.next.sample(words, &w.out, row, noise);
        for i in 0..LANES {
            bonus[i] = alpha * w.next.log_prob[i];
        }
    }

    /// The same with discrete actions.
    fn pick(n: usize, alpha: f32, row: usize, noise: Noise, w: &mut Work, bonus: &mut Lanes) {
        w.choice.sample(n, &w.out, row, noise);
        for i in 0..LANES {
            bonus[i] = alpha * w.choice.log_prob[i];
        }
    }

    /// Probabilities of all next actions of 16 rows; `bonus` is the mean of `alpha ln pi`.
    fn choose(alpha: f32, out: &[Lanes], probs: &mut [Lanes], bonus: &mut Lanes) {
        let (top, ln_sum) = log_sum_exp(out);
        let mut mean = [0.0; LANES];
        for (x, p) in out.iter().zip(probs) {
            for i in 0..LANES {
                let log_p = x[i] - top[i] - ln_sum[i];
                p[i] = trig::exp(log_p);
                mean[i] += p[i] * log_p;
            }
        }
        for i in 0..LANES {
            bonus[i] = alpha * mean[i];
        }
    }

    /// Adds half a critic's mean value over all actions.
    fn expect(out: &[Lanes], probs: &[Lanes], value: &mut Lanes) {
        for (q, p) in out.iter().zip(probs) {
            for i in 0..LANES {
                value[i] += 0.5 * p[i] * q[i];
            }
        }
    }

    /// Adds the losses of one critic on 16 rows, and gives their slopes at its values.
    fn losses(
        d: &CriticGradShape,
        q: &Lanes,
        target: &Lanes,
        weight: &Lanes,
        sum: &mut Lanes,
        slope: &mut Lanes,
    ) {
        let share = 1.0 / d.batch as f32;
        let symlog = |x: f32| trig::ln(1.0 + x.abs()).copysign(x);
        for i in 0..LANES {
            let (e, inner) = if d.symlog {
                (symlog(q[i]) - symlog(target[i]), 1.0 / (1.0 + q[i].abs()))
            } else {
                (q[i] - target[i], 1.0)
            };
            let (loss, outer) = d.distance.of(e);
            sum[i] += weight[i] * loss;
            slope[i] = outer * inner * weight[i] * share;
        }
    }
}
