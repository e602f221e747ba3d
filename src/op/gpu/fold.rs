//! Launch of `kernels/fold.cu`: a lane per parameter of a plain critic.

use super::soft::renorm;
use super::{net, number, word};
use crate::device::Kernel;
use crate::op::fold::FoldShape;

/// Lanes of a block.
const THREADS: usize = 256;

pub fn kernels(d: &FoldShape) -> Vec<Kernel> {
    vec![Kernel {
        entry: "fold".into(),
        tiles: d.critic.mlp.len().div_ceil(THREADS) as u32,
        parts: 2,
        threads: THREADS as u32,
        shared_bytes: 0,
        shape: vec![
            word("at", d.at),
            renorm("critic", &d.critic),
            net("plain", Some(&d.critic.mlp)),
            number("eps", d.critic.eps),
        ],
    }]
}
