//! Launch of `shaders/target.wgsl`: a lane per parameter.

use crate::device::Shader;
use crate::op::gpu::{flag, word};
use crate::op::target::{Follow, TargetShape};

/// Lanes of a block, and most blocks.
const THREADS: usize = 256;
const BLOCKS: usize = 1024;

pub fn shaders(d: &TargetShape) -> Vec<Shader> {
    let tiles = d.len.div_ceil(THREADS).min(BLOCKS);
    vec![Shader {
        entry: "target_follow".into(),
        swaps: Vec::new(),
        tiles: tiles as u32,
        parts: 1,
        threads: THREADS as u32,
        shape: vec![
            word("first", d.from),
            word("len", d.len),
            flag("polyak", d.follow == Follow::Polyak),
            word("n", d.n),
            word("every", d.every),
            word("lanes", tiles * THREADS),
            word("at", d.at),
        ],
    }]
}
