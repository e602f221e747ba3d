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
