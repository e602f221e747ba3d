//! Launch of `kernels/target.cu`: a lane per parameter.

use super::{flag, word};
use crate::device::Kernel;
use crate::op::target::{Follow, TargetShape};

/// Lanes of a block.
const THREADS: usize = 256;

pub fn kernels(d: &TargetShape) -> Vec<Kernel> {
    vec![Kernel {
        entry: "target".into(),
        tiles: d.len.div_ceil(THREADS) as u32,
        parts: 1,
        threads: THREADS as u32,
        shared_bytes: 0,
        shape: vec![
            word("from", d.from),
            word("len", d.len),
            flag("replace", d.follow == Follow::Replace),
            word("n", d.n),
            word("at", d.at),
            word("every", d.every),
        ],
    }]
}
