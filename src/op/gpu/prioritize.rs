//! Launch of `kernels/prioritize.cu`: a block per session.

use super::{tree, word};
use crate::device::Kernel;
use crate::op::prioritize::PrioritizeShape;

/// Most lanes of a block.
const THREADS: usize = 256;

pub fn kernels(d: &PrioritizeShape) -> Vec<Kernel> {
    let leaves = d.batch + d.new.min(d.c) * d.n;
    vec![Kernel {
        entry: "prioritize".into(),
        tiles: 1,
        parts: 1,
        threads: leaves.next_multiple_of(32).clamp(32, THREADS) as u32,
        shared_bytes: 0,
        shape: vec![
            word("c", d.c),
            word("n", d.n),
            word("at", d.at),
            word("fresh", d.new),
            word("batch", d.batch),
            word("start", d.start),
            tree("levels", d.c * d.n),
        ],
    }]
}
