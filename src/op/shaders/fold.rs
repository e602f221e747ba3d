//! Launch of `shaders/fold.wgsl`: a lane per parameter of a plain critic.

use crate::device::Shader;
use crate::op::fold::FoldShape;
use crate::op::gpu::{net, number, renorm, word};

/// Lanes of a block.
const THREADS: usize = 256;

pub fn shaders(d: &FoldShape) -> Vec<Shader> {
    vec![Shader {
        entry: "fold".into(),
        swaps: Vec::new(),
        tiles: d.critic.mlp.len().div_ceil(THREADS) as u32,
        parts: 2,
        threads: THREADS as u32,
        shape: vec![
            word("first", d.at),
            renorm("critic", &d.critic),
            net("plain", Some(&d.critic.mlp)),
            word("units", d.critic.units()),
            number("eps", d.critic.eps),
        ],
    }]
}
