//! Memory and launches. Knows no op.
//!
//! A cohort plans every buffer in a [`Layout`], allocates them at once as one [`Memory`], and records its launches in
//! [`Queue`]s that are replayed. Buffers are handles, so a recorded launch stays valid for the life of the memory.
//! A back end is an arm of [`Device`] with a replay of its own, and an arena where its memory is not the host's.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod host;
mod queue;
mod remote;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use queue::{Call, Cx, Field, Kernel, Limits, Queue, Shader, Times};

use crate::error::{Error, Result};
use cpu::{Cpu, Isa};
#[cfg(feature = "cuda")]
use cuda::Cuda;
use remote::{Host, Remote};
use std::alloc::{Layout as Block, alloc_zeroed, dealloc};
use std::marker::PhantomData;
#[cfg(feature = "wgpu")]
use wgpu::Wgpu;

/// Words between buffers that no op may write; also the alignment of every buffer and session slice (64 bytes).
const GUARD: usize = 16;
const GUARD_WORD: u32 = 0xFEED_C0DE;

/// Where ops run.
pub enum Device {
    Cpu(Cpu),
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
    #[cfg(feature = "wgpu")]
    Wgpu(Wgpu),
}

impl Device {
    /// The cpu device with `threads` threads (0: one per available core).
    pub fn cpu(threads: usize) -> Device {
        Device::Cpu(Cpu::new(threads, Isa::detect()))
    }

    /// The cuda device with that number.
    ///
    /// # Errors
    /// Why there is none: not built in, no driver, no such device, one that is too old.
    pub fn cuda(ordinal: usize) -> Result<Device> {
        #[cfg(feature = "cuda")]
        return Cuda::open(ordinal).map(Device::Cuda);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = ordinal;
            Err(Error::new("--device", "no cuda device: not built into this version")
                .hint("build with the feature `cuda`, or use `--device cpu`"))
        }
    }

    /// The wgpu device with that number, GPUs before software.
    ///
    /// # Errors
    /// Why there is none: not built in, no adapter, no such number.
    pub fn wgpu(ordinal: usize) -> Result<Device> {
        #[cfg(feature = "wgpu")]
        return Wgpu::open(ordinal).map(Device::Wgpu);
        #[cfg(not(feature = "wgpu"))]
        {
            let _ = ordinal;
            Err(Error::new("--device", "no wgpu device: not built into this version")
                .hint("build with the feature `wgpu`, or use `--device cpu`"))
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Device::Cpu(_) => Kind::Cpu,
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Kind::Cuda,
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => Kind::Wgpu,
        }
    }

    /// For debugging: waits for every kernel of a gpu by itself, so that a fault names its op. The cpu always does.
    #[must_use]
    pub fn one_by_one(self) -> Device {
        match self {
            Device::Cpu(cpu) => Device::Cpu(cpu),
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => Device::Cuda(cuda.one_by_one()),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(wgpu) => Device::Wgpu(wgpu.one_by_one()),
        }
    }

    /// The device in a line to a person.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(_) => "cpu".to_string(),
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => cuda.describe(),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(wgpu) => wgpu.describe(),
        }
    }

    /// What it took to prepare the kernels so far, where that is worth a line.
    pub fn prepared(&self) -> Option<String> {
        match self {
            Device::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => None,
            #[cfg(feature = "wgpu")]
            Device::Wgpu(wgpu) => {
                let (kernels, seconds) = wgpu.compiled();
                Some(format!("{kernels} kernels compiled in {seconds:.2} s"))
            }
        }
    }

    fn as_cpu(&self) -> &Cpu {
        match self {
            Device::Cpu(cpu) => cpu,
            #[cfg(any(feature = "cuda", feature = "wgpu"))]
            _ => unreachable!("a memory without a device's own is the cpu's"),
        }
    }
}

/// A 32-bit word type that buffers hold.
pub trait Word: bytemuck::Pod {
    const DTYPE: Dtype;
}
impl Word for f32 {
    const DTYPE: Dtype = Dtype::F32;
}
impl Word for u32 {
    const DTYPE: Dtype = Dtype::U32;
}

/// The type of a buffer's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F32,
    U32,
}

/// A typed handle of one buffer; its memory is `[S, ..]`, one slice per session.
#[derive(Debug)]
pub struct Buf<T> {
    id: u32,
    word: PhantomData<T>,
}
impl<T> Clone for Buf<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Buf<T> {}
impl<T> Buf<T> {
    /// The buffer's number in its layout.
    pub fn id(self) -> usize {
        self.id as usize
    }
}

/// The kinds of devices: what may decide how an op is cut into tiles, beside its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Cpu,
    Cuda,
    Wgpu,
}

/// Number formats of the matrix products inside nets; everything else is f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// Operands rounded to bfloat16, sums in f32: the matrix units of a GPU, AVX-512 BF16 of a cpu. Weights, losses,
    /// log-probabilities and advantages stay f32.
    Bf16,
}

/// Whether a buffer goes into the resumable checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Read by the next iteration before it is written: part of every checkpoint.
    Saved,
    /// Written before it is read in every iteration.
    Scratch,
}

/// One planned buffer.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    /// Shape of one session's slice, without the leading S.
    pub shape: Vec<usize>,
    pub keep: Keep,
    /// Words of one session's slice.
    pub len: usize,
    offset: usize,
    stride: usize,
}

/// Every buffer of a cohort of `sessions` sessions, before it exists.
#[derive(Debug, Clone)]
pub struct Layout {
    kind: Kind,
    sessions: usize,
    entries: Vec<Entry>,
    words: usize,
    scratch: usize,
}

impl Layout {
    /// A layout of the cpu device.
    pub fn new(sessions: usize) -> Layout {
        Layout::on(Kind::Cpu, sessions)
    }

    /// A layout of a device of that kind.
    pub fn on(kind: Kind, sessions: usize) -> Layout {
        Layout { kind, sessions, entries: Vec::new(), words: GUARD, scratch: 0 }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Makes room for the scratch of an op's gpu kernels, words per session; ops share it.
    pub fn reserve_scratch(&mut self, words: usize) {
        self.scratch = self.scratch.max(words);
    }

    /// Words per session of the scratch that gpu kernels share.
    pub fn scratch(&self) -> usize {
        self.scratch
    }

    /// Plans a buffer `[S, shape..]`.
    pub fn buf<T: Word>(&mut self, name: &str, shape: &[usize], keep: Keep) -> Buf<T> {
        // sizes past the end of the address space stay there, and `allocate` refuses them
        let len = shape.iter().fold(1, |len: usize, size| len.saturating_mul(*size));
        let stride = len.checked_next_multiple_of(GUARD).unwrap_or(usize::MAX);
        let entry = Entry {
            name: name.to_string(),
            dtype: T::DTYPE,
            shape: shape.to_vec(),
            keep,
            len,
            offset: self.words,
            stride,
        };
        self.words = self.words.saturating_add(stride.saturating_mul(self.sessions)).saturating_add(GUARD);
        self.entries.push(entry);
        Buf { id: self.entries.len() as u32 - 1, word: PhantomData }
    }

    /// Bytes of device memory that an allocation will ask for.
    pub fn bytes(&self) -> usize {
        let words = match self.kind {
            Kind::Cpu => self.words,
            Kind::Cuda | Kind::Wgpu => self.device_words(),
        };
        words.saturating_mul(4)
    }

    /// Words from one session's slice of the scratch to the next.
    fn scratch_stride(&self) -> usize {
        self.scratch.checked_next_multiple_of(GUARD).unwrap_or(usize::MAX)
    }

    /// Words of the buffers, and behind them of the scratch that gpu kernels share.
    fn device_words(&self) -> usize {
        let scratch = self.scratch_stride().saturating_mul(self.sessions);
        self.words.saturating_add(scratch).saturating_add(if scratch > 0 { GUARD } else { 0 })
    }

    /// Where guard words start: before the first buffer and behind each.
    fn guards(&self) -> impl Iterator<Item = usize> + '_ {
        let ends = self.entries.iter().map(|e| e.offset + e.stride * self.sessions);
        std::iter::once(0).chain(ends)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Words of one session's slice of a buffer.
    pub fn len_of<T>(&self, buf: Buf<T>) -> usize {
        self.entries[buf.id()].len
    }

    /// Allocates everything in the memory of the host, zeroed: the cpu device's memory.
    ///
    /// # Errors
    /// Says how many bytes were asked for when the machine does not have them.
    pub fn allocate(self) -> Result<Memory> {
        let bytes = self.words.saturating_mul(4);
        let too_much = || out_of_memory("", &format!("{} for its buffers", human_bytes(bytes)));
        let block = Block::from_size_align(bytes, GUARD * 4).map_err(|_| too_much())?;
        // SAFETY: the size is never zero, a layout starts with guard words
        let base = unsafe { alloc_zeroed(block) }.cast::<u32>();
        if base.is_null() {
            return Err(too_much());
        }
        let memory = Memory { layout: self, base, block, remote: None };
        for at in memory.layout.guards() {
            // SAFETY: guards lie inside the block
            unsafe { base.add(at).cast::<[u32; GUARD]>().write([GUARD_WORD; GUARD]) };
        }
        Ok(memory)
    }

    /// Allocates everything on a device, zeroed. Of a layout for a gpu the host has a mirror beside it, whose pages the
    /// system gives out as they are used.
    ///
    /// # Errors
    /// Says how many bytes were asked for, and on a gpu how many are free.
    pub fn allocate_on(self, device: &Device) -> Result<Memory> {
        assert_eq!(self.kind, device.kind(), "a layout is allocated on the kind of device it was planned for");
        let remote: Option<Box<dyn Remote>> = match device {
            Device::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => Some(Box::new(cuda::Arena::new(cuda, &self)?)),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(wgpu) => Some(Box::new(wgpu::Arena::new(wgpu, &self)?)),
        };
        let is_mirror = remote.is_some();
        let allocated = self.allocate();
        let mut memory =
            allocated.map_err(|error| if is_mirror { error.within("the host's mirror") } else { error })?;
        memory.remote = remote;
        Ok(memory)
    }
}

/// The plan does not fit: `needs` says how much it asks for.
fn out_of_memory(place: &str, needs: &str) -> Error {
    Error::new(place, format!("out of memory: the plan needs {needs}"))
        .hint("lower `env.num_envs`, `meta.max_session`, `agent.algorithm.time_horizon` or what `agent.memory` holds")
}

/// `1536` as `1.5 KiB`.
pub fn human_bytes(bytes: usize) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

/// All buffers of a cohort: one zeroed, 64-byte aligned block, and on a gpu the device's own of the same layout.
///
/// With a gpu the host's block is a mirror that follows by itself: what is written here is uploaded before the next
/// replay, what a replay may have written is downloaded when it is next read.
pub struct Memory {
    layout: Layout,
    base: *mut u32,
    block: Block,
    /// The device's own memory, on a gpu.
    remote: Option<Box<dyn Remote>>,
}

// SAFETY: the arena is plain words; who may write what during a replay is the contract of `Call::run`
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout in `allocate`
        unsafe { dealloc(self.base.cast(), self.block) }
    }
}

impl Memory {
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn sessions(&self) -> usize {
        self.layout.sessions
    }

    /// Start of session `s`'s slice of buffer number `id` in the host's block.
    pub fn session_ptr(&self, id: usize, s: usize) -> *mut u32 {
        let entry = &self.layout.entries[id];
        assert!(s < self.layout.sessions, "a session index is below the cohort's size");
        // SAFETY: inside the block by construction of the layout
        unsafe { self.base.add(entry.offset + s * entry.stride) }
    }

    /// Session `s`'s slice of buffer number `id`, as raw words.
    ///
    /// # Panics
    /// A gpu that failed since the last replay; [`Memory::fetch`] tells that as an error.
    pub fn words(&self, id: usize, s: usize) -> &[u32] {
        self.bring(id, s);
        // SAFETY: the slice lies inside the block, and no replay runs while `&self` is borrowed by its owner
        unsafe { std::slice::from_raw_parts(self.session_ptr(id, s), self.layout.entries[id].len) }
    }

    /// As [`Memory::words`], to write.
    ///
    /// # Panics
    /// As [`Memory::words`].
    pub fn words_mut(&mut self, id: usize, s: usize) -> &mut [u32] {
        self.bring(id, s);
        if let Some(remote) = &mut self.remote {
            remote.touch(id, s);
        }
        // SAFETY: as above, and `&mut self` is exclusive
        unsafe { std::slice::from_raw_parts_mut(self.session_ptr(id, s), self.layout.entries[id].len) }
    }

    /// Makes one slice of the mirror up to date.
    fn bring(&self, id: usize, s: usize) {
        if let Some(remote) = &self.remote
            && !remote.is_fresh(id, s)
        {
            let fetched = remote.fetch(&self.host(), &[id], s..s + 1);
            fetched.unwrap_or_else(|error| panic!("`{}` cannot be read back: {error}", self.layout.entries[id].name));
        }
    }

    /// Brings buffers (in ascending order of their numbers) of some sessions to the host and waits for them; what lies
    /// side by side comes as one copy. Nothing to do on the cpu.
    ///
    /// # Errors
    /// A kernel of an earlier replay failed, or the device is gone.
    pub fn fetch(&self, ids: &[usize], sessions: std::ops::Range<usize>) -> Result<()> {
        self.remote.as_ref().map_or(Ok(()), |remote| remote.fetch(&self.host(), ids, sessions))
    }

    /// Waits for every replay so far.
    ///
    /// # Errors
    /// As [`Memory::fetch`].
    pub fn wait(&self) -> Result<()> {
        self.remote.as_ref().map_or(Ok(()), |remote| remote.wait())
    }

    fn host(&self) -> Host<'_> {
        Host { layout: &self.layout, base: self.base }
    }

    /// Both sides of a memory on a gpu; none of the cpu's.
    fn on(&mut self, device: &Device) -> Option<(&mut (dyn Remote + 'static), Host<'_>)> {
        assert_eq!(self.layout.kind, device.kind(), "a memory is replayed on the device it was allocated on");
        let host = Host { layout: &self.layout, base: self.base };
        self.remote.as_mut().map(|remote| (&mut **remote, host))
    }

    /// Session `s`'s slice of a buffer.
    pub fn read<T: Word>(&self, buf: Buf<T>, s: usize) -> &[T] {
        bytemuck::cast_slice(self.words(buf.id(), s))
    }

    /// Session `s`'s slice of a buffer, to write.
    pub fn write<T: Word>(&mut self, buf: Buf<T>, s: usize) -> &mut [T] {
        bytemuck::cast_slice_mut(self.words_mut(buf.id(), s))
    }

    /// The name of the first buffer behind which an op has written past the end.
    ///
    /// # Panics
    /// As [`Memory::words`].
    pub fn overrun(&self) -> Option<&str> {
        if let Some(remote) = &self.remote {
            return remote.overrun(&self.layout).unwrap_or_else(|error| panic!("guards cannot be read back: {error}"));
        }
        // SAFETY: guards lie inside the block
        let hit = self.layout.guards().position(|at| {
            unsafe { std::slice::from_raw_parts(self.base.add(at), GUARD) }.iter().any(|&w| w != GUARD_WORD)
        })?;
        Some(if hit == 0 { "the arena's start" } else { &self.layout.entries[hit - 1].name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_guarded() {
        let mut layout = Layout::new(3);
        let a = layout.buf::<f32>("a", &[5], Keep::Saved);
        let b = layout.buf::<u32>("b", &[2, 20], Keep::Scratch);
        let mut memory = layout.allocate().unwrap();
        assert_eq!(memory.read(b, 2), &[0; 40]);
        assert_eq!(memory.session_ptr(a.id(), 1) as usize % 64, 0);
        memory.write(a, 2)[4] = 1.0;
        assert_eq!(memory.overrun(), None);
        // SAFETY: one word behind `a`'s last slice, still inside the arena
        unsafe { memory.session_ptr(a.id(), 2).add(16).write(7) };
        assert_eq!(memory.overrun(), Some("a"));
    }

    #[test]
    fn a_plan_too_large_says_so() {
        // the last one would wrap to a small number
        for shape in [[1, 1 << 60], [1 << 32, 1 << 32]] {
            let mut layout = Layout::new(3);
            layout.buf::<f32>("x", &shape, Keep::Saved);
            let error = layout.allocate().err().unwrap().to_string();
            assert!(error.starts_with("out of memory: the plan needs"), "{error}");
        }
    }
}
