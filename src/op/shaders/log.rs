//! Launches of `shaders/log.wgsl`: one block per session, and before it the lists of a large rollout.

use crate::device::{Field, Limits, Shader};
use crate::op::gpu::word;
use crate::op::log::LogShape;

const THREADS: usize = 256;
/// Records of a block.
const TILE: usize = 16 * THREADS;

fn tiles(d: &LogShape) -> usize {
    (d.t * d.n).div_ceil(TILE)
}

/// Low and high half of a number of frames.
fn halves(low: &'static str, high: &'static str, x: u64) -> [Field; 2] {
    [Field { name: low, words: vec![x as u32] }, Field { name: high, words: vec![(x >> 32) as u32] }]
}

pub fn shaders(d: &LogShape, limits: &Limits) -> Vec<Shader> {
    let mut shape = vec![word("t", d.t), word("n", d.n)];
    shape.extend(halves("log_frequency", "log_frequency_high", d.log_frequency));
    shape.extend(halves("max_frame", "max_frame_high", d.max_frame));
    shape.extend([word("rows", d.rows), word("tiles", tiles(d))]);
    let shader = |entry: &str, tiles: usize| Shader {
        entry: entry.into(),
        swaps: super::lanes(limits),
        tiles: tiles as u32,
        parts: 1,
        threads: THREADS as u32,
        shape: shape.clone(),
    };
    let mut all = Vec::new();
    if tiles(d) > 1 {
        all.push(shader("log_list", tiles(d)));
    }
    all.push(shader("log_rows", 1));
    all
}

/// Episodes, ends of vector steps, tiles, steps that get a row.
pub fn scratch(d: &LogShape) -> usize {
    d.t * d.n + d.t + tiles(d) + d.rows
}
