//! One optimiser step: sum of the gradient's tiles, clip by global norm, Adam and its relatives as PyTorch computes them.

use crate::device::{Cx, Kernel, Limits, Shader};
use crate::op::lib::trig;
use crate::op::{Draw, Shape, hyper, hyper::fault, hyper::update, schedule};
use std::ops::Range;

/// The update rule of a parameter group; its numbers are in `hyper`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Weight decay is added to the gradient.
    Adam,
    /// Weight decay shrinks the parameters directly.
    AdamW,
    /// With momentum where `hyper` asks for it; not centered.
    RmsProp,
    /// With momentum where `hyper` asks for it; no dampening.
    Sgd { nesterov: bool },
}

/// Parameters that are clipped and stepped together: a net with its own optimiser.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Which of the P parameters.
    pub range: Range<usize>,
    pub kind: Kind,
    /// Held within `hyper`'s bounds of log alpha after each step.
    pub bounded: bool,
}

impl Group {
    /// Parameters without bounds.
    pub fn new(range: Range<usize>, kind: Kind) -> Group {
        Group { range, kind, bounded: false }
    }
}

/// Sizes and choices of [`Optimize`].
#[derive(Debug, Clone)]
pub struct OptimizeShape {
    /// All parameters of the session, and all its groups.
    pub params: usize,
    pub all_groups: usize,
    /// The parameters that the gradient is of: `p` of them from `at` on.
    pub at: usize,
    pub p: usize,
    /// Parts that the gradient comes in.
    pub tiles: usize,
    /// Rows of this minibatch.
    pub rows: usize,
    /// Disjoint groups within them, numbered from `first_group` on; parameters of no group never change.
    pub groups: Vec<Group>,
    pub first_group: usize,
    /// How much the losses of this step count in an update's means, and whether it counts as a minibatch there: where an
    /// actor is stepped less often than its critics, its losses count for theirs.
    pub share: f32,
    pub counts: bool,
    /// Whether what is minimised has an entropy bonus beside the policy's loss; Soft Actor-Critic's holds its entropy.
    pub bonus: bool,
}

impl OptimizeShape {
    /// A step of all parameters.
    pub fn new(params: usize, tiles: usize, rows: usize, groups: Vec<Group>) -> OptimizeShape {
        let all_groups = groups.len();
        let (at, p, first_group, share, counts, bonus) = (0, params, 0, 1.0, true, true);
        OptimizeShape { params, all_groups, at, p, tiles, rows, groups, first_group, share, counts, bonus }
    }

    /// Where the gradient of a group lies.
    fn part(&self, group: &Group) -> Range<usize> {
        group.range.start - self.at..group.range.end - self.at
    }
}

impl Shape for OptimizeShape {
    fn scratch_words(&self) -> usize {
        self.p + self.groups.len()
    }

    fn flops(&self) -> f64 {
        (self.p * (self.tiles + 16)) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::optimize::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::optimize::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::optimize::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::optimize::scratch(self)
    }

    fn cases() -> Vec<Self> {
        let case = |p, tiles, rows, groups: &[(Range<usize>, Kind)]| {
            let groups = groups.iter().map(|(range, kind)| Group::new(range.clone(), *kind));
            OptimizeShape::new(p, tiles, rows, groups.collect())
        };
        // parts of a vector: critics behind an actor, then the actor with a bounded number behind it
        let critics = [Group::new(33..50, Kind::Adam), Group::new(50..67, Kind::AdamW)].to_vec();
        let actor =
            [Group::new(0..32, Kind::RmsProp), Group { bounded: true, ..Group::new(32..33, Kind::Adam) }].to_vec();
        let critics = OptimizeShape {
            params: 67,
            all_groups: 4,
            at: 33,
            first_group: 2,
            ..OptimizeShape::new(34, 2, 16, critics)
        };
        let actor = OptimizeShape {
            p: 33,
            at: 0,
            first_group: 0,
            groups: actor,
            share: 2.5,
            counts: false,
            bonus: false,
            ..critics.clone()
        };
        vec![
            case(300, 1, 64, &[(0..300, Kind::Adam)]),
            case(37, 3, 5, &[(0..20, Kind::AdamW), (20..37, Kind::RmsProp)]),
            case(70, 2, 9, &[(3..40, Kind::Sgd { nesterov: true }), (40..69, Kind::Sgd { nesterov: false })]),
            case(1, 1, 1, &[(0..1, Kind::Adam)]),
            // more than one block of a gpu, then more than one round of each block
            case(6_001, 11, 64, &[(0..3_000, Kind::AdamW), (3_001..6_000, Kind::Sgd { nesterov: true })]),
            case(50_000, 2, 64, &[(0..33_000, Kind::Adam), (33_000..50_000, Kind::RmsProp)]),
            case(17_000, 9, 64, &[(0..17_000, Kind::Adam)]),
            critics,
            actor,
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "hyper" => hyper::sample(words, draw),
            // one session in four has a fault already, one a gradient that is not finite
            "fault" => words.copy_from_slice(&[u32::from(draw.below(4) == 0), 3, 2, 0]),
            "partial" => {
                words.iter_mut().for_each(|word| *word = draw.range(-1.0, 1.0).to_bits());
                if draw.below(4) == 0 {
                    *words.last_mut().expect("a gradient has parameters") = f32::NAN.to_bits();
                }
            }
            "params" => {
                words.iter_mut().for_each(|word| *word = draw.range(-1.0, 1.0).to_bits());
                // one session in four ends with a parameter that is not finite
                if draw.below(4) == 0 {
                    words[draw.below(words.len() as u32) as usize] = f32::INFINITY.to_bits();
                    *words.last_mut().expect("there are parameters") = f32::INFINITY.to_bits();
                }
            }
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Sums the partial gradients in the order of tiles and steps every group; adds the minibatch's losses to the
    /// update's sums. A loss or gradient that is not finite stops the session: `fault` says so once, and neither
    /// parameters nor optimiser move any more. The clock counts one optimiser call per group.
    ///
    /// Two passes: one reads the gradient (norms), one reads and writes parameters and slots. Bound by the square root
    /// and the division of Adam, about 1.4 cycles a parameter.
    Optimize(d: OptimizeShape) = "optimize", within 1e-5, run = run {
        // sums over a tile's rows, already divided by the minibatch's rows
        read partial: f32[d.tiles, d.p];
        // sums over a tile's rows
        read partial_loss: f32[d.tiles, update::LOSSES] in -5.0..5.0;
        read hyper: f32[hyper::len(d.all_groups)];
        read schedule: f32[schedule::LEN + d.all_groups] in 0.0..0.01;
        update params: f32[d.params] in -1.0..1.0;
        // Adam: first and second moment; RMSprop: second moment and momentum; SGD: momentum and nothing
        update slots: f32[2, d.params];
        // steps of every group
        update steps: u32[d.all_groups] in 0.0..300.0;
        update clock: u32[hyper::CLOCK_LEN] in 0.0..300.0;
        update update: f32[update::LEN];
        update fault: u32[fault::LEN];
    }
}

/// Added to the gradient's norm where it is clipped.
pub const EPSILON: f64 = 1e-6;

/// Numbers of a group that one step needs.
#[derive(Clone, Copy)]
struct Step {
    kind: Kind,
    lr: f32,
    b1: f32,
    b2: f32,
    eps: f32,
    weight_decay: f32,
    momentum: f32,
    /// `min(1, max_norm / (norm + EPSILON))`.
    clip: f32,
    /// `lr / (1 - b1^t)`.
    rate: f32,
    /// `1 / sqrt(1 - b2^t)`.
    correction: f32,
}

impl Step {
    /// `t` counts from 1.
    fn new(kind: Kind, group: &[f32], lr: f32, square: f32, t: u32) -> Step {
        let (b1, b2) = (group[hyper::B1], group[hyper::B2]);
        let clip = (f64::from(group[hyper::CLIP_NORM]) / (f64::from(square).sqrt() + EPSILON)).min(1.0);
        Step {
            kind,
            lr,
            b1,
            b2,
            eps: group[hyper::EPS],
            weight_decay: group[hyper::WEIGHT_DECAY],
            momentum: group[hyper::MOMENTUM],
            clip: clip as f32,
            rate: (f64::from(lr) / (1.0 - power(b1, t))) as f32,
            correction: (1.0 / (1.0 - power(b2, t)).sqrt()) as f32,
        }
    }
}

/// `base^exponent` by squaring, the same bits everywhere.
fn power(base: f32, mut exponent: u32) -> f64 {
    let (mut square, mut product) = (f64::from(base), 1.0);
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    product
}

/// Parameter by parameter in f64, as the formulas are written.
fn define(d: &OptimizeShape, a: Args) {
    if a.fault[fault::OP] != 0 {
        return;
    }
    let grad: Vec<f64> =
        (0..d.p).map(|p| (0..d.tiles).map(|tile| f64::from(a.partial[tile * d.p + p])).sum()).collect();
    let squares: Vec<f32> =
        d.groups.iter().map(|g| grad[d.part(g)].iter().map(|x| x * x).sum::<f64>() as f32).collect();
    let losses = mean_losses(d, a.partial_loss, a.hyper, a.schedule);
    if report(d, &squares, &losses, a.clock, a.fault) {
        return;
    }
    let (first, second) = a.slots.split_at_mut(d.params);
    for (g, group) in d.groups.iter().enumerate() {
        let at = d.first_group + g;
        let words = &a.hyper[hyper::group(at)..];
        let number = |word: usize| f64::from(words[word]);
        let lr = f64::from(a.schedule[schedule::LEN + at]);
        a.steps[at] += 1;
        let t = a.steps[at];
        let (b1, b2, eps, momentum) =
            (number(hyper::B1), number(hyper::B2), number(hyper::EPS), number(hyper::MOMENTUM));
        let clip = (number(hyper::CLIP_NORM) / (f64::from(squares[g]).sqrt() + EPSILON)).min(1.0);
        for p in group.range.clone() {
            let (mut x, mut g) = (f64::from(a.params[p]), grad[p - d.at] * clip);
            let (mut s0, mut s1) = (f64::from(first[p]), f64::from(second[p]));
            match group.kind {
                Kind::AdamW => x *= 1.0 - lr * number(hyper::WEIGHT_DECAY),
                _ => g += x * number(hyper::WEIGHT_DECAY),
            }
            match group.kind {
                Kind::Adam | Kind::AdamW => {
                    s0 = b1 * s0 + (1.0 - b1) * g;
                    s1 = b2 * s1 + (1.0 - b2) * g * g;
                    let (m, v) = (s0 / (1.0 - b1.powi(t as i32)), s1 / (1.0 - b2.powi(t as i32)));
                    x -= lr * m / (v.sqrt() + eps);
                }
                Kind::RmsProp => {
                    s0 = b1 * s0 + (1.0 - b1) * g * g;
                    s1 = momentum * s1 + g / (s0.sqrt() + eps);
                    x -= lr * s1;
                }
                Kind::Sgd { nesterov } => {
                    s0 = momentum * s0 + g;
                    x -= lr * if nesterov { g + momentum * s0 } else { s0 };
                }
            }
            (a.params[p], first[p], second[p]) = (x as f32, s0 as f32, s1 as f32);
        }
        if group.bounded {
            bound(&mut a.params[group.range.clone()], a.hyper);
        }
        if a.params[group.range.clone()].iter().any(|x| !x.is_finite()) && a.fault[fault::OP] == 0 {
            note(a.fault, fault::PARAMS, a.clock, at);
        }
    }
    finish(d, &losses, &squares, a.update, a.clock);
}

/// Means over the minibatch's rows, then what is minimised.
#[inline(always)]
fn mean_losses(d: &OptimizeShape, partial: &[f32], hyper: &[f32], schedule: &[f32]) -> [f32; update::LOSSES + 1] {
    let mut sums = [0.0f64; update::LOSSES];
    for tile in partial.chunks_exact(update::LOSSES) {
        for (sum, x) in sums.iter_mut().zip(tile) {
            *sum += f64::from(*x);
        }
    }
    let mean = sums.map(|sum| sum / d.rows as f64);
    let bonus = if d.bonus { f64::from(schedule[schedule::ENTROPY_COEF]) * mean[update::ENTROPY] } else { 0.0 };
    let loss = f64::from(hyper[hyper::POLICY_LOSS_COEF]) * mean[update::POLICY]
        + f64::from(hyper[hyper::VAL_LOSS_COEF]) * mean[update::VALUE]
        - bonus;
    std::array::from_fn(|i| mean.get(i).map_or(loss as f32, |x| *x as f32))
}

/// Notes the first number that is not finite; true if there is one.
#[inline(always)]
fn report(d: &OptimizeShape, squares: &[f32], losses: &[f32], clock: &[u32], fault: &mut [u32]) -> bool {
    let group = squares.iter().position(|square| !square.is_finite());
    let bad = group.is_some() || !losses[update::LOSS].is_finite();
    if bad {
        note(fault, fault::GRADIENT, clock, d.first_group + group.unwrap_or(0));
    }
    bad
}

fn note(fault: &mut [u32], op: u32, clock: &[u32], group: usize) {
    fault.copy_from_slice(&[op, clock[hyper::CLOCK_STEP], clock[hyper::CLOCK_OPT], group as u32]);
}

/// Holds log alpha within its bounds; a number that is none stays none.
fn bound(params: &mut [f32], hyper: &[f32]) {
    for x in params {
        *x = trig::clamp(*x, hyper[hyper::LOG_ALPHA_LOW], hyper[hyper::LOG_ALPHA_HIGH]);
    }
}

#[inline(always)]
fn finish(d: &OptimizeShape, losses: &[f32], squares: &[f32], sums: &mut [f32], clock: &mut [u32]) {
    for (sum, loss) in sums.iter_mut().zip(losses) {
        *sum += *loss * d.share;
    }
    if d.counts {
        sums[update::GRAD_NORM] += squares.iter().map(|x| f64::from(*x)).sum::<f64>().sqrt() as f32;
        sums[update::COUNT] += 1.0;
    }
    clock[hyper::CLOCK_OPT] += d.groups.len() as u32;
}

fn run(d: &OptimizeShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    // SAFETY: one tile
    let (params, slots, steps, clock, sums, fault) =
        unsafe { (a.params.all(), a.slots.all(), a.steps.all(), a.clock.all(), a.update.all(), a.fault.all()) };
    if fault[fault::OP] != 0 {
        return;
    }
    let (grad, squares) = cx.scratch[..d.p + d.groups.len()].split_at_mut(d.p);
    let grad = if d.tiles == 1 {
        a.partial
    } else {
        sum_tiles(cx.isa, a.partial, grad);
        grad
    };
    for (square, group) in squares.iter_mut().zip(&d.groups) {
        *square = square_sum(cx.isa, &grad[d.part(group)]);
    }
    let losses = mean_losses(d, a.partial_loss, a.hyper, a.schedule);
    if report(d, squares, &losses, clock, fault) {
        return;
    }
    let (first, second) = slots.split_at_mut(d.params);
    for (g, group) in d.groups.iter().enumerate() {
        let at = d.first_group + g;
        let lr = a.schedule[schedule::LEN + at];
        steps[at] += 1;
        let step = Step::new(group.kind, &a.hyper[hyper::group(at)..], lr, squares[g], steps[at]);
        let range = || group.range.clone();
        let grad = &grad[d.part(group)];
        let finite = advance(cx.isa, step, grad, &mut params[range()], &mut first[range()], &mut second[range()]);
        let finite = if group.bounded {
            bound(&mut params[range()], a.hyper);
            params[range()].iter().all(|x| x.is_finite())
        } else {
            finite
        };
        if !finite && fault[fault::OP] == 0 {
            note(fault, fault::PARAMS, clock, at);
        }
    }
    finish(d, &losses, squares, sums, clock);
}

/// Words of the gradient that stay in the nearest cache while the tiles pass by.
const BLOCK: usize = 2048;
/// Partial sums of [`square_sum`].
const LANES: usize = 32;

crate::per_isa! {
    fn sum_tiles(partial: &[f32], grad: &mut [f32]) {
        let p = grad.len();
        for (block, sums) in grad.chunks_mut(BLOCK).enumerate() {
            for (tile, row) in partial.chunks_exact(p).enumerate() {
                let row = &row[block * BLOCK..][..sums.len()];
                if tile == 0 {
                    sums.copy_from_slice(row);
                } else {
                    for (sum, x) in sums.iter_mut().zip(row) {
                        *sum += *x;
                    }
                }
            }
        }
    }

    fn square_sum(x: &[f32]) -> f32 {
        let mut sums = [0.0f32; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for part in whole {
            for (sum, x) in sums.iter_mut().zip(part) {
                *sum += *x * *x;
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += *x * *x;
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
            width /= 2;
        }
        sums[0]
    }

    /// Steps a group; false if a parameter is no longer finite.
    fn advance(s: Step, grad: &[f32], params: &mut [f32], first: &mut [f32], second: &mut [f32]) -> bool {
        // largest magnitude, as bits: the order of floats of one sign is that of their bits
        let mut top = 0u32;
        let shrink = if s.kind == Kind::AdamW { 1.0 - s.lr * s.weight_decay } else { 1.0 };
        // a parameter that is not finite must not reach the slots by way of a decay of 0
        let decay = |x: f32| if s.kind == Kind::AdamW { 0.0 } else { s.weight_decay * x };
        let words = params.iter_mut().zip(first).zip(second).zip(grad);
        match s.kind {
            Kind::Adam | Kind::AdamW => {
                for (((x, m), v), g) in words {
                    let g = *g * s.clip + decay(*x);
                    *m += (g - *m) * (1.0 - s.b1);
                    *v = s.b2 * *v + (1.0 - s.b2) * g * g;
                    *x = *x * shrink - s.rate * *m / (v.sqrt() * s.correction + s.eps);
                    top = top.max(x.abs().to_bits());
                }
            }
            Kind::RmsProp => {
                for (((x, square), velocity), g) in words {
                    let g = *g * s.clip + decay(*x);
                    *square = s.b1 * *square + (1.0 - s.b1) * g * g;
                    *velocity = s.momentum * *velocity + g / (square.sqrt() + s.eps);
                    *x -= s.lr * *velocity;
                    top = top.max(x.abs().to_bits());
                }
            }
            Kind::Sgd { nesterov } => {
                let (now, ahead) = if nesterov { (1.0, s.momentum) } else { (0.0, 1.0) };
                for (((x, velocity), _), g) in words {
                    let g = *g * s.clip + decay(*x);
                    *velocity = s.momentum * *velocity + g;
                    *x -= s.lr * (now * g + ahead * *velocity);
                    top = top.max(x.abs().to_bits());
                }
            }
        }
        top < f32::INFINITY.to_bits()
    }
}

#[cfg(test)]
mod tests;
