//! Launch of `kernels/sample.cu`: a block per batch.

use super::{flag, tree, word};
use crate::device::Kernel;
use crate::op::sample::{Drawing, SampleShape};

/// Most lanes of a block.
const THREADS: usize = 256;

pub fn kernels(d: &SampleShape) -> Vec<Kernel> {
    vec![Kernel {
        entry: "sample".into(),
        tiles: d.batches as u32,
        parts: 1,
        threads: d.batch.next_multiple_of(32).min(THREADS) as u32,
        shared_bytes: 0,
        shape: vec![
            word("c", d.c),
            word("n", d.n),
            word("at", d.at),
            word("batch", d.batch),
            word("first", d.first),
            flag("prioritized", d.drawing == Drawing::Prioritized),
            flag("ordered", d.drawing == Drawing::Ordered),
            word("sequence", d.sequence()),
            word("newest", d.newest),
            word("n_step", d.n_step),
            flag("begins", d.begins),
            tree("levels", d.rows()),
        ],
    }]
}
