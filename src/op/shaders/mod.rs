//! How ops are launched on a wgpu adapter: grids, blocks, and the members of their shape structs. One file per op; the
//! kernels themselves are `shaders/<op>.wgsl`.

pub mod actor_grad;
pub mod advantage;
pub mod critic_grad;
pub mod crossq_grad;
pub mod episode_returns;
pub mod fold;
pub mod imitate;
pub mod log;
pub mod minibatch_grad;
pub mod obs_moments;
pub mod optimize;
pub mod prioritize;
pub mod recurrent_rollout;
pub mod rollout;
pub mod sample;
pub mod schedule;
pub mod sequence_grad;
pub mod sequence_order;
pub mod sequence_td_grad;
pub mod shuffle;
mod soft;
pub mod target;
pub mod td_grad;
mod through;

use super::lib::tree;
use crate::device::{Field, Limits};
use crate::op::gpu::word;

/// The swap of a kernel whose lanes meet: in registers where the adapter has subgroups, else in workgroup memory.
fn lanes(limits: &Limits) -> Vec<(&'static str, &'static str)> {
    if limits.subgroups { vec![("lanes", "lanes_subgroup")] } else { Vec::new() }
}

/// Most levels of a tree of priorities: `TREE_LEVELS` of `shaders/lib/tree.wgsl`.
const LEVELS: usize = 8;

/// The members that `shaders/lib/tree.wgsl` asks of a shape: children of a node, and `struct Levels`.
fn tree(leaves: usize) -> [Field; 2] {
    let levels = tree::levels(leaves);
    let mut words = vec![levels.len() as u32];
    words.extend(levels.iter().map(|&(start, _)| start as u32));
    words.resize(1 + LEVELS, 0);
    [word("children", tree::CHILDREN), Field { name: "levels", words }]
}
