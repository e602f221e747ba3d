//! Launch of `kernels/sequence_order.cu`: one block per minibatch of every epoch.

use super::{flag, shuffle, word};
use crate::device::Kernel;
use crate::op::sequence_order::OrderShape;

/// Most lanes of a block.
const THREADS: usize = 1024;

pub fn kernels(d: &OrderShape) -> Vec<Kernel> {
    let minibatches = d.n.div_ceil(d.minibatch);
    let rows = d.t * d.minibatch.min(d.n);
    vec![Kernel {
        entry: "sequence_order".into(),
        tiles: (d.epochs * minibatches) as u32,
        parts: 1,
        threads: rows.next_multiple_of(32).min(THREADS) as u32,
        shared_bytes: 0,
        shape: vec![
            word("t", d.t),
            word("n", d.n),
            word("minibatch", d.minibatch),
            word("epochs", d.epochs),
            word("normalize", shuffle::normalize(d.normalize) as usize),
            flag("ordered", d.ordered),
            word("bits", d.n.next_power_of_two().trailing_zeros() as usize),
            word("minibatches", minibatches),
        ],
    }]
}
