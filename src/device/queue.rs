//! Launches: what an op hands to a device, and the queues of them that are recorded once and replayed.

use super::cpu::Isa;
use super::{Device, Memory};
use crate::error::Result;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// One launch of a gpu kernel: `tiles` x sessions x `parts` blocks of `threads` threads. An op may be several, in order;
/// all of them take the same three parameters: the words of the shape, the table of running sessions, and a slice
/// `{address, stride, len}` for every argument of the op and for its scratch.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// Entry point, unique among all kernels.
    pub entry: String,
    /// Blocks along x and z of the grid; y is the session.
    pub tiles: u32,
    pub parts: u32,
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Members of the kernel's shape struct, in order.
    pub shape: Vec<Field>,
}

/// One launch of a WGSL kernel: `tiles` x sessions x `parts` blocks of `threads` threads. An op may be several, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Shader {
    /// Entry point in `shaders/<op>.wgsl`.
    pub entry: String,
    /// Words of the op's `#import` lines and what they stand for here, such as `ENV`.
    pub swaps: Vec<(&'static str, &'static str)>,
    /// Blocks along x and z of the grid; y is the session.
    pub tiles: u32,
    pub parts: u32,
    pub threads: u32,
    /// Members of the op's `Shape`, which become constants of the text, and of its `Launch`, which do not.
    pub shape: Vec<Field>,
}

/// What an adapter lets a WGSL kernel have: what may decide how an op is cut, beside its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of a block's workgroup memory.
    pub shared_bytes: usize,
    /// Whether lanes of a subgroup see each other's registers.
    pub subgroups: bool,
}

impl Limits {
    /// What every adapter has.
    pub const WEBGPU: Limits = Limits { threads: 256, shared_bytes: 16 << 10, subgroups: false };
}

/// One member of a shape struct: its name and its 32-bit words.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: &'static str,
    pub words: Vec<u32>,
}

/// What a launch on the cpu needs beside its buffers.
pub struct Cx<'a> {
    pub isa: Isa,
    /// Which tile of the session this is.
    pub tile: usize,
    /// This thread's scratch words, at least as many as the call asked for; contents are arbitrary.
    pub scratch: &'a mut [f32],
}

/// A recorded launch of one op.
pub trait Call: Send + Sync {
    fn name(&self) -> &'static str;
    /// Independent pieces of one session's work; a function of shapes alone.
    fn tiles(&self) -> usize;
    /// Scratch words per thread.
    fn scratch_words(&self) -> usize;
    /// Rough floating-point operations of one session: decides whether threads are worth waking.
    fn flops(&self) -> f64;
    /// What a gpu launches for this call, in order.
    fn kernels(&self) -> Vec<Kernel>;
    /// Scratch words per session that those kernels need.
    fn device_scratch(&self) -> usize;
    /// What a wgpu adapter with these limits launches for this call, in order.
    fn shaders(&self, limits: &Limits) -> Vec<Shader>;
    /// Scratch words per session that those kernels need, whatever the limits.
    fn shader_scratch(&self) -> usize;
    /// Numbers of the buffers in the order of the op's arguments.
    fn args(&self) -> Vec<usize>;
    /// Runs one tile of session `s`.
    ///
    /// # Safety
    /// No other thread may run the same (session, tile), nor another call of the same session.
    unsafe fn run(&self, memory: &Memory, s: usize, cx: &mut Cx<'_>);
}

/// A boxed or shared call is a call.
impl<T: Deref<Target = dyn Call> + Send + Sync> Call for T {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn tiles(&self) -> usize {
        (**self).tiles()
    }
    fn scratch_words(&self) -> usize {
        (**self).scratch_words()
    }
    fn flops(&self) -> f64 {
        (**self).flops()
    }
    fn kernels(&self) -> Vec<Kernel> {
        (**self).kernels()
    }
    fn device_scratch(&self) -> usize {
        (**self).device_scratch()
    }
    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        (**self).shaders(limits)
    }
    fn shader_scratch(&self) -> usize {
        (**self).shader_scratch()
    }
    fn args(&self) -> Vec<usize> {
        (**self).args()
    }
    unsafe fn run(&self, memory: &Memory, s: usize, cx: &mut Cx<'_>) {
        // SAFETY: forwarded
        unsafe { (**self).run(memory, s, cx) }
    }
}

/// Times of a queue, in milliseconds: on a gpu those of the device, by its own clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// One replay of the whole queue.
    pub replay_ms: f64,
    /// Each call by itself, with its op's name; on a gpu a short one takes as long as the host needs to launch it.
    pub calls: Vec<(&'static str, f64)>,
}

/// Launches in order, recorded once and replayed.
pub struct Queue {
    /// No other queue of this process has it: what a device prepared for this one is found by it.
    id: u64,
    calls: Vec<Box<dyn Call>>,
}

impl Default for Queue {
    fn default() -> Queue {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Queue { id: NEXT.fetch_add(1, Ordering::Relaxed), calls: Vec::new() }
    }
}

impl Queue {
    pub fn push(&mut self, call: impl Call + 'static) {
        self.calls.push(Box::new(call));
    }

    pub fn calls(&self) -> &[Box<dyn Call>] {
        &self.calls
    }

    /// The queue's number in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Does what the first replay would do before it launches anything: on a gpu, checks that every kernel fits the device
    /// and has the driver compile it.
    ///
    /// # Errors
    /// A gpu that cannot launch what is recorded.
    pub fn prepare(&self, device: &Device, memory: &mut Memory) -> Result<()> {
        match memory.on(device) {
            None => Ok(()),
            Some((remote, host)) => remote.prepare(&host, self),
        }
    }

    /// Measures a whole replay and each call by itself, for benches. The memory moves on as by that many replays.
    ///
    /// # Errors
    /// As [`Queue::replay`].
    pub fn time(&self, device: &Device, memory: &mut Memory, sessions: &[usize], repeats: u32) -> Result<Times> {
        if let Some((remote, host)) = memory.on(device) {
            return remote.time(&host, self, sessions, repeats);
        }
        let timed = |calls: &[Box<dyn Call>]| {
            let began = Instant::now();
            (0..repeats).for_each(|_| device.as_cpu().replay(calls, memory, sessions));
            began.elapsed().as_secs_f64() * 1e3 / f64::from(repeats)
        };
        let replay_ms = timed(&self.calls);
        let calls = self.calls.iter().map(|call| (call.name(), timed(std::slice::from_ref(call)))).collect();
        Ok(Times { replay_ms, calls })
    }

    /// Runs every call for the given sessions, in order within a session. The cpu is done when this returns and has
    /// allocated nothing; a gpu has it enqueued, at most a few replays ahead of what it has done.
    ///
    /// # Errors
    /// A gpu that cannot launch what is recorded, or on which this or an earlier replay failed.
    pub fn replay(&self, device: &Device, memory: &mut Memory, sessions: &[usize]) -> Result<()> {
        if let Some((remote, host)) = memory.on(device) {
            return remote.replay(&host, self, sessions);
        }
        device.as_cpu().replay(&self.calls, memory, sessions);
        Ok(())
    }
}
