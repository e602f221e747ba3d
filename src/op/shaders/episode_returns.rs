//! Launches of `shaders/episode_returns.wgsl`: a block per vector step, then one block.

use super::tree;
use crate::device::Shader;
use crate::op::episode_returns::EpisodeShape;
use crate::op::gpu::{flag, word};

/// Lanes of a block.
const THREADS: usize = 256;

pub fn shaders(d: &EpisodeShape) -> Vec<Shader> {
    let launch = |entry: &str, tiles: usize| {
        let mut shape = vec![
            word("t", d.t),
            word("n", d.n),
            word("c", d.c),
            word("obs", d.obs),
            word("action", d.action),
            flag("prioritized", d.prioritized),
        ];
        shape.extend(tree(d.rows()));
        Shader { entry: entry.into(), swaps: Vec::new(), tiles: tiles as u32, parts: 1, threads: THREADS as u32, shape }
    };
    vec![launch("episode_returns_keep", d.t), launch("episode_returns_walk", 1)]
}
