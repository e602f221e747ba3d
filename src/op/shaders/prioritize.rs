//! Launch of `shaders/prioritize.wgsl`: one block.

use super::tree;
use crate::device::Shader;
use crate::op::gpu::word;
use crate::op::prioritize::PrioritizeShape;

/// Lanes of a block at least and at most.
const LEAST: usize = 32;
const THREADS: usize = 256;

pub fn shaders(d: &PrioritizeShape) -> Vec<Shader> {
    let mut shape = vec![word("c", d.c), word("n", d.n)];
    shape.extend(tree(d.c * d.n));
    shape.extend([word("at", d.at), word("fresh", d.new), word("start", d.start), word("batch", d.batch)]);
    // of the larger of its two uses, so that both are one pipeline
    let rows = d.errors.max(d.n);
    vec![Shader {
        entry: "prioritize".into(),
        swaps: Vec::new(),
        tiles: 1,
        parts: 1,
        threads: rows.next_power_of_two().clamp(LEAST, THREADS) as u32,
        shape,
    }]
}
