//! Launches of `shaders/sequence_order.wgsl`: one block per minibatch of every epoch, or by chunks of large ones.

use crate::device::{Limits, Shader};
use crate::op::gpu::{flag, word};
use crate::op::sequence_order::OrderShape;
use crate::op::shuffle::Normalize;

/// Rows of a block, and the most environments that they belong to.
const ROWS: usize = 4096;
const ENVS: usize = 1024;
/// Rows of a lane where there are few; lanes of a block at least and at most.
const EACH: usize = 4;
const LEAST: usize = 32;
const THREADS: usize = 256;

/// How a minibatch is cut.
struct Cut {
    /// Environments of a block.
    chunk: usize,
    /// Blocks of a minibatch.
    chunks: usize,
    /// Lanes of a block.
    threads: usize,
}

fn cut(d: &OrderShape) -> Cut {
    let sequences = d.minibatch.min(d.n);
    let chunk = (ROWS / d.t).clamp(1, ENVS).min(sequences);
    let threads = (chunk * d.t).div_ceil(EACH).next_power_of_two().clamp(LEAST, THREADS);
    Cut { chunk, chunks: sequences.div_ceil(chunk), threads }
}

pub fn shaders(d: &OrderShape, limits: &Limits) -> Vec<Shader> {
    let (Cut { chunk, chunks, threads }, minibatches) = (cut(d), d.n.div_ceil(d.minibatch));
    let shader = |entry: &str, tiles: usize, threads: usize| Shader {
        entry: entry.into(),
        swaps: super::lanes(limits),
        tiles: tiles as u32,
        parts: d.epochs as u32,
        threads: threads as u32,
        shape: vec![
            word("t", d.t),
            word("n", d.n),
            word("minibatch", d.minibatch),
            word("normalize", super::shuffle::code(d.normalize)),
            flag("ordered", d.ordered),
            word("bits", d.n.next_power_of_two().trailing_zeros() as usize),
            word("chunk", chunk),
            word("chunks", chunks),
            word("minibatches", minibatches),
        ],
    };
    let mut all = vec![shader("sequence_order_index", minibatches * chunks, threads)];
    if chunks > 1 && d.normalize == Normalize::Standardize {
        all.push(shader("sequence_order_moments", minibatches, chunks.next_power_of_two().clamp(LEAST, THREADS)));
    }
    all
}

/// Mean and squares of every chunk.
pub fn scratch(d: &OrderShape) -> usize {
    let chunks = cut(d).chunks;
    if chunks == 1 { 0 } else { 4 * d.epochs * chunks * d.n.div_ceil(d.minibatch) }
}
