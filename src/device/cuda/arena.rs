//! The memory of a cohort on the device, and how the host's copy of it is kept up to date.
//!
//! One block holds every buffer at the host's own offsets, then the scratch that kernels share, then the table of
//! running sessions. The host's block is a mirror: what the host writes is uploaded before the next replay, what a replay
//! may have written is downloaded when it is next asked for. Nothing is copied that nobody reads.

use super::driver::{Block, Event, Failure, Pinned, Stream};
use super::launch::Recorded;
use super::{Cuda, Shared};
use crate::device::{GUARD, GUARD_WORD, Layout, human_bytes, out_of_memory};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Most words that one read-back brings through page-locked memory; a larger one goes straight to its place.
const LANDING: usize = 1 << 20;
/// Replays that may be enqueued before the host waits for the oldest: enough that the device never idles, few enough
/// that progress and Ctrl-C stay prompt.
const FLIGHT: usize = 3;
/// A NaN that no op computes, in scratch before it is written.
const POISON: u32 = 0x7FD5_5555;

/// The host's side of a memory.
pub struct Host<'a> {
    pub layout: &'a Layout,
    /// The first word of the host's block.
    pub base: *mut u32,
}

/// Device memory of a cohort, with the stream that all its work goes through.
pub struct Arena {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Stream,
    pub(super) block: Block,
    /// The first word of the scratch, and the words of a session's slice of it.
    pub(super) scratch: (usize, usize),
    /// The first word of the table of running sessions.
    pub(super) table: usize,
    /// What the table holds: the number of running sessions, then their positions.
    running: Vec<u32>,
    sessions: usize,
    mirror: Mirror,
    landing: Mutex<Landing>,
    flight: Flight,
    pub(super) recorded: Vec<Recorded>,
}

/// Which words are newer where, by buffer and session.
struct Mirror {
    sessions: usize,
    /// By buffer: the number of the last replay that may have written it.
    written: Vec<AtomicU64>,
    /// By buffer and session: the number of the replay whose result the host has.
    fetched: Vec<AtomicU64>,
    /// By buffer and session: written by the host, not yet uploaded.
    dirty: Vec<bool>,
    any_dirty: bool,
    replays: u64,
}

impl Mirror {
    fn new(buffers: usize, sessions: usize) -> Mirror {
        let zeros = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        Mirror {
            sessions,
            written: zeros(buffers),
            fetched: zeros(buffers * sessions),
            dirty: vec![false; buffers * sessions],
            any_dirty: false,
            replays: 0,
        }
    }

    fn is_fresh(&self, id: usize, s: usize) -> bool {
        self.written[id].load(Ordering::Acquire) <= self.fetched[id * self.sessions + s].load(Ordering::Acquire)
    }

    fn set_fresh(&self, id: usize, s: usize) {
        self.fetched[id * self.sessions + s].store(self.written[id].load(Ordering::Acquire), Ordering::Release);
    }

    fn replayed(&mut self, written: &[usize]) {
        self.replays += 1;
        for &id in written {
            *self.written[id].get_mut() = self.replays;
        }
    }
}

/// Page-locked memory for what is read back, and the mark behind the copies into it.
struct Landing {
    pinned: Pinned,
    landed: Event,
    /// Words of the arena, in order; the copies of one read-back.
    runs: Vec<Range<usize>>,
}

/// Marks behind the last replays, oldest first from `next` on.
struct Flight {
    marks: Vec<Event>,
    next: usize,
    launched: usize,
}

impl Arena {
    /// Allocates the device's side of a layout: zeroed, guard words in place.
    ///
    /// # Errors
    /// Says what is asked for and what is free when the device does not have it.
    pub fn new(cuda: &Cuda, layout: &Layout) -> Result<Arena> {
        let shared = cuda.shared.clone();
        let (context, place) = (shared.context.clone(), shared.place());
        let (free, total) = context.memory().map_err(|f| shared.failed(f, "asking for free memory"))?;
        let stride = layout.scratch_stride();
        let scratch = layout.words;
        let table = layout.device_words();
        let words = table.saturating_add(1 + layout.sessions);
        let bytes = words.saturating_mul(4);
        let too_much = || {
            let have = format!("{} of {} on {}", human_bytes(free), human_bytes(total), cuda.describe());
            out_of_memory(&place, &format!("{} for its buffers; free are {have}", human_bytes(bytes)))
        };
        if bytes > free {
            return Err(too_much());
        }
        let block = Block::new(&context, words).map_err(|failure| match failure.code {
            super::driver::Code::CUDA_ERROR_OUT_OF_MEMORY => too_much(),
            _ => shared.failed(failure, "allocating memory"),
        })?;
        let made = || -> std::result::Result<Arena, Failure> {
            let stream = Stream::new(&context)?;
            block.fill(&stream, 0, words, 0)?;
            for at in guards(layout) {
                block.fill(&stream, at, GUARD, GUARD_WORD)?;
            }
            let landing = Landing {
                pinned: Pinned::new(&context, LANDING.min(layout.words))?,
                landed: Event::new(&context, false)?,
                runs: Vec::with_capacity(layout.entries.len() * layout.sessions),
            };
            let marks = (0..FLIGHT).map(|_| Event::new(&context, false)).collect::<std::result::Result<_, _>>()?;
            Ok(Arena {
                shared: shared.clone(),
                stream,
                block,
                scratch: (scratch, stride),
                table,
                running: vec![0],
                sessions: layout.sessions,
                mirror: Mirror::new(layout.entries.len(), layout.sessions),
                landing: Mutex::new(landing),
                flight: Flight { marks, next: 0, launched: 0 },
                recorded: Vec::new(),
            })
        };
        made().map_err(|failure| shared.failed(failure, "preparing the device's memory"))
    }

    /// Whether the host has what the device last wrote to a slice.
    pub fn is_fresh(&self, id: usize, s: usize) -> bool {
        self.mirror.is_fresh(id, s)
    }

    /// Notes that the host writes a slice.
    pub fn touch(&mut self, id: usize, s: usize) {
        self.mirror.dirty[id * self.sessions + s] = true;
        self.mirror.any_dirty = true;
    }

    /// Brings slices of `ids` (ascending) and `sessions` (ascending) to the host where the device has newer ones, and
    /// waits for them. Slices that lie side by side come as one copy.
    ///
    /// # Errors
    /// A kernel enqueued earlier failed, or the device is gone.
    pub fn fetch(&self, host: &Host<'_>, ids: &[usize], sessions: Range<usize>) -> Result<()> {
        let mut landing = self.landing.lock().expect("nothing panics while words are read back");
        let Landing { pinned, landed, runs } = &mut *landing;
        runs.clear();
        for &id in ids {
            for s in sessions.clone().filter(|&s| !self.is_fresh(id, s)) {
                let slice = slice(host.layout, id, s);
                match runs.last_mut() {
                    // the gap between neighbouring buffers is one guard
                    Some(run) if slice.start - run.end <= GUARD => run.end = slice.end,
                    _ => runs.push(slice),
                }
            }
        }
        if runs.is_empty() {
            return Ok(());
        }
        let words: usize = runs.iter().map(|run| run.len()).sum();
        let mut copied = || -> std::result::Result<(), Failure> {
            self.shared.context.bind()?;
            if words > pinned.words() {
                for run in runs.iter() {
                    // SAFETY: the same words of the host's block, which nobody reads before they are fresh
                    unsafe { self.block.download(&self.stream, run.start, run.len(), host.base.add(run.start))? };
                }
                return self.stream.synchronize();
            }
            let (start, mut at) = (pinned.start(), 0);
            for run in runs.iter() {
                // SAFETY: the sum of all runs fits, and the mark is waited for below
                unsafe { self.block.download(&self.stream, run.start, run.len(), start.add(at))? };
                at += run.len();
            }
            landed.record(&self.stream)?;
            landed.wait()?;
            at = 0;
            for run in runs.iter() {
                // SAFETY: both sides hold the run, and nobody reads the host's before it is fresh
                unsafe { start.add(at).copy_to_nonoverlapping(host.base.add(run.start), run.len()) };
                at += run.len();
            }
            Ok(())
        };
        copied().map_err(|failure| self.lost(failure))?;
        for &id in ids {
            sessions.clone().for_each(|s| self.mirror.set_fresh(id, s));
        }
        Ok(())
    }

    /// Uploads what the host wrote and the table of running sessions, if there is anything new.
    pub(super) fn upload(&mut self, host: &Host<'_>, sessions: &[usize]) -> Result<()> {
        let is_same = self.running[0] as usize == sessions.len()
            && self.running[1..].iter().zip(sessions).all(|(&a, &b)| a as usize == b);
        if is_same && !self.mirror.any_dirty {
            return Ok(());
        }
        assert!(sessions.iter().all(|&s| s < self.sessions), "a session index is below the cohort's size");
        let mut enqueue = || -> std::result::Result<(), Failure> {
            if !is_same {
                self.running.clear();
                self.running.push(sessions.len() as u32);
                self.running.extend(sessions.iter().map(|&s| s as u32));
                self.block.upload(&self.stream, self.table, &self.running)?;
            }
            let slices = self.mirror.dirty.chunks(self.sessions).enumerate();
            for (id, dirty) in slices.filter(|_| self.mirror.any_dirty) {
                let mut s = 0;
                while let Some(first) = (s..self.sessions).find(|&s| dirty[s]) {
                    s = (first..self.sessions).find(|&s| !dirty[s]).unwrap_or(self.sessions);
                    let run = slice(host.layout, id, first).start..slice(host.layout, id, s - 1).end;
                    // SAFETY: whole slices of the host's block, written before the replay that asks for this
                    let words = unsafe { std::slice::from_raw_parts(host.base.add(run.start), run.len()) };
                    self.block.upload(&self.stream, run.start, words)?;
                }
            }
            // the host may write again at once; uploads are rare, so waiting costs nothing
            self.stream.synchronize()
        };
        enqueue().map_err(|failure| self.lost(failure))?;
        self.mirror.dirty.fill(false);
        self.mirror.any_dirty = false;
        Ok(())
    }

    /// Waits until there is room for another replay.
    pub(super) fn await_room(&mut self) -> Result<()> {
        let flight = &self.flight;
        if flight.launched >= flight.marks.len() {
            flight.marks[flight.next].wait().map_err(|failure| self.lost(failure))?;
        }
        Ok(())
    }

    /// Notes that a replay is enqueued which may have written `written`.
    pub(super) fn launched(&mut self, written: &[usize]) -> Result<()> {
        let Flight { marks, next, launched } = &mut self.flight;
        marks[*next].record(&self.stream).map_err(|failure| self.shared.failed(failure, "marking a replay"))?;
        (*next, *launched) = ((*next + 1) % marks.len(), *launched + 1);
        self.mirror.replayed(written);
        Ok(())
    }

    /// Waits for everything enqueued.
    ///
    /// # Errors
    /// A kernel failed, or the device is gone.
    pub fn wait(&self) -> Result<()> {
        let waited = self.shared.context.bind().and_then(|()| self.stream.synchronize());
        waited.map_err(|failure| self.lost(failure))
    }

    /// Fills the scratch with a NaN, so that an op which reads what it did not write shows it.
    pub(super) fn poison(&self) -> std::result::Result<(), Failure> {
        let (at, stride) = self.scratch;
        if stride == 0 { Ok(()) } else { self.block.fill(&self.stream, at, stride * self.sessions, POISON) }
    }

    /// A failure of work that was enqueued earlier, which the driver reports late.
    pub(super) fn lost(&self, failure: Failure) -> Error {
        let mut ops: Vec<&str> = Vec::new();
        for op in self.recorded.iter().flat_map(Recorded::ops) {
            if !ops.contains(&op) {
                ops.push(op);
            }
        }
        let doing = format!("a kernel of {} failed, or the device was lost", quoted(&ops));
        self.shared
            .failed(failure, &doing)
            .hint("`slm-fast dev SPEC --device cuda` waits for every kernel and names it")
    }

    /// The first buffer behind which an op has written on the device; `scratch` for the scratch of kernels.
    ///
    /// # Errors
    /// Whatever the driver says.
    pub fn overrun<'a>(&self, layout: &'a Layout) -> Result<Option<&'a str>> {
        self.shared.context.bind().map_err(|failure| self.lost(failure))?;
        for (number, at) in guards(layout).enumerate() {
            let mut words = [0; GUARD];
            // SAFETY: waited for at once
            let copied = unsafe { self.block.download(&self.stream, at, GUARD, words.as_mut_ptr()) };
            copied.and_then(|()| self.stream.synchronize()).map_err(|failure| self.lost(failure))?;
            if words != [GUARD_WORD; GUARD] {
                let name = layout.entries.get(number.saturating_sub(1)).map(|entry| &entry.name[..]);
                return Ok(Some(if number > layout.entries.len() { "scratch" } else { name.unwrap_or("arena") }));
            }
        }
        Ok(None)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // graphs and blocks go only when no kernel uses them; a failure was told by the call that met it
        let _ = self.shared.context.bind().and_then(|()| self.stream.synchronize());
    }
}

/// Words of session `s`'s slice, its padding included.
fn slice(layout: &Layout, id: usize, s: usize) -> Range<usize> {
    let entry = &layout.entries[id];
    let start = entry.offset + s * entry.stride;
    start..start + entry.stride
}

/// First words of all guards: before the first buffer, behind each, and behind the scratch.
fn guards(layout: &Layout) -> impl Iterator<Item = usize> {
    let behind_scratch = layout.device_words() - GUARD;
    layout.guards().chain((layout.scratch_stride() > 0).then_some(behind_scratch))
}

/// "`a`, `b`", or "this queue".
fn quoted(names: &[&str]) -> String {
    match names {
        [] => "this queue".to_string(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Keep, Kind};

    #[test]
    fn a_replay_makes_what_it_may_write_stale_session_by_session() {
        let mut mirror = Mirror::new(2, 3);
        assert!((0..2).all(|id| (0..3).all(|s| mirror.is_fresh(id, s))));
        mirror.replayed(&[1]);
        assert!(mirror.is_fresh(0, 2) && !mirror.is_fresh(1, 0) && !mirror.is_fresh(1, 2));
        mirror.set_fresh(1, 2);
        assert!(!mirror.is_fresh(1, 0) && mirror.is_fresh(1, 2));
        mirror.replayed(&[0, 1]);
        assert!(!mirror.is_fresh(0, 0) && !mirror.is_fresh(1, 2));
    }

    #[test]
    fn scratch_lies_behind_the_buffers_with_a_guard_behind_it() {
        let mut layout = Layout::on(Kind::Cuda, 3);
        layout.buf::<f32>("a", &[5], Keep::Saved);
        layout.buf::<f32>("b", &[20], Keep::Scratch);
        let buffers = GUARD + 3 * 16 + GUARD + 3 * 32 + GUARD;
        assert_eq!((layout.words, layout.bytes()), (buffers, buffers * 4));
        assert_eq!(guards(&layout).collect::<Vec<_>>(), [0, 64, 176]);
        layout.reserve_scratch(17);
        layout.reserve_scratch(3);
        assert_eq!(layout.bytes(), (buffers + 3 * 32 + GUARD) * 4);
        assert_eq!(guards(&layout).last(), Some(buffers + 3 * 32));
        assert_eq!(slice(&layout, 1, 2), 80 + 64..80 + 96);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted(&["rollout", "log"]), "`rollout`, `log`");
        assert_eq!(quoted(&[]), "this queue");
    }
}
