//! How ops are launched on a wgpu adapter: grids, blocks, and the members of their shape structs. One file per op; the
//! kernels themselves are `shaders/<op>.wgsl`.

pub mod advantage;
pub mod log;
pub mod minibatch_grad;
pub mod obs_moments;
pub mod optimize;
pub mod rollout;
pub mod schedule;
pub mod shuffle;

use crate::device::Limits;

/// The swap of a kernel whose lanes meet: in registers where the adapter has subgroups, else in workgroup memory.
fn lanes(limits: &Limits) -> Vec<(&'static str, &'static str)> {
    if limits.subgroups { vec![("lanes", "lanes_subgroup")] } else { Vec::new() }
}
