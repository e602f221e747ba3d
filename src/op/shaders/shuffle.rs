//! Launches of `shaders/shuffle.wgsl`: one block per minibatch of every epoch, or by chunks of large ones.

use crate::device::{Limits, Shader};
use crate::op::gpu::shuffle::{NONE, PERCENTILE, STANDARDIZE};
use crate::op::gpu::{flag, word};
use crate::op::shuffle::{Normalize, ShuffleShape};

/// Rows of a lane.
const EACH: usize = 4;
/// Lanes of a block at least and at most.
const LEAST: usize = 32;
const THREADS: usize = 256;

/// Lanes of a block and blocks of a minibatch.
fn cut(d: &ShuffleShape) -> (usize, usize) {
    let rows = d.minibatch.min(d.m);
    (rows.next_power_of_two().clamp(LEAST, THREADS), rows.div_ceil(THREADS * EACH))
}

/// The code of a choice.
pub(super) fn code(normalize: Normalize) -> usize {
    let code = match normalize {
        Normalize::Standardize => STANDARDIZE,
        Normalize::Percentile => PERCENTILE,
        Normalize::None => NONE,
    };
    code as usize
}

pub fn shaders(d: &ShuffleShape, limits: &Limits) -> Vec<Shader> {
    let ((threads, chunks), minibatches) = (cut(d), d.m.div_ceil(d.minibatch));
    let shader = |entry: &str, tiles: usize, threads: usize| Shader {
        entry: entry.into(),
        swaps: super::lanes(limits),
        tiles: tiles as u32,
        parts: d.epochs as u32,
        threads: threads as u32,
        shape: vec![
            word("m", d.m),
            word("minibatch", d.minibatch),
            word("normalize", code(d.normalize)),
            flag("ordered", d.ordered),
            word("bits", d.m.next_power_of_two().trailing_zeros() as usize),
            word("chunk", cut(d).0 * EACH),
            word("chunks", chunks),
            word("minibatches", minibatches),
        ],
    };
    let mut all = vec![shader("shuffle_index", minibatches * chunks, threads)];
    if chunks > 1 && d.normalize == Normalize::Standardize {
        all.push(shader("shuffle_moments", minibatches, chunks.next_power_of_two().clamp(LEAST, THREADS)));
    }
    all
}

/// Mean and squares of every chunk.
pub fn scratch(d: &ShuffleShape) -> usize {
    let chunks = cut(d).1;
    if chunks == 1 { 0 } else { 4 * d.epochs * chunks * d.m.div_ceil(d.minibatch) }
}
