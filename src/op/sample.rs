//! Which rows of the replay ring a gradient step learns from: uniform, by priority (Schaul et al. 2016), whole sequences
//! for recurrent nets, or all of the last rollout in order; with n-step returns (Sutton 1988) and importance weights.

use crate::device::{Kernel, Limits, Shader};
use crate::op::lib::envs::TERMINATED;
use crate::op::lib::rng::{Purpose, philox, unit};
use crate::op::lib::{tree, trig};
use crate::op::{Draw, Shape, hyper, hyper::update, schedule};

/// How rows are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// With replacement, all rows alike.
    Uniform,
    /// By priority, one from each of B equal parts of the sum.
    Prioritized,
    /// The last `B / N` vector steps whose following action is known, in order.
    Ordered,
    /// `B / steps` sequences of one environment's `steps` steps, with replacement, all starts alike that the ring holds a
    /// whole sequence behind. A batch has the first rows of all its sequences, then their second rows, and so on.
    Sequences { steps: usize },
}

/// Sizes and choices of [`Sample`].
#[derive(Debug, Clone)]
pub struct SampleShape {
    /// Vector steps of the ring, `C`, and environments, `N`.
    pub c: usize,
    pub n: usize,
    /// Parameter groups.
    pub groups: usize,
    /// Vector steps since the clock that are in the ring by now.
    pub at: usize,
    /// Rows of a batch, `B`, and batches drawn at once.
    pub batch: usize,
    pub batches: usize,
    /// Number of the first of these batches within its iteration.
    pub first: usize,
    pub drawing: Drawing,
    /// Newest rows that take the last places of the first batch (combined experience replay, Zhang & Sutton 2017).
    pub newest: usize,
    /// Most steps of a return.
    pub n_step: usize,
    /// Whether an update begins, so that the sums of the last one are cleared.
    pub begins: bool,
}

impl SampleShape {
    /// Rows of the ring.
    pub fn rows(&self) -> usize {
        self.c * self.n
    }
    fn samples(&self) -> usize {
        self.batch * self.batches
    }
    /// Steps of a sequence; 0 where rows are drawn one by one.
    pub fn sequence(&self) -> usize {
        if let Drawing::Sequences { steps } = self.drawing { steps } else { 0 }
    }
    /// Draws of a batch.
    fn draws(&self) -> usize {
        self.batch / self.sequence().max(1)
    }
    fn tree(&self) -> usize {
        if self.drawing == Drawing::Prioritized { tree::len(self.rows()) } else { 0 }
    }
}

impl Shape for SampleShape {
    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::sample::kernels(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::sample::shaders(self)
    }

    fn cases() -> Vec<Self> {
        let case = |c, n, batch, batches, drawing| SampleShape {
            c,
            n,
            groups: 1,
            at: 1,
            batch,
            batches,
            first: 0,
            drawing,
            newest: 0,
            n_step: 1,
            begins: true,
        };
        let (uniform, prioritized) = (Drawing::Uniform, Drawing::Prioritized);
        vec![
            case(40, 3, 17, 2, uniform),
            SampleShape { newest: 3, ..case(40, 3, 17, 2, uniform) },
            SampleShape { newest: 30, groups: 4, first: 3, at: 2, begins: false, ..case(300, 5, 7, 3, uniform) },
            SampleShape { n_step: 3, ..case(23, 2, 40, 1, uniform) },
            case(50, 4, 32, 1, prioritized),
            SampleShape { n_step: 5, newest: 2, ..case(7, 1, 5, 1, prioritized) },
            SampleShape { at: 3, ..case(1_300, 4, 256, 1, prioritized) },
            // more than the rows that have a priority
            SampleShape { at: 0, newest: 30, ..case(20, 3, 33, 2, prioritized) },
            SampleShape { at: 8, ..case(16, 3, 24, 1, Drawing::Ordered) },
            SampleShape { at: 1, n_step: 2, ..case(4, 2, 2, 1, Drawing::Ordered) },
            case(40, 3, 7 * 5, 2, Drawing::Sequences { steps: 5 }),
            SampleShape { n_step: 3, first: 2, ..case(16, 2, 300, 1, Drawing::Sequences { steps: 15 }) },
            // no more than one start in a full ring
            SampleShape { at: 5, ..case(6, 4, 12, 1, Drawing::Sequences { steps: 6 }) },
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "hyper" => hyper::sample(words, draw),
            // a ring that is being filled, that is just full, and that has gone round
            "clock" => {
                let step = [2, self.c as u32 / 2, 3 * self.c as u32 + 1][draw.below(3) as usize];
                words[hyper::CLOCK_STEP] = step;
                // mostly a ring of the whole run, else one that began later
                words[hyper::CLOCK_RING] = [0, 0, step - step.min(2), step][draw.below(4) as usize];
            }
            "ended" => words.iter_mut().for_each(|word| *word = draw.below(12).saturating_sub(8)),
            "tree" if !words.is_empty() => {
                let levels = tree::levels(self.rows());
                let tree: &mut [f32] = bytemuck::cast_slice_mut(words);
                // where nothing was stored since the clock, one tree in three is empty, and most rows of the others
                let share = if self.at > 0 { 1 } else { 4 * draw.below(3) };
                for leaf in 0..self.rows() {
                    tree[leaf] = if share > 0 && draw.below(share) == 0 { draw.range(0.01, 2.0) } else { 0.0 };
                    tree::update(tree, &levels, leaf);
                }
            }
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Rows for `batches` batches, and what their targets need: the row whose `next_obs` is worth bootstrapping from,
    /// the discounted rewards on the way there (scaled and clipped), the discount of what follows (0 where the episode
    /// terminated), and the weight of each row in its loss. An n-step return ends early where the episode ends or where
    /// the ring's newest step is. Priorities are weighted by `(p / p_min)^-beta`, the smallest of the batch as in Schaul
    /// et al. 2016. Rows that do not exist yet have weight 0, and so have rows of priority 0: they are drawn only where
    /// there are no others, and never as the newest.
    Sample(d: SampleShape) = "sample", within 1e-6, run = define {
        read seed: u32[2] in 0.0..1e6;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..100.0;
        read hyper: f32[hyper::len(d.groups)];
        read schedule: f32[schedule::LEN + d.groups] in 0.2..0.9;
        read reward: f32[d.c, d.n] in -2.0..2.0;
        read ended: u32[d.c, d.n];
        read tree: f32[d.tree()];
        write index: u32[d.samples()];
        write last: u32[d.samples()];
        write returns: f32[d.samples()];
        write discount: f32[d.samples()];
        write weight: f32[d.samples()];
        update update: f32[update::LEN];
    }
}

fn define(d: &SampleShape, a: Args) {
    if d.begins {
        a.update.fill(0.0);
    }
    // vector steps that were ever stored, of which the ring holds the last
    let now = a.clock[hyper::CLOCK_STEP] as usize + d.at;
    let begin = a.clock[hyper::CLOCK_RING] as usize;
    let filled = (now - begin).min(d.c);
    let levels = tree::levels(d.rows());
    let ring = Ring { hyper: a.hyper, reward: a.reward, ended: a.ended };
    for k in 0..d.batches {
        let batch = k * d.batch..(k + 1) * d.batch;
        let newest = if k == 0 { d.newest.min(d.batch).min(filled * d.n) } else { 0 };
        for (b, i) in batch.clone().enumerate() {
            let (draw, step) = (b % d.draws(), b / d.draws());
            let counter = [draw as u32, now as u32, Purpose::Sample as u32, (d.first + k) as u32];
            let word = philox(counter, [a.seed[0], a.seed[1]])[0];
            // counted back from the newest row
            let back = d.batch - 1 - b;
            let latest = (back < newest).then(|| (now - 1 - back / d.n) % d.c * d.n + back % d.n);
            let counts = |row: usize| d.drawing != Drawing::Prioritized || a.tree[row] > 0.0;
            let drawn = match d.drawing {
                _ if latest.is_some_and(counts) => latest,
                Drawing::Uniform => {
                    let row = ((u64::from(word) * (filled * d.n) as u64) >> 32) as usize;
                    Some((begin % d.c * d.n + row) % d.rows())
                }
                Drawing::Prioritized => {
                    let part = (b as f32 + unit(word)) / d.batch as f32;
                    Some(tree::find(a.tree, &levels, part * tree::total(a.tree, &levels)))
                }
                Drawing::Ordered => {
                    let back = d.batch / d.n + 1 - b / d.n;
                    (back <= now).then(|| (now - back) % d.c * d.n + b % d.n)
                }
                Drawing::Sequences { steps } => {
                    // counted from the oldest row
                    let starts = (filled + 1).saturating_sub(steps) * d.n;
                    let start = ((u64::from(word) * starts as u64) >> 32) as usize;
                    (starts > 0).then(|| (now - filled + start / d.n + step) % d.c * d.n + start % d.n)
                }
            };
            a.weight[i] = if drawn.is_some_and(counts) { 1.0 } else { 0.0 };
            a.index[i] = drawn.unwrap_or(0) as u32;
            (a.last[i], a.returns[i], a.discount[i]) = follow(d, &ring, now, a.index[i]);
        }
        let beta = a.schedule[schedule::BETA];
        if d.drawing == Drawing::Prioritized && beta > 0.0 {
            let leaf = |i: usize| a.tree[a.index[i] as usize];
            let counts = |i: &usize| leaf(*i) > 0.0;
            let smaller = |least, p| if p < least { p } else { least };
            let least = batch.clone().filter(counts).map(leaf).fold(f32::INFINITY, smaller);
            for i in batch.filter(counts) {
                a.weight[i] = trig::exp(-beta * trig::ln(leaf(i) / least));
            }
        }
    }
}

/// What a return is made of.
struct Ring<'a> {
    hyper: &'a [f32],
    reward: &'a [f32],
    ended: &'a [u32],
}

/// Walks from row `index` up to `n_step` steps ahead: the last row, the return on the way, the discount behind it.
fn follow(d: &SampleShape, ring: &Ring<'_>, now: usize, index: u32) -> (u32, f32, f32) {
    let newest = (now + d.c - 1) % d.c;
    let (mut at, mut sum, mut factor) = (index as usize, 0.0, 1.0);
    for step in 1..=d.n_step {
        let scaled = ring.reward[at] * ring.hyper[hyper::REWARD_SCALE];
        let reward = trig::clamp(scaled, ring.hyper[hyper::REWARD_CLIP_LOW], ring.hyper[hyper::REWARD_CLIP_HIGH]);
        sum += factor * reward;
        factor *= ring.hyper[hyper::GAMMA];
        if step == d.n_step || ring.ended[at] != 0 || at / d.n == newest {
            break;
        }
        at = (at + d.n) % d.rows();
    }
    (at as u32, sum, if ring.ended[at] & TERMINATED != 0 { 0.0 } else { factor })
}
