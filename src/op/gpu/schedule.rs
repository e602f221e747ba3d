//! Launch of `kernels/schedule.cu`.

use super::word;
use crate::device::Kernel;
use crate::op::schedule::ScheduleShape;

pub fn kernels(d: &ScheduleShape) -> Vec<Kernel> {
    vec![Kernel {
        entry: "schedule".into(),
        tiles: 1,
        parts: 1,
        threads: 32,
        shared_bytes: 0,
        shape: vec![word("t", d.t), word("n", d.n), word("groups", d.groups)],
    }]
}
