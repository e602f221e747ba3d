//! Launches of `kernels/episode_returns.cu`: a block per vector step, then a block per session.

use super::{flag, tree, word};
use crate::device::Kernel;
use crate::op::episode_returns::EpisodeShape;

/// Lanes of a block.
const THREADS: usize = 256;

pub fn kernels(d: &EpisodeShape) -> Vec<Kernel> {
    let launch = |entry: &str, tiles: usize| Kernel {
        entry: entry.into(),
        tiles: tiles as u32,
        parts: 1,
        threads: THREADS as u32,
        shared_bytes: 0,
        shape: vec![
            word("t", d.t),
            word("n", d.n),
            word("c", d.c),
            word("obs", d.obs),
            word("action", d.action),
            flag("prioritized", d.prioritized),
            tree("levels", d.rows()),
        ],
    };
    vec![launch("episode_returns_keep", d.t), launch("episode_returns_walk", 1)]
}
