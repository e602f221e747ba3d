//! Priorities of a replay ring (Schaul et al. 2016): new rows get the largest that ever was (or that a session began
//! with), rows that were learnt from get their error's.

use crate::device::{Kernel, Limits, Shader};
use crate::op::lib::{tree, trig};
use crate::op::{Draw, Shape, hyper};

/// Sizes of [`Prioritize`].
#[derive(Debug, Clone)]
pub struct PrioritizeShape {
    /// Vector steps of the ring, and environments.
    pub c: usize,
    pub n: usize,
    /// Parameter groups.
    pub groups: usize,
    /// Vector steps since the clock that are in the ring by now; the last `new` of them have no priority yet.
    pub at: usize,
    pub new: usize,
    /// Room for the errors of a batch.
    pub errors: usize,
    /// Rows that were learnt from: `index[start..start + batch]` of `samples`, with the first `batch` errors.
    pub batch: usize,
    pub start: usize,
    pub samples: usize,
}

impl Shape for PrioritizeShape {
    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::prioritize::kernels(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::prioritize::shaders(self)
    }

    fn cases() -> Vec<Self> {
        let case = |c, n, at, new, batch| PrioritizeShape {
            c,
            n,
            groups: 1,
            at,
            new,
            errors: 20,
            batch,
            start: 0,
            samples: 20,
        };
        vec![
            case(40, 3, 1, 1, 0),
            case(40, 3, 1, 0, 17),
            PrioritizeShape { start: 16, samples: 70, errors: 32, groups: 2, ..case(1_300, 4, 3, 2, 32) },
            // more new steps than the ring holds
            case(5, 3, 9, 9, 0),
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "hyper" => hyper::sample(words, draw),
            // rows that are drawn twice have one error
            "index" => (0..).zip(words.iter_mut()).for_each(|(i, word)| *word = (i * 7) % (self.c * self.n) as u32),
            "tree" => {
                let levels = tree::levels(self.c * self.n);
                let tree: &mut [f32] = bytemuck::cast_slice_mut(words);
                for leaf in 0..self.c * self.n {
                    tree[leaf] = if draw.below(5) == 0 { 0.0 } else { draw.range(0.01, 2.0) };
                    tree::update(tree, &levels, leaf);
                }
            }
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Writes leaves, then the sums above them. A priority is `(|error| + epsilon)^alpha`; `top` is the largest so far,
    /// and counts as 1 before there is a larger one. Rows of priority 0 are not to be drawn, and stay so.
    Prioritize(d: PrioritizeShape) = "prioritize", within 1e-6, run = define {
        read hyper: f32[hyper::len(d.groups)];
        read clock: u32[hyper::CLOCK_LEN] in 0.0..100.0;
        read index: u32[d.samples];
        read error: f32[d.errors] in 0.0..3.0;
        update tree: f32[tree::len(d.c * d.n)];
        update top: f32[1] in 0.5..2.0;
    }
}

fn define(d: &PrioritizeShape, a: Args) {
    let levels = tree::levels(d.c * d.n);
    let now = a.clock[hyper::CLOCK_STEP] as usize + d.at;
    let first = now - d.new.min(d.c);
    let most = if a.top[0] > 1.0 { a.top[0] } else { 1.0 };
    for step in first..now {
        let slot = step % d.c * d.n;
        a.tree[slot..slot + d.n].fill(most);
    }
    let index = &a.index[d.start..d.start + d.batch];
    for (&row, &error) in index.iter().zip(a.error) {
        if a.tree[row as usize] == 0.0 {
            continue;
        }
        let (alpha, epsilon) = (a.hyper[hyper::PRIORITY_ALPHA], a.hyper[hyper::PRIORITY_EPSILON]);
        let priority = trig::exp(alpha * trig::ln(error + epsilon));
        a.tree[row as usize] = priority;
        a.top[0] = if priority > a.top[0] { priority } else { a.top[0] };
    }
    for step in first..now {
        let slot = step % d.c * d.n;
        (slot..slot + d.n).for_each(|leaf| tree::update(a.tree, &levels, leaf));
    }
    index.iter().for_each(|&row| tree::update(a.tree, &levels, row as usize));
}
