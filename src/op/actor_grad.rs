//! Gradient of Soft Actor-Critic's actor and of its entropy weight on a batch from the replay ring (Haarnoja et al. 2018;
//! with discrete actions Christodoulou 2019): the actor forward, both critics forward and back to the action, then the
//! actor back, net by net, so that one net's weights stay in cache while all rows of a tile pass.

use super::hyper::{self, update};
use super::lib::bf16;
use super::lib::input_grad::{backward_input, define_input_slopes, first_column, input_row};
use super::lib::mlp::{Gradient, ROWS, backward, forward, pack, pack_forward};
use super::lib::nets::cut;
use super::lib::policy::{LANES, LOG_STD, Lanes, OUTPUTS, Policy, log_sum_exp};
use super::lib::rng::Purpose;
use super::lib::simd::sum16;
use super::lib::soft::{self, Noise, Relaxed, Seen, SoftNets, Squashed, WORDS, to_lanes};
use super::lib::trig;
use super::{Draw, Shape, schedule};
use crate::device::{Cx, Kernel, Kind, Limits, Precision, Shader};

/// What is fixed when a batch is recorded.
#[derive(Debug, Clone)]
pub struct ActorGradShape {
    pub nets: SoftNets,
    /// All parameters of the session; the actor's and `log_alpha` come first.
    pub params: usize,
    /// Whether the critics are those of `target`; otherwise they lie in the parameters, behind `log_alpha`.
    pub folded: bool,
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
    pub normalize_obs: bool,
    /// Rows of a tile: [`soft::tile_rows`].
    pub tile_rows: usize,
}

impl ActorGradShape {
    /// Parameters with a gradient: the actor's and `log_alpha`.
    pub fn moved(&self) -> usize {
        self.nets.log_alpha() + 1
    }

    /// Values that are kept for every row: of all actions, or of one from each critic with its slope in every word.
    fn kept(&self) -> usize {
        self.nets.choices().unwrap_or(2 * (1 + self.nets.seen_words()))
    }

    /// Words of a row of slopes at the critics' inputs.
    fn slope_row(&self) -> usize {
        if self.nets.choices().is_some() { 0 } else { input_row(&self.nets.critic, self.nets.obs()) }
    }
}

impl ActorGradShape {
    /// Of the products of its nets.
    pub fn precision(&self) -> Precision {
        self.nets.actor.precision
    }
}

impl Shape for ActorGradShape {
    fn tiles(&self) -> usize {
        self.batch.div_ceil(self.tile_rows)
    }

    fn scratch_words(&self) -> usize {
        let (actor, critic) = (&self.nets.actor, &self.nets.critic);
        let blocks = self.tile_rows.div_ceil(ROWS);
        let of_actor = actor.packed_len() + Gradient::words(actor) + blocks * actor.acts_len();
        let outs = (self.tile_rows + ROWS) * actor.out_pad();
        let of_critic = critic.packed_len() + critic.acts_len() + ROWS * (2 * critic.out_pad() + self.slope_row());
        let rows = self.tile_rows * (critic.input + self.kept());
        of_actor + outs + of_critic + rows + actor.slopes_len().max(critic.slopes_len())
    }

    fn flops(&self) -> f64 {
        let (actor, critic) = (&self.nets.actor, &self.nets.critic);
        let first = actor.input * actor.hidden.first().unwrap_or(&actor.output);
        let judge = if self.nets.choices().is_some() { critic.madds() } else { 2 * critic.madds() };
        2.0 * self.batch as f64 * (3 * actor.madds() - first + 2 * judge) as f64
    }

    fn on(&self, kind: Kind) -> bool {
        kind == Kind::Cpu || self.precision() == Precision::F32
    }

    fn tolerance(&self, declared: f64) -> f64 {
        bf16::tolerance(self.precision(), declared)
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::actor_grad::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::actor_grad::scratch(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::actor_grad::shaders(self)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::actor_grad::scratch(self)
    }

    fn cases() -> Vec<ActorGradShape> {
        let base = |nets: SoftNets| ActorGradShape {
            params: nets.len(),
            nets,
            folded: false,
            rows: 96,
            samples: 90,
            start: 5,
            batch: 71,
            groups: 4,
            learned: true,
            normalize_obs: false,
            tile_rows: 128,
        };
        let mut all: Vec<ActorGradShape> = soft::all_nets().into_iter().map(base).collect();
        let changes: [fn(&mut ActorGradShape); 5] = [
            |d| d.learned = false,
            |d| d.normalize_obs = true,
            // critics of another size in the parameters
            |d| (d.folded, d.params) = (true, d.nets.len() + 7),
            |d| (d.samples, d.start, d.batch, d.groups) = (1, 0, 1, 3),
            // several tiles, the last one ragged
            |d| (d.rows, d.samples, d.start, d.batch) = (33, 700, 13, 601),
        ];
        for change in changes {
            all.extend([0, 1].map(|nets| {
                let mut shape = base(soft::all_nets().swap_remove(nets));
                change(&mut shape);
                shape
            }));
        }
        let relaxed = base(soft::all_nets().swap_remove(10));
        let many = ActorGradShape { rows: 33, samples: 400, start: 13, batch: 301, learned: false, ..relaxed.clone() };
        all.extend([many, ActorGradShape { folded: true, params: relaxed.params + 7, ..relaxed }]);
        let half =
            |d: &ActorGradShape| ActorGradShape { nets: d.nets.clone().with_precision(Precision::Bf16), ..d.clone() };
        let halves: Vec<ActorGradShape> = all.iter().map(half).collect();
        all.extend(halves);
        all
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "index" => words.iter_mut().for_each(|word| *word = draw.below(self.rows as u32)),
            "hyper" => hyper::sample(words, draw),
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Partial gradients of the actor and of `log_alpha` on the observations of one batch. The actor's loss is the mean of
    /// `alpha ln pi(a) - Q(a)` with the smaller of the two critics' values at an action sampled with a gradient; with
    /// discrete actions that critics value all of, the expectation over them, and the mean of the two values (Zhou et al.
    /// 2022). Of discrete actions that are sampled `ln pi` is the mean over all, and the gradient of `Q` that of the
    /// Gumbel-softmax at temperature 1 along the critic's slope at the action itself (straight-through). The loss of
    /// `log_alpha` is the mean of `-exp(log_alpha) (ln pi(a) + target entropy)`, whose gradient is 0 where it is not
    /// learnt. `partial_loss` has plain sums over rows: the actor's loss in the column of the policy, `-ln pi` in that of
    /// the entropy.
    ActorGrad(d: ActorGradShape) = "actor_grad", within 2e-5, run = run {
        read index: u32[d.samples];
        read obs: f32[d.rows, d.nets.obs()] in -2.0..2.0;
        read normalizer: f32[2, d.nets.obs()] in 0.5..1.5;
        read hyper: f32[hyper::len(d.groups)];
        read schedule: f32[schedule::LEN + d.groups] in 0.05..0.3;
        read seed: u32[2] in 0.0..1e6;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..1000.0;
        read params: f32[d.params] in -0.7..0.7;
        // critics that are not those of the parameters
        read target: f32[2, d.nets.critic.len()] in -0.7..0.7;
        write partial: f32[d.tiles(), d.moved()];
        write partial_loss: f32[d.tiles(), update::LOSSES];
    }
}

/// Where the critics' parameters are.
fn critics<'a>(d: &ActorGradShape, params: &'a [f32], target: &'a [f32]) -> &'a [f32] {
    if d.folded { target } else { &params[d.nets.critic_at(0)..d.nets.critic_at(2)] }
}

fn wide(words: &[f32]) -> Vec<f64> {
    words.iter().map(|&x| x.into()).collect()
}

/// Definition: the critic with the smaller value at an action, and that value.
fn define_smaller(d: &ActorGradShape, critics: &[f64], x: &[f64], action: &[f64]) -> (usize, f64) {
    let [first, second] = [0, 1].map(|k| d.nets.define_critic(&critics[k * d.nets.critic.len()..], x, action)[0]);
    if first <= second { (0, first) } else { (1, second) }
}

/// Definition: slopes of that value at the action.
fn define_ask(d: &ActorGradShape, critics: &[f64], x: &[f64], action: &[f64]) -> Vec<f64> {
    let (net, (k, _)) = (&d.nets.critic, define_smaller(d, critics, x, action));
    let params = &critics[k * net.len()..];
    let (_, hidden) = net.define_forward(params, &[x, action].concat());
    define_input_slopes(net, params, &hidden, &[1.0])[x.len()..].to_vec()
}

/// Definition: mean of both critics' values of every action.
fn define_values(d: &ActorGradShape, critics: &[f64], x: &[f64]) -> Vec<f64> {
    let [first, second] = [0, 1].map(|k| d.nets.define_critic(&critics[k * d.nets.critic.len()..], x, &[]));
    first.iter().zip(second).map(|(first, second)| 0.5 * (first + second)).collect()
}

/// Definition: the loss of one row's outputs of the actor, and its `ln pi` (the mean over actions where they are
/// discrete).
fn define_loss(d: &ActorGradShape, critics: &[f64], alpha: f64, x: &[f64], out: &[f64], drawn: &[f64]) -> (f64, f64) {
    if let Policy::Gaussian { .. } = d.nets.policy {
        let (action, log_prob) = soft::define_squashed(out, drawn);
        return (alpha * log_prob - define_smaller(d, critics, x, &action).1, log_prob);
    }
    let log_probs = soft::define_log_softmax(out);
    let mean = |term: &[f64]| -> f64 { log_probs.iter().zip(term).map(|(l, term)| l.exp() * term).sum() };
    let value = if d.nets.relaxed() {
        define_smaller(d, critics, x, &soft::define_relaxed(out, drawn).0).1
    } else {
        mean(&define_values(d, critics, x))
    };
    (alpha * mean(&log_probs) - value, mean(&log_probs))
}

/// Definition of what is minimised, as a function of the actor's parameters and `log_alpha`: the actor's loss does not
/// move with `log_alpha`, nor that of `log_alpha` with the actor. The gradient test differentiates this numerically.
///
/// A sampled discrete action moves in steps, and has no slope. In its place stands what is followed instead: the
/// relaxation moves, along the slope that the critic has at the action itself.
pub fn objective(d: &ActorGradShape, a: &Args<'_>, moved: &[f64]) -> f64 {
    let (params, critics) = (wide(a.params), wide(critics(d, a.params, a.target)));
    let seen = Seen::new(d.nets.obs(), d.normalize_obs, a.normalizer, a.hyper);
    let noise = Noise::new(Purpose::ActorAction, a.seed, a.clock);
    let (log_alpha, entropy) = (d.nets.log_alpha(), f64::from(a.schedule[schedule::TARGET_ENTROPY]));
    let alpha = soft::define_alpha(d.learned, params[log_alpha], a.schedule);
    let loss = |row: usize| -> f64 {
        let (x, drawn) = (seen.define(a.obs, a.index[d.start + row]), d.nets.define_drawn(noise, row));
        let (now, then) = (d.nets.define_actor(&params, &x), d.nets.define_actor(moved, &x));
        let (mut loss, mean) = define_loss(d, &critics, alpha, &x, &then, &drawn);
        if d.nets.relaxed() {
            let slopes = define_ask(d, &critics, &x, &soft::define_relaxed(&now, &drawn).0);
            let soft = soft::define_relaxed(&then, &drawn).1;
            loss = alpha * mean - soft.iter().zip(slopes).map(|(y, slope)| y * slope).sum::<f64>();
        }
        let log_prob = |out: &[f64]| define_loss(d, &critics, alpha, &x, out, &drawn).1;
        loss - if d.learned { moved[log_alpha].exp() * (log_prob(&now) + entropy) } else { 0.0 }
    };
    (0..d.batch).map(loss).sum::<f64>() / d.batch as f64
}

/// Definition: slopes of the loss of one row at the actor's outputs.
fn define_slopes(d: &ActorGradShape, critics: &[f64], alpha: f64, x: &[f64], out: &[f64], drawn: &[f64]) -> Vec<f64> {
    if let Policy::Gaussian { n, .. } = d.nets.policy {
        let (action, _) = soft::define_squashed(out, drawn);
        let d_action = define_ask(d, critics, x, &action);
        let mut slopes = vec![0.0; 2 * n];
        for i in 0..n {
            let inside = out[n + i] > LOG_STD.0.into() && out[n + i] < LOG_STD.1.into();
            let std = out[n + i].clamp(LOG_STD.0.into(), LOG_STD.1.into()).exp();
            // ln pi falls with the sample's ln(1 - tanh^2), and rises with nothing else that moves
            let sample = 2.0 * alpha * action[i] - d_action[i] * (1.0 - action[i] * action[i]);
            slopes[i] = sample;
            slopes[n + i] = if inside { sample * std * drawn[i] - alpha } else { 0.0 };
        }
        return slopes;
    }
    // the softmax of z has the slopes w (v - mean of v by w) where v are those at its weights w
    let softmax = |weights: &[f64], v: &[f64]| -> Vec<f64> {
        let mean: f64 = weights.iter().zip(v).map(|(w, v)| w * v).sum();
        weights.iter().zip(v).map(|(w, v)| w * (v - mean)).collect()
    };
    let log_probs = soft::define_log_softmax(out);
    let probs: Vec<f64> = log_probs.iter().map(|l| l.exp()).collect();
    let entropy = softmax(&probs, &log_probs);
    let value = if d.nets.relaxed() {
        let (hard, soft) = soft::define_relaxed(out, drawn);
        softmax(&soft, &define_ask(d, critics, x, &hard))
    } else {
        softmax(&probs, &define_values(d, critics, x))
    };
    entropy.iter().zip(value).map(|(entropy, value)| alpha * entropy - value).collect()
}

/// The plain definition, row by row in f64.
fn define(d: &ActorGradShape, a: Args<'_>) {
    let (params, critics) = (wide(a.params), wide(critics(d, a.params, a.target)));
    let seen = Seen::new(d.nets.obs(), d.normalize_obs, a.normalizer, a.hyper);
    let noise = Noise::new(Purpose::ActorAction, a.seed, a.clock);
    let (log_alpha, entropy) = (d.nets.log_alpha(), f64::from(a.schedule[schedule::TARGET_ENTROPY]));
    let alpha = soft::define_alpha(d.learned, params[log_alpha], a.schedule);
    for tile in 0..d.tiles() {
        let (mut grad, mut losses) = (vec![0.0; d.moved()], [0.0; update::LOSSES]);
        for row in tile * d.tile_rows..((tile + 1) * d.tile_rows).min(d.batch) {
            let (x, drawn) = (seen.define(a.obs, a.index[d.start + row]), d.nets.define_drawn(noise, row));
            let acts = d.nets.actor.define_forward(&params, &x);
            let out = acts.0.last().expect("a net has an output layer");
            let (loss, log_prob) = define_loss(d, &critics, alpha, &x, out, &drawn);
            let slopes = define_slopes(d, &critics, alpha, &x, out, &drawn);
            let d_out: Vec<f64> = slopes.iter().map(|slope| slope / d.batch as f64).collect();
            d.nets.actor.define_backward(&params, &acts, &d_out, &mut grad);
            if d.learned {
                grad[log_alpha] -= alpha * (log_prob + entropy) / d.batch as f64;
            }
            losses[update::POLICY] += loss;
            losses[update::ENTROPY] -= log_prob;
        }
        let to_f32 = |(to, from): (&mut f32, &f64)| *to = *from as f32;
        a.partial[tile * d.moved()..][..d.moved()].iter_mut().zip(&grad).for_each(to_f32);
        a.partial_loss[tile * update::LOSSES..][..update::LOSSES].iter_mut().zip(&losses).for_each(to_f32);
    }
}

fn run(d: &ActorGradShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (isa, tile, nets) = (cx.isa, cx.tile, &d.nets);
    let (actor, critic, width) = (&nets.actor, &nets.critic, nets.critic.input);
    let begin = tile * d.tile_rows;
    let rows = d.tile_rows.min(d.batch - begin);
    let blocks = || (0..rows).step_by(ROWS).map(|at| (at, ROWS.min(rows - at)));
    // SAFETY: every tile has its own part of both outputs
    let (partial, partial_loss) = unsafe {
        (
            a.partial.part(tile * d.moved()..(tile + 1) * d.moved()),
            a.partial_loss.part(tile * update::LOSSES..(tile + 1) * update::LOSSES),
        )
    };
    let n = Numbers {
        alpha: soft::alpha(d.learned, a.params[nets.log_alpha()], a.schedule),
        share: 1.0 / d.batch as f32,
        words: nets.seen_words(),
    };
    let noise = Noise::new(Purpose::ActorAction, a.seed, a.clock);

    let mut scratch = &mut *cx.scratch;
    let packed_actor = cut(&mut scratch, actor.packed_len());
    let packed = cut(&mut scratch, critic.packed_len());
    let acts_actor = cut(&mut scratch, d.tile_rows.div_ceil(ROWS) * actor.acts_len());
    let acts = cut(&mut scratch, critic.acts_len());
    let outs = cut(&mut scratch, d.tile_rows * actor.out_pad());
    let d_actor = cut(&mut scratch, ROWS * actor.out_pad());
    let out = cut(&mut scratch, ROWS * critic.out_pad());
    let ones = cut(&mut scratch, ROWS * critic.out_pad());
    let d_x = cut(&mut scratch, ROWS * d.slope_row());
    let apart = cut(&mut scratch, Gradient::words(actor));
    let slopes = cut(&mut scratch, actor.slopes_len().max(critic.slopes_len()));
    let x = cut(&mut scratch, d.tile_rows * width);
    let kept = d.kept();
    let judged = cut(&mut scratch, d.tile_rows * kept).as_chunks_mut::<LANES>().0;
    // lanes without a row stay finite
    outs.fill(0.0);
    out.fill(0.0);
    d_x.fill(0.0);
    judged.fill([0.0; LANES]);
    ones.fill(1.0);
    let mut w = Work {
        out: [[0.0; LANES]; OUTPUTS],
        d_out: [[0.0; LANES]; OUTPUTS],
        sampled: Squashed::new(),
        choice: Relaxed::new(),
        live: [0.0; LANES],
        policy: [0.0; LANES],
        log_prob: [0.0; LANES],
    };

    // what the actor does
    let seen = Seen::new(nets.obs(), d.normalize_obs, a.normalizer, a.hyper);
    seen.rows(a.obs, &a.index[d.start + begin..][..rows], x, width);
    pack(isa, actor, &a.params[..actor.len()], packed_actor);
    let pad = actor.out_pad();
    for (at, rows) in blocks() {
        let acts = &mut acts_actor[at / ROWS * actor.acts_len()..][..actor.acts_len()];
        forward(isa, actor, packed_actor, (&x[at * width..], width), rows, acts, &mut outs[at * pad..]);
        for row in (at..at + rows).step_by(LANES) {
            if nets.choices().is_none() {
                to_lanes(outs, pad, row, &mut w.out[..actor.output]);
                let action: &[Lanes] = if nets.relaxed() {
                    pick(isa, n.words, begin + row, noise, &mut w);
                    &w.choice.action
                } else {
                    act(isa, n.words, begin + row, noise, &mut w);
                    &w.sampled.action
                };
                for (i, x) in x[row * width..].chunks_exact_mut(width).take(LANES.min(at + rows - row)).enumerate() {
                    x[width - n.words..].iter_mut().zip(action).for_each(|(x, action)| *x = action[i]);
                }
            }
        }
    }

    // what the critics say to that, and where they would have it go
    for (k, params) in critics(d, a.params, a.target).chunks_exact(critic.len()).enumerate() {
        let wide = critic.out_pad();
        if nets.choices().is_some() {
            pack_forward(isa, critic, params, packed);
        } else {
            pack(isa, critic, params, packed);
        }
        for (at, rows) in blocks() {
            forward(isa, critic, packed, (&x[at * width..], width), rows, acts, out);
            let from = nets.obs();
            if nets.choices().is_none() {
                backward_input(isa, critic, packed, rows, acts, ones, from, slopes, d_x);
            }
            for row in (at..at + rows).step_by(LANES) {
                let judged = &mut judged[row / LANES * kept..][..kept];
                if nets.choices().is_some() {
                    to_lanes(out, wide, row - at, &mut w.out[..critic.output]);
                    for (sum, q) in judged.iter_mut().zip(&w.out) {
                        (0..LANES).for_each(|i| sum[i] += 0.5 * q[i]);
                    }
                } else {
                    let (value, slope) = judged[k * (1 + n.words)..][..1 + n.words].split_at_mut(1);
                    to_lanes(out, wide, row - at, value);
                    to_lanes(&d_x[from - first_column(from)..], d.slope_row(), row - at, slope);
                }
            }
        }
    }

    // back through the actor
    let mut grad = Gradient::new(actor, partial, apart);
    for (at, rows) in blocks() {
        let acts = &acts_actor[at / ROWS * actor.acts_len()..][..actor.acts_len()];
        for row in (at..at + rows).step_by(LANES) {
            to_lanes(outs, pad, row, &mut w.out[..actor.output]);
            w.live = std::array::from_fn(|i| if row + i < at + rows { 1.0 } else { 0.0 });
            let judged = &judged[row / LANES * kept..][..kept];
            if nets.choices().is_some() {
                choose(isa, n, judged, &mut w);
            } else if nets.relaxed() {
                pick(isa, n.words, begin + row, noise, &mut w);
                borrow(isa, n, judged, &mut w);
            } else {
                act(isa, n.words, begin + row, noise, &mut w);
                squash(isa, n, judged, &mut w);
            }
            for i in 0..LANES {
                let to = &mut d_actor[(row - at + i) * pad..][..actor.output];
                to.iter_mut().zip(&w.d_out).for_each(|(to, from)| *to = from[i]);
            }
        }
        let x = (&x[at * width..], width);
        backward(isa, actor, packed_actor, x, rows, acts, d_actor, slopes, grad.sum());
    }
    grad.finish();
    let log_prob = sum16(&w.log_prob);
    let short = log_prob + rows as f32 * a.schedule[schedule::TARGET_ENTROPY];
    partial[nets.log_alpha()] = if d.learned { -n.alpha * short * n.share } else { 0.0 };
    partial_loss.fill(0.0);
    partial_loss[update::POLICY] = sum16(&w.policy);
    partial_loss[update::ENTROPY] = -log_prob;
}

/// Numbers that the losses of all rows share.
#[derive(Clone, Copy)]
struct Numbers {
    alpha: f32,
    /// Weight of a row in the batch.
    share: f32,
    /// Words of an action that critics see.
    words: usize,
}

/// 16 rows, one per lane.
struct Work {
    /// Outputs of the actor, and slopes of the loss there.
    out: [Lanes; OUTPUTS],
    d_out: [Lanes; OUTPUTS],
    sampled: Squashed,
    choice: Relaxed,
    /// 1 where the lane holds a row.
    live: Lanes,
    /// Losses and log-probabilities so far, by lane.
    policy: Lanes,
    log_prob: Lanes,
}

crate::per_isa! {
    /// Samples the actions of 16 rows.
    fn act(words: usize, row: usize, noise: Noise, w: &mut Work) {
        w.sampled.sample(words, &w.out, row, noise);
    }

    /// Losses of 16 rows of sampled actions and their slopes. `judged`: of each critic the value, then its slope in every
    /// word of the action.
    fn squash(n: Numbers, judged: &[Lanes], w: &mut Work) {
        let (first, second) = judged.split_at(1 + n.words);
        for i in 0..LANES {
            let q = if first[0][i] <= second[0][i] { first[0][i] } else { second[0][i] };
            w.policy[i] += w.live[i] * (n.alpha * w.sampled.log_prob[i] - q);
            w.log_prob[i] += w.live[i] * w.sampled.log_prob[i];
        }
        for j in 0..n.words.min(WORDS) {
            for i in 0..LANES {
                let d_action = if first[0][i] <= second[0][i] { first[1 + j][i] } else { second[1 + j][i] };
                let (action, share) = (w.sampled.action[j][i], n.share * w.live[i]);
                // ln pi falls with the sample's ln(1 - tanh^2)
                let sample = 2.0 * n.alpha * action - d_action * (1.0 - action * action);
                let raw = w.out[n.words + j][i];
                let inside = if raw > LOG_STD.0 && raw < LOG_STD.1 { share } else { 0.0 };
                w.d_out[j][i] = share * sample;
                w.d_out[n.words + j][i] = inside * (sample * w.sampled.offset[j][i] - n.alpha);
            }
        }
    }

    /// Samples the discrete actions of 16 rows.
    fn pick(actions: usize, row: usize, noise: Noise, w: &mut Work) {
        w.choice.sample(actions, &w.out, row, noise);
    }

    /// Losses of 16 rows of sampled discrete actions and slopes, which the critics' part takes from the relaxation.
    /// `judged` as of [`squash`].
    fn borrow(n: Numbers, judged: &[Lanes], w: &mut Work) {
        let (first, second) = judged.split_at(1 + n.words);
        let of = |j: usize, i: usize| if first[0][i] <= second[0][i] { first[j][i] } else { second[j][i] };
        let mut mean = [0.0; LANES];
        for j in 0..n.words.min(OUTPUTS) {
            for i in 0..LANES {
                mean[i] += w.choice.soft[j][i] * of(1 + j, i);
            }
        }
        for j in 0..n.words.min(OUTPUTS) {
            for i in 0..LANES {
                let log_p = w.choice.log_probs[j][i];
                let entropy = trig::exp(log_p) * (log_p - w.choice.mean[i]);
                let value = w.choice.soft[j][i] * (of(1 + j, i) - mean[i]);
                w.d_out[j][i] = n.share * w.live[i] * (n.alpha * entropy - value);
            }
        }
        for i in 0..LANES {
            w.policy[i] += w.live[i] * (n.alpha * w.choice.mean[i] - of(0, i));
            w.log_prob[i] += w.live[i] * w.choice.mean[i];
        }
    }

    /// Expected losses of 16 rows over all actions and their slopes. `values`: mean of both critics for every action.
    fn choose(n: Numbers, values: &[Lanes], w: &mut Work) {
        let actions = values.len();
        let (top, ln_sum) = log_sum_exp(&w.out[..actions]);
        let (mut loss, mut log_prob) = ([0.0; LANES], [0.0; LANES]);
        for j in 0..actions {
            for i in 0..LANES {
                let log_p = w.out[j][i] - top[i] - ln_sum[i];
                let p = trig::exp(log_p);
                loss[i] += p * (n.alpha * log_p - values[j][i]);
                log_prob[i] += p * log_p;
            }
        }
        for j in 0..actions {
            for i in 0..LANES {
                let log_p = w.out[j][i] - top[i] - ln_sum[i];
                let slope = trig::exp(log_p) * (n.alpha * log_p - values[j][i] - loss[i]);
                w.d_out[j][i] = n.share * w.live[i] * slope;
            }
        }
        for i in 0..LANES {
            w.policy[i] += w.live[i] * loss[i];
            w.log_prob[i] += w.live[i] * log_prob[i];
        }
    }
}
