//! Launches of `kernels/optimize.cu`: one block per session for small problems, a block per chunk of parameters for
//! large ones.

use super::{flag, number, word};
use crate::device::{Field, Kernel};
use crate::op::hyper::update;
use crate::op::optimize::{Kind, OptimizeShape};

/// Codes of [`Kind`].
pub const ADAM: u32 = 0;
pub const ADAM_W: u32 = 1;
pub const RMS_PROP: u32 = 2;
pub const SGD: u32 = 3;
pub const NESTEROV: u32 = 4;
/// Most parameter groups.
pub const GROUPS: usize = 4;

/// Words that one block moves in about the time that a second launch costs.
const ONE_BLOCK_WORDS: usize = 96 << 10;
/// Lanes of a block of `optimize_sum`, and tiles that it reads at once at most.
const SUM_THREADS: usize = 512;
const WAYS: usize = 8;
/// Chunks that a large problem is cut into; every block of `optimize_step` reads one number of each.
const CHUNKS: usize = 256;
/// Words of `struct Prepared`.
const PREPARED: usize = update::LOSSES + 1 + 2 * GROUPS + 2;

/// How a large problem is cut: parameters side by side in a block, parameters of a block.
fn cut(d: &OptimizeShape) -> (usize, usize) {
    let width = SUM_THREADS / d.tiles.min(WAYS).next_power_of_two();
    (width, width * d.p.div_ceil(width * CHUNKS))
}

/// Reading the tiles, then parameters, slots and their new values.
fn one_block(d: &OptimizeShape) -> bool {
    d.p * (d.tiles + 6) <= ONE_BLOCK_WORDS
}

/// Chunks of all groups.
fn chunks(d: &OptimizeShape) -> usize {
    d.groups.iter().map(|group| group.range.len().div_ceil(cut(d).1)).sum()
}

/// `struct Groups`: their number, then `{begin, end, kind, chunks_before}` of each, in chunks of that many parameters.
pub fn groups(d: &OptimizeShape, chunk: usize) -> Field {
    assert!(d.groups.len() <= GROUPS, "there are at most {GROUPS} parameter groups");
    let (mut words, mut before) = (vec![d.groups.len() as u32], 0);
    for group in &d.groups {
        let kind = match group.kind {
            Kind::Adam => ADAM,
            Kind::AdamW => ADAM_W,
            Kind::RmsProp => RMS_PROP,
            Kind::Sgd { nesterov: false } => SGD,
            Kind::Sgd { nesterov: true } => NESTEROV,
        };
        words.extend([group.range.start as u32, group.range.end as u32, kind, before]);
        before += group.range.len().div_ceil(chunk) as u32;
    }
    words.resize(1 + 4 * GROUPS, 0);
    Field { name: "groups", words }
}

pub fn kernels(d: &OptimizeShape) -> Vec<Kernel> {
    let (width, chunk) = cut(d);
    let chunks = chunks(d);
    let bounded = d.groups.iter().enumerate().map(|(g, group)| usize::from(group.bounded) << g).sum();
    let shape = vec![
        word("params", d.params),
        word("at", d.at),
        word("p", d.p),
        word("tiles", d.tiles),
        word("rows", d.rows),
        word("width", width),
        word("chunk", chunk),
        word("chunks", chunks),
        word("first_group", d.first_group),
        word("bounded", bounded),
        number("share", d.share),
        flag("counts", d.counts),
        flag("bonus", d.bonus),
        groups(d, chunk),
    ];
    let kernel = |entry: &str, tiles: usize, threads: u32, shared_words: usize| Kernel {
        entry: entry.into(),
        tiles: tiles as u32,
        parts: 1,
        threads,
        shared_bytes: 4 * shared_words as u32,
        shape: shape.clone(),
    };
    if one_block(d) {
        vec![kernel("optimize", 1, 1024, d.p)]
    } else {
        vec![kernel("optimize_sum", chunks + 1, SUM_THREADS as u32, 0), kernel("optimize_step", chunks, 256, 0)]
    }
}

/// Squares of the chunks, what is prepared, the gradient.
pub fn scratch(d: &OptimizeShape) -> usize {
    if one_block(d) { 0 } else { 2 * chunks(d) + PREPARED + d.p }
}
