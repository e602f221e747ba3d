//! Gradient of CrossQ's two critics on one batch (Bhatt et al. 2024): soft Q-learning without target nets.
//!
//! The batch's rows `(s, a)` and their successors `(s', a')`, with `a'` from the policy of now, go through each critic
//! as one batch of 2 B rows in training mode ([`renorm`]), so that both halves are normalised by the same moments. The
//! successors' values make the targets and get no gradient at the output; through the moments they share with the other
//! half their hidden units do. With discrete actions the critics see states alone and give a value per action; the
//! expectation over `a'` is then exact, of the mean of the two critics instead of the lesser one.

use super::hyper::{self, update};
use super::lib::bf16;
use super::lib::mlp::{Mlp, ROWS, forward, pack_forward};
use super::lib::nets::cut;
use super::lib::policy::{LANES, Lanes, OUTPUTS, Policy, log_sum_exp};
use super::lib::renorm::{self, Renorm};
use super::lib::rng::Purpose;
use super::lib::soft::{self, Noise, Seen, Squashed, to_lanes};
use super::lib::trig;
use super::minibatch_grad::Distance;
use super::{Draw, Shape, schedule};
use crate::device::cpu::Isa;
use crate::device::{Cx, Kernel, Kind, Limits, Precision, Shader};

/// What is fixed when a batch is recorded.
#[derive(Debug, Clone)]
pub struct CrossqShape {
    pub actor: Mlp,
    pub policy: Policy,
    /// Each of the two critics: of observation and action, or, with discrete actions, of the observation.
    pub critic: Renorm,
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
}

impl CrossqShape {
    /// Of the products of all nets.
    pub fn precision(&self) -> Precision {
        self.actor.precision
    }

    /// The same nets with products of that format.
    pub fn with_precision(mut self, precision: Precision) -> CrossqShape {
        (self.actor.precision, self.critic.mlp.precision) = (precision, precision);
        self
    }

    /// Words of an observation.
    fn obs(&self) -> usize {
        self.actor.input
    }

    /// Where the first critic lies in the parameters `[actor | log_alpha | critic | critic]`.
    pub fn critics(&self) -> usize {
        self.actor.len() + 1
    }

    /// All parameters.
    pub fn p(&self) -> usize {
        self.critics() + 2 * self.critic.len()
    }

    /// Log-probabilities of a successor: of the one action, or of all.
    fn log_probs(&self) -> usize {
        match self.policy {
            Policy::Categorical { n } => n,
            Policy::Gaussian { .. } => 1,
        }
    }

    /// Words of an action that a critic sees; none where it has an output for every action.
    fn seen_words(&self) -> usize {
        self.critic.mlp.input - self.obs()
    }

    /// The output that is the value of the action of row `m`.
    fn chosen(&self, action: &[f32], m: u32) -> usize {
        if self.seen_words() > 0 { 0 } else { action[m as usize] as usize }
    }
}

impl Shape for CrossqShape {
    fn scratch_words(&self) -> usize {
        let (critic, rows) = (&self.critic, 2 * self.batch);
        let one = critic.mlp.packed_len() + critic.batch_len(rows) + rows * critic.mlp.out_pad();
        let joint = rows * critic.in_pad() + self.batch * (self.log_probs() + 1 + critic.mlp.out_pad());
        let actor = self.actor.packed_len() + self.actor.acts_len() + ROWS * self.actor.out_pad();
        joint + 2 * one + actor.max(critic.slopes_len(rows))
    }

    fn flops(&self) -> f64 {
        let critics = 2 * (2 * self.batch) * 3 * self.critic.mlp.madds();
        2.0 * (critics + self.batch * self.actor.madds()) as f64
    }

    fn on(&self, kind: Kind) -> bool {
        kind == Kind::Cpu || self.precision() == Precision::F32
    }

    fn tolerance(&self, declared: f64) -> f64 {
        bf16::tolerance(self.precision(), declared)
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::crossq_grad::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::crossq_grad::scratch(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::crossq_grad::shaders(self)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::crossq_grad::scratch(self)
    }

    fn cases() -> Vec<CrossqShape> {
        super::lib::cases::crossq_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match (arg, self.policy) {
            ("index" | "last", _) => words.iter_mut().for_each(|word| *word = draw.below(self.rows as u32)),
            ("action", Policy::Categorical { n }) => {
                words.iter_mut().for_each(|word| *word = (draw.below(n as u32) as f32).to_bits());
            }
            // one row in four is left out
            ("weight", _) => words.iter_mut().for_each(|word| {
                *word = if draw.below(4) == 0 { 0 } else { draw.range(0.1, 1.5).to_bits() };
            }),
            ("hyper", _) => hyper::sample(words, draw),
            ("norm", _) => return super::lib::cases::sample_norm(&self.critic, words, draw),
            // at the start of the warm-up, in it, at its end, and behind it
            ("batches", _) => words[0] = self.critic.warmup * draw.below(4) / 2,
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Gradient and losses of both critics on one batch, the moves of their running moments, and each row's error. The
    /// gradient is divided by the batch's rows, losses are plain sums over rows; `error` is the distance of the lesser
    /// value from the target.
    ///
    /// Every row counts in the moments, whatever its weight: weights of 0 mark rows that do not exist, which `sample` gives
    /// only where it draws the last rollout in order, never from a replay memory, and CrossQ learns from nothing else.
    ///
    /// One tile: the target needs both critics, and moments need all rows. A tile per critic would send both forward in
    /// each, a third more work, which pays only where a cohort has fewer sessions than there are threads.
    CrossqGrad(d: CrossqShape) = "crossq_grad", within 2e-5, run = run {
        read index: u32[d.samples];
        read last: u32[d.samples];
        read returns: f32[d.samples] in -3.0..3.0;
        read discount: f32[d.samples] in 0.0..1.0;
        read weight: f32[d.samples];
        read obs: f32[d.rows, d.obs()] in -2.0..2.0;
        read next_obs: f32[d.rows, d.obs()] in -2.0..2.0;
        read action: f32[d.rows, d.policy.action_len()] in -1.0..1.0;
        read normalizer: f32[2, d.obs()] in 0.5..1.5;
        read hyper: f32[hyper::len(d.groups)];
        read schedule: f32[schedule::LEN + d.groups] in 0.05..0.3;
        read seed: u32[2] in 0.0..1000.0;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..300.0;
        read params: f32[d.p()] in -0.7..0.7;
        write partial: f32[1, 2 * d.critic.len()];
        write partial_loss: f32[1, update::LOSSES];
        write error: f32[d.batch];
        update norm: f32[2, d.critic.norm_len()];
        // batches that the running moments have seen
        update batches: u32[1];
    }
}

fn symlog(x: f64) -> f64 {
    x.signum() * x.abs().ln_1p()
}

/// Definition: the loss of a value and its slope.
fn define_loss(d: &CrossqShape, value: f64, target: f64) -> (f64, f64) {
    let (e, inner) =
        if d.symlog { (symlog(value) - symlog(target), 1.0 / (1.0 + value.abs())) } else { (value - target, 1.0) };
    let (loss, slope) = d.distance.define(e);
    (loss, slope * inner)
}

/// What the gradient takes for constant: the joint batch, the targets, and the corrections of both critics' units.
pub struct Held {
    /// `[2 B][in]`
    pub x: Vec<Vec<f64>>,
    /// Which output is the value of the row's action, `[B]`.
    pub chosen: Vec<usize>,
    pub weight: Vec<f64>,
    pub target: Vec<f64>,
    pub corrections: [Vec<(f64, f64)>; 2],
}

/// Definition of what is minimised, as a function of the critics' parameters. The gradient test differentiates this
/// numerically.
pub fn objective(d: &CrossqShape, held: &Held, critics: &[f64]) -> f64 {
    let of = |(critic, params): (usize, &[f64])| {
        let out = d.critic.define_forward(params, &held.x, |unit, _, _| held.corrections[critic][unit]).out;
        let loss = |b: usize| held.weight[b] * define_loss(d, out[b][held.chosen[b]], held.target[b]).0;
        (0..d.batch).map(loss).sum::<f64>() / d.batch as f64
    };
    critics.chunks_exact(d.critic.len()).enumerate().map(of).sum()
}

/// Definition: the joint batch, and the log-probabilities of the successors' actions.
fn define_joint(d: &CrossqShape, a: &Args<'_>) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let seen = Seen::new(d.obs(), d.normalize_obs, a.normalizer, a.hyper);
    let noise = Noise::new(Purpose::NextAction, a.seed, a.clock);
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let (mut x, mut next, mut log_probs) = (Vec::new(), Vec::new(), Vec::new());
    for b in 0..d.batch {
        let (index, last) = (a.index[d.start + b], a.last[d.start + b]);
        let (mut row, mut after) = (seen.define(a.obs, index), seen.define(a.next_obs, last));
        let out = d.actor.define_forward(&params, &after).0.pop().expect("a net has an output layer");
        if let Policy::Gaussian { n, .. } = d.policy {
            row.extend(a.action[index as usize * n..][..n].iter().map(|&x| f64::from(x)));
            let (action, log_prob) = soft::define_squashed(&out, &noise.define(b, n));
            after.extend(action);
            log_probs.push(vec![log_prob]);
        } else {
            log_probs.push(soft::define_log_softmax(&out));
        }
        x.push(row);
        next.push(after);
    }
    x.append(&mut next);
    (x, log_probs)
}

/// The plain definition, in f64. Returns what it held constant.
pub fn define_held(d: &CrossqShape, a: Args<'_>) -> Held {
    let (x, log_probs) = define_joint(d, &a);
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let alpha = soft::define_alpha(d.learned, params[d.actor.len()], a.schedule);
    let critics: Vec<&[f64]> = params[d.critics()..].chunks_exact(d.critic.len()).collect();
    let done = [0, 1].map(|critic| {
        let norm = &a.norm[critic * d.critic.norm_len()..][..d.critic.norm_len()];
        let correct = |unit, mean, std| d.critic.correction(norm, a.batches[0], unit, mean, std);
        d.critic.define_forward(critics[critic], &x, correct)
    });
    let mut held = Held {
        chosen: Vec::new(),
        weight: Vec::new(),
        target: Vec::new(),
        corrections: [0, 1].map(|critic| done[critic].moments.correction.clone()),
        x,
    };
    let mut d_out = vec![vec![vec![0.0; d.critic.mlp.output]; 2 * d.batch]; 2];
    let mut loss = 0.0;
    for b in 0..d.batch {
        let (one, two) = (&done[0].out[d.batch + b], &done[1].out[d.batch + b]);
        let value: f64 = match d.policy {
            Policy::Categorical { n } => {
                let soft = |j: usize| 0.5 * (one[j] + two[j]) - alpha * log_probs[b][j];
                (0..n).map(|j| log_probs[b][j].exp() * soft(j)).sum()
            }
            Policy::Gaussian { .. } => one[0].min(two[0]) - alpha * log_probs[b][0],
        };
        let at = d.start + b;
        let target = f64::from(a.returns[at]) + f64::from(a.discount[at]) * value;
        let (chosen, weight) = (d.chosen(a.action, a.index[at]), f64::from(a.weight[at]));
        for (done, d_out) in done.iter().zip(&mut d_out) {
            let (own, slope) = define_loss(d, done.out[b][chosen], target);
            loss += weight * own;
            d_out[b][chosen] = weight * slope / d.batch as f64;
        }
        a.error[b] = (done[0].out[b][chosen].min(done[1].out[b][chosen]) - target).abs() as f32;
        held.chosen.push(chosen);
        held.weight.push(weight);
        held.target.push(target);
    }
    for (critic, (params, done)) in critics.iter().zip(&done).enumerate() {
        let mut grad = vec![0.0; d.critic.len()];
        d.critic.define_backward(params, done, &d_out[critic], &mut grad);
        let partial = &mut a.partial[critic * d.critic.len()..][..d.critic.len()];
        partial.iter_mut().zip(&grad).for_each(|(to, from)| *to = *from as f32);
        let norm = &mut a.norm[critic * d.critic.norm_len()..][..d.critic.norm_len()];
        d.critic.define_running(norm, &done.moments);
    }
    a.partial_loss.fill(0.0);
    a.partial_loss[update::VALUE] = loss as f32;
    a.batches[0] += 1;
    held
}

fn define(d: &CrossqShape, a: Args<'_>) {
    define_held(d, a);
}

/// One critic in scratch.
struct Critic<'a> {
    params: &'a [f32],
    packed: &'a mut [f32],
    kept: &'a mut [f32],
    /// `[2 B, out_pad]`
    out: &'a mut [f32],
}

fn run(d: &CrossqShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    // SAFETY: one tile
    let (partial, partial_loss, error, norm, batches) =
        unsafe { (a.partial.all(), a.partial_loss.all(), a.error.all(), a.norm.all(), a.batches.all()) };
    let (isa, mut scratch) = (cx.isa, &mut *cx.scratch);
    let (rows, pad, len) = (2 * d.batch, d.critic.mlp.out_pad(), d.critic.len());
    let x = cut(&mut scratch, rows * d.critic.in_pad());
    let log_probs = cut(&mut scratch, d.batch * d.log_probs());
    let target = cut(&mut scratch, d.batch);
    let d_out = cut(&mut scratch, d.batch * pad);
    let mut critics = [0, 1].map(|critic| {
        let params = &a.params[d.critics() + critic * len..][..len];
        let packed = cut(&mut scratch, d.critic.mlp.packed_len());
        renorm::pack(isa, &d.critic, params, packed);
        let kept = cut(&mut scratch, d.critic.batch_len(rows));
        Critic { params, packed, kept, out: cut(&mut scratch, rows * pad) }
    });
    joint(d, isa, &a, x, log_probs, scratch);
    for (critic, norm) in critics.iter_mut().zip(halves(norm)) {
        let weights = (&*critic.packed, critic.params);
        renorm::forward(isa, &d.critic, weights, x, rows, (norm, batches[0]), critic.kept, critic.out, scratch);
    }
    targets(d, &a, [critics[0].out, critics[1].out], log_probs, target);
    partial_loss.fill(0.0);
    error.fill(f32::INFINITY);
    let mut sum = 0.0;
    for (critic, grad) in critics.iter_mut().zip(partial.chunks_exact_mut(len)) {
        sum += losses(d, &a, critic.out, target, d_out, error);
        renorm::backward(isa, &d.critic, critic.packed, x, (rows, d.batch), critic.kept, d_out, scratch, grad);
    }
    partial_loss[update::VALUE] = sum as f32;
    for (error, target) in error.iter_mut().zip(target) {
        *error = (*error - *target).abs();
    }
    batches[0] += 1;
}

/// Both critics' running moments.
fn halves(norm: &mut [f32]) -> [&mut [f32]; 2] {
    let (one, two) = norm.split_at_mut(norm.len() / 2);
    [one, two]
}

/// 16 rows of successors, one per lane.
struct Work {
    /// The actor's outputs.
    out: [Lanes; OUTPUTS],
    next: Squashed,
    /// Of the sampled action, or of every action.
    log_probs: [Lanes; OUTPUTS],
}

/// Writes the rows of the joint batch, padded, and `log_probs [row][..]` of the successors' actions.
fn joint(d: &CrossqShape, isa: Isa, a: &Tile<'_>, x: &mut [f32], log_probs: &mut [f32], mut scratch: &mut [f32]) {
    let (deep, words, each) = (d.critic.in_pad(), d.seen_words(), d.log_probs());
    let seen = Seen::new(d.obs(), d.normalize_obs, a.normalizer, a.hyper);
    let noise = Noise::new(Purpose::NextAction, a.seed, a.clock);
    let range = d.start..d.start + d.batch;
    x.fill(0.0);
    let (now, after) = x.split_at_mut(d.batch * deep);
    seen.rows(a.obs, &a.index[range.clone()], now, deep);
    seen.rows(a.next_obs, &a.last[range.clone()], after, deep);
    for (to, &m) in now.chunks_exact_mut(deep).zip(&a.index[range]) {
        to[d.obs()..][..words].copy_from_slice(&a.action[m as usize * d.policy.action_len()..][..words]);
    }
    let packed = cut(&mut scratch, d.actor.packed_len());
    pack_forward(isa, &d.actor, &a.params[..d.actor.len()], packed);
    let acts = cut(&mut scratch, d.actor.acts_len());
    let out = cut(&mut scratch, ROWS * d.actor.out_pad());
    // lanes without a row stay finite
    out.fill(0.0);
    let mut w = Work { out: [[0.0; LANES]; OUTPUTS], next: Squashed::new(), log_probs: [[0.0; LANES]; OUTPUTS] };
    for at in (0..d.batch).step_by(ROWS) {
        let rows = ROWS.min(d.batch - at);
        forward(isa, &d.actor, packed, (&after[at * deep..], deep), rows, acts, out);
        for first in (0..rows).step_by(LANES) {
            to_lanes(out, d.actor.out_pad(), first, &mut w.out[..d.actor.output]);
            act(isa, d.policy, at + first, noise, &mut w);
            for i in 0..LANES.min(rows - first) {
                let row = at + first + i;
                let action = &mut after[row * deep + d.obs()..][..words];
                action.iter_mut().zip(&w.next.action).for_each(|(to, action)| *to = action[i]);
                let to = &mut log_probs[row * each..][..each];
                to.iter_mut().zip(&w.log_probs).for_each(|(to, log_prob)| *to = log_prob[i]);
            }
        }
    }
}

crate::per_isa! {
    /// Squashed actions of 16 rows from `row` on and their log-probabilities; of discrete actions the log-probabilities
    /// of all.
    fn act(policy: Policy, row: usize, noise: Noise, w: &mut Work) {
        match policy {
            Policy::Categorical { n } => {
                let (top, ln_sum) = log_sum_exp(&w.out[..n]);
                for (log_prob, out) in w.log_probs[..n].iter_mut().zip(&w.out) {
                    for i in 0..LANES {
                        log_prob[i] = out[i] - top[i] - ln_sum[i];
                    }
                }
            }
            Policy::Gaussian { n, .. } => {
                w.next.sample(n, &w.out, row, noise);
                w.log_probs[0] = w.next.log_prob;
            }
        }
    }
}

/// Targets of all rows from both critics' outputs.
fn targets(d: &CrossqShape, a: &Tile<'_>, out: [&[f32]; 2], log_probs: &[f32], target: &mut [f32]) {
    let (pad, each) = (d.critic.mlp.out_pad(), d.log_probs());
    let alpha = soft::alpha(d.learned, a.params[d.actor.len()], a.schedule);
    for (b, target) in target.iter_mut().enumerate() {
        let at = (d.batch + b) * pad;
        let (one, two) = (&out[0][at..at + each], &out[1][at..at + each]);
        let log_probs = &log_probs[b * each..][..each];
        let value = match d.policy {
            Policy::Categorical { .. } => {
                let rows = one.iter().zip(two).zip(log_probs);
                rows.map(|((one, two), l)| trig::exp(*l) * (0.5 * (one + two) - alpha * l)).sum()
            }
            Policy::Gaussian { .. } => (if one[0] < two[0] { one[0] } else { two[0] }) - alpha * log_probs[0],
        };
        *target = a.returns[d.start + b] + a.discount[d.start + b] * value;
    }
}

/// The sum of a critic's losses and their slopes at its outputs; lowers `error` to its values where they are less.
fn losses(d: &CrossqShape, a: &Tile<'_>, out: &[f32], target: &[f32], d_out: &mut [f32], error: &mut [f32]) -> f64 {
    let (pad, share) = (d.critic.mlp.out_pad(), 1.0 / d.batch as f32);
    let symlog = |x: f32| trig::ln(1.0 + x.abs()).copysign(x);
    let mut sum = 0.0;
    d_out.fill(0.0);
    for b in 0..d.batch {
        let chosen = d.chosen(a.action, a.index[d.start + b]);
        let (value, weight) = (out[b * pad + chosen], a.weight[d.start + b]);
        let (e, inner) = if d.symlog {
            (symlog(value) - symlog(target[b]), 1.0 / (1.0 + value.abs()))
        } else {
            (value - target[b], 1.0)
        };
        let (loss, slope) = d.distance.of(e);
        sum += f64::from(weight * loss);
        d_out[b * pad + chosen] = weight * slope * inner * share;
        error[b] = if value < error[b] { value } else { error[b] };
    }
    sum
}
