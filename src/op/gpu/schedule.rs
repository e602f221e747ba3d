//! Launch of `kernels/schedule.cu`.

use super::{flag, word};
use crate::device::{Field, Kernel};
use crate::op::schedule::ScheduleShape;

pub fn kernels(d: &ScheduleShape) -> Vec<Kernel> {
    vec![Kernel { entry: "schedule".into(), tiles: 1, parts: 1, threads: 32, shared_bytes: 0, shape: shape(d) }]
}

/// The words that a gpu gets of the shape.
pub fn shape(d: &ScheduleShape) -> Vec<Field> {
    vec![
        word("t", d.t),
        word("n", d.n),
        word("groups", d.groups),
        flag("learned", d.log_alpha.is_some()),
        word("log_alpha", d.log_alpha.unwrap_or(0)),
    ]
}
