//! Launch of `shaders/imitate.wgsl`: a block per few rows.

use crate::device::{Limits, Shader};
use crate::op::gpu::{flag, net, word};
use crate::op::imitate::ImitateShape;

/// Rows and lanes of a block.
const ROWS: usize = 16;
const LANES: usize = 64;

/// Words from row to row of what a layer reads or gives.
fn wide(d: &ImitateShape) -> usize {
    d.critic().0.hidden.iter().copied().max().unwrap_or(0).max(d.obs) | 1
}

/// Words of a block's activations: of the layer below and of the one that is computed.
fn words(d: &ImitateShape) -> usize {
    2 * ROWS * wide(d)
}

/// Scratch of activations that do not fit workgroup memory, under any limits.
pub fn scratch(d: &ImitateShape) -> usize {
    if 4 * words(d) <= Limits::WEBGPU.shared_bytes { 0 } else { d.batch.div_ceil(ROWS) * words(d) }
}

pub fn shaders(d: &ImitateShape, limits: &Limits) -> Vec<Shader> {
    let (mlp, offset, value_at) = d.critic();
    vec![Shader {
        entry: "imitate".into(),
        swaps: Vec::new(),
        tiles: d.batch.div_ceil(ROWS) as u32,
        parts: 1,
        threads: LANES as u32,
        shape: vec![
            net("net", Some(mlp)),
            word("offset", offset),
            word("value_at", value_at),
            word("obs", d.obs),
            word("action", d.action()),
            word("batch", d.batch),
            flag("normalize_obs", d.normalize_obs),
            word("wide", wide(d)),
            flag("spilled", 4 * words(d) > limits.shared_bytes),
            word("start", d.start),
        ],
    }]
}
