//! How ops are launched on a wgpu adapter: grids, blocks, and the members of their shape structs. One file per op; the
//! kernels themselves are `shaders/<op>.wgsl`.

pub mod rollout;
pub mod schedule;
