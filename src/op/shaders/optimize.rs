//! Launches of `shaders/optimize.wgsl`: one block per session for small problems, blocks per chunk of parameters for
//! large ones.

use crate::device::{Limits, Shader};
use crate::op::gpu::optimize::groups;
use crate::op::gpu::{flag, number, word};
use crate::op::hyper::update;
use crate::op::optimize::OptimizeShape;

/// Words that one block moves in about the time that two more launches cost.
const ONE_BLOCK_WORDS: usize = 96 << 10;
/// Lanes of a block where there are several, and tiles that one reads at once at most.
const THREADS: usize = 256;
const WAYS: usize = 8;
/// Fewest lanes of any block, which reductions rely on.
const FEWEST: usize = 64;
/// Lanes of the only block at most.
const ONE_THREADS: usize = 1024;
/// Chunks that a large problem is cut into; every block of `optimize_step` reads one number of each.
const CHUNKS: usize = 256;

/// How a large problem is cut: parameters side by side in a block, parameters of a block.
fn cut(d: &OptimizeShape) -> (usize, usize) {
    let width = THREADS / d.tiles.min(WAYS).next_power_of_two();
    (width, width * d.p.div_ceil(width * CHUNKS))
}

/// Chunks of all groups.
fn chunks(d: &OptimizeShape) -> usize {
    d.groups.iter().map(|group| group.range.len().div_ceil(cut(d).1)).sum()
}

pub fn shaders(d: &OptimizeShape, limits: &Limits) -> Vec<Shader> {
    let (width, chunk) = cut(d);
    let chunks = chunks(d);
    let bounded = d.groups.iter().enumerate().map(|(g, group)| usize::from(group.bounded) << g).sum();
    let shape = vec![
        word("params", d.params),
        word("at", d.at),
        word("p", d.p),
        word("tiles", d.tiles),
        word("rows", d.rows),
        word("first_group", d.first_group),
        word("bounded", bounded),
        number("share", d.share),
        flag("counts", d.counts),
        flag("bonus", d.bonus),
        word("width", width),
        word("chunk", chunk),
        word("chunks", chunks),
        groups(d, chunk),
    ];
    let shader = |entry: &str, tiles: usize, threads: usize| Shader {
        entry: entry.into(),
        swaps: super::lanes(limits),
        tiles: tiles as u32,
        parts: 1,
        threads: threads as u32,
        shape: shape.clone(),
    };
    // reading the tiles, then parameters, slots and their new values
    if d.p * (d.tiles + 6) <= ONE_BLOCK_WORDS {
        // lanes that would have nothing to do are left out
        let threads = d.p.next_power_of_two().clamp(FEWEST, ONE_THREADS).min(limits.threads);
        vec![shader("optimize", 1, threads)]
    } else {
        vec![
            shader("optimize_sum", chunks + 1, THREADS),
            shader("optimize_step", chunks, chunk.next_power_of_two().clamp(FEWEST, THREADS)),
            shader("optimize_finish", 1, THREADS),
        ]
    }
}

/// The gradient, then squares and flags of the chunks, then the losses.
pub fn scratch(d: &OptimizeShape) -> usize {
    d.p + 2 * chunks(d) + update::LOSSES + 1
}
