//! Launches of `kernels/shuffle.cu`: one block per minibatch of every epoch, or by chunks of large ones.

use super::{flag, word};
use crate::device::Kernel;
use crate::op::shuffle::{Normalize, ShuffleShape};

/// Codes of [`Normalize`].
pub const STANDARDIZE: u32 = 0;
pub const PERCENTILE: u32 = 1;
pub const NONE: u32 = 2;

/// Rows of a lane.
const EACH: usize = 4;
/// Lanes of a block at most, and of the blocks that share a minibatch.
const THREADS: usize = 1024;
const CHUNK_THREADS: usize = 256;

/// The code of a way to normalise.
pub fn normalize(by: Normalize) -> u32 {
    match by {
        Normalize::Standardize => STANDARDIZE,
        Normalize::Percentile => PERCENTILE,
        Normalize::None => NONE,
    }
}

/// Lanes of a block and blocks of a minibatch.
fn cut(d: &ShuffleShape) -> (usize, usize) {
    let rows = d.minibatch.min(d.m);
    if rows <= THREADS * EACH {
        (rows.next_multiple_of(32).min(THREADS), 1)
    } else {
        (CHUNK_THREADS, rows.div_ceil(CHUNK_THREADS * EACH))
    }
}

pub fn kernels(d: &ShuffleShape) -> Vec<Kernel> {
    let ((threads, chunks), minibatches) = (cut(d), d.m.div_ceil(d.minibatch));
    let kernel = |entry: &str, tiles: usize, threads: usize| Kernel {
        entry: entry.into(),
        tiles: tiles as u32,
        parts: 1,
        threads: threads as u32,
        shared_bytes: 0,
        shape: vec![
            word("m", d.m),
            word("minibatch", d.minibatch),
            word("epochs", d.epochs),
            word("normalize", normalize(d.normalize) as usize),
            flag("ordered", d.ordered),
            word("bits", d.m.next_power_of_two().trailing_zeros() as usize),
            word("chunk", cut(d).0 * EACH),
            word("chunks", chunks),
            word("minibatches", minibatches),
        ],
    };
    let mut all = vec![kernel("shuffle_index", d.epochs * minibatches * chunks, threads)];
    if chunks > 1 && d.normalize == Normalize::Standardize {
        all.push(kernel("shuffle_moments", d.epochs * minibatches, CHUNK_THREADS));
    }
    all
}

/// Mean and squares of every chunk.
pub fn scratch(d: &ShuffleShape) -> usize {
    let chunks = cut(d).1;
    if chunks == 1 { 0 } else { 4 * d.epochs * chunks * d.m.div_ceil(d.minibatch) }
}
