//! An op's call as a queue takes it. The benches have this file too.

use slm_fast::device::{Call, Cx, Kernel, Memory};
use std::sync::Arc;

/// A call that may be in a queue several times.
pub struct Recorded {
    pub call: Arc<dyn Call>,
    /// NaN in the scratch before each run, and so much work declared that threads are woken for the smallest case.
    pub hard: bool,
}

impl Call for Recorded {
    fn name(&self) -> &'static str {
        self.call.name()
    }
    fn tiles(&self) -> usize {
        self.call.tiles()
    }
    fn scratch_words(&self) -> usize {
        self.call.scratch_words()
    }
    fn flops(&self) -> f64 {
        if self.hard { 1e12 } else { self.call.flops() }
    }
    fn kernels(&self) -> Vec<Kernel> {
        self.call.kernels()
    }
    fn device_scratch(&self) -> usize {
        self.call.device_scratch()
    }
    fn args(&self) -> Vec<usize> {
        self.call.args()
    }
    unsafe fn run(&self, memory: &Memory, s: usize, cx: &mut Cx<'_>) {
        if self.hard {
            // the scratch of a real run is what earlier ops left there
            let words = self.call.scratch_words();
            cx.scratch[..words].fill(f32::NAN);
        }
        // SAFETY: forwarded
        unsafe { self.call.run(memory, s, cx) }
    }
}
