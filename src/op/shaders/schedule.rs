//! Launch of `shaders/schedule.wgsl`.

use crate::device::{Limits, Shader};
use crate::op::gpu::schedule::shape;
use crate::op::schedule::ScheduleShape;

pub fn shaders(d: &ScheduleShape, _: &Limits) -> Vec<Shader> {
    vec![Shader { entry: "schedule".into(), swaps: Vec::new(), tiles: 1, parts: 1, threads: 32, shape: shape(d) }]
}
