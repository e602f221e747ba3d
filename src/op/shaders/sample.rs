//! Launch of `shaders/sample.wgsl`: a block per batch.

use super::tree;
use crate::device::Shader;
use crate::op::gpu::{flag, word};
use crate::op::sample::{Drawing, SampleShape};

/// Lanes of a block at least and at most.
const LEAST: usize = 32;
const THREADS: usize = 256;

pub fn shaders(d: &SampleShape) -> Vec<Shader> {
    let mut shape = vec![
        word("c", d.c),
        word("n", d.n),
        word("batch", d.batch),
        flag("prioritized", d.drawing == Drawing::Prioritized),
        flag("ordered", d.drawing == Drawing::Ordered),
        word("sequence", d.sequence()),
        word("n_step", d.n_step),
    ];
    shape.extend(tree(d.rows()));
    shape.extend([word("at", d.at), word("first", d.first), word("newest", d.newest), flag("begins", d.begins)]);
    vec![Shader {
        entry: "sample".into(),
        swaps: Vec::new(),
        tiles: d.batches as u32,
        parts: 1,
        threads: d.batch.next_power_of_two().clamp(LEAST, THREADS) as u32,
        shape,
    }]
}
