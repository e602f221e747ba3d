//! Launch of `kernels/imitate.cu`: a block per few rows.

use super::{SHARED_BYTES, flag, net, word};
use crate::device::Kernel;
use crate::op::imitate::ImitateShape;

/// Rows and lanes of a block.
const ROWS: usize = 16;
const LANES: usize = 128;

/// Words from row to row of what a layer reads or gives, one more than a whole number of quads: rows begin in different
/// banks.
fn wide(d: &ImitateShape) -> usize {
    let most = d.critic().0.hidden.iter().copied().max().unwrap_or(0).max(d.obs);
    most.next_multiple_of(4) + 1
}

/// Words of a block's activations: of the layer below and of the one that is computed.
fn words(d: &ImitateShape) -> usize {
    2 * ROWS * wide(d)
}

fn in_shared(d: &ImitateShape) -> bool {
    4 * words(d) <= SHARED_BYTES
}

/// Scratch of activations that do not fit shared memory.
pub fn scratch(d: &ImitateShape) -> usize {
    if in_shared(d) { 0 } else { d.batch.div_ceil(ROWS) * words(d) }
}

pub fn kernels(d: &ImitateShape) -> Vec<Kernel> {
    let (mlp, offset, value_at) = d.critic();
    vec![Kernel {
        entry: "imitate".into(),
        tiles: d.batch.div_ceil(ROWS) as u32,
        parts: 1,
        threads: LANES as u32,
        shared_bytes: if in_shared(d) { 4 * words(d) as u32 } else { 0 },
        shape: vec![
            net("net", Some(mlp)),
            word("offset", offset),
            word("value_at", value_at),
            word("obs", d.obs),
            word("action", d.action()),
            word("start", d.start),
            word("batch", d.batch),
            flag("normalize_obs", d.normalize_obs),
            word("wide", wide(d)),
            flag("in_shared", in_shared(d)),
        ],
    }]
}
