//! The memory of a cohort on the device: one block holds every buffer at the host's own offsets, then the scratch that
//! kernels share, then the table of running sessions.

use super::driver::{Block, Event, Failure, Pinned, Stream};
use super::launch::Recorded;
use super::{Cuda, Shared};
use crate::device::remote::{Host, Mirror, Remote, Running, guarded, guards, quoted};
use crate::device::{GUARD, GUARD_WORD, Layout, Queue, Times, human_bytes, out_of_memory};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Most words that one read-back brings through page-locked memory; a larger one goes straight to its place.
const LANDING: usize = 1 << 20;
/// Replays that may be enqueued before the host waits for the oldest: enough that the device never idles, few enough
/// that progress and Ctrl-C stay prompt.
const FLIGHT: usize = 3;
/// A NaN that no op computes, in scratch before it is written.
const POISON: u32 = 0x7FD5_5555;

/// Device memory of a cohort, with the stream that all its work goes through.
pub struct Arena {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Stream,
    pub(super) block: Block,
    /// The first word of the scratch, and the words of a session's slice of it.
    pub(super) scratch: (usize, usize),
    /// The first word of the table of running sessions.
    pub(super) table: usize,
    running: Running,
    sessions: usize,
    /// Every kernel is launched and waited for by itself.
    one_by_one: bool,
    mirror: Mirror,
    landing: Mutex<Landing>,
    flight: Flight,
    pub(super) recorded: Vec<Recorded>,
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
                running: Running::new(layout.sessions),
                sessions: layout.sessions,
                one_by_one: cuda.one_by_one,
                mirror: Mirror::new(layout.entries.len(), layout.sessions),
                landing: Mutex::new(landing),
                flight: Flight { marks, next: 0, launched: 0 },
                recorded: Vec::new(),
            })
        };
        made().map_err(|failure| shared.failed(failure, "preparing the device's memory"))
    }

    /// Uploads what the host wrote and the table of running sessions, if there is anything new.
    pub(super) fn upload(&mut self, host: &Host<'_>, sessions: &[usize]) -> Result<()> {
        let table = self.running.change(sessions);
        if table.is_none() && !self.mirror.any_dirty() {
            return Ok(());
        }
        let enqueue = || -> std::result::Result<(), Failure> {
            if let Some(table) = table {
                self.block.upload(&self.stream, self.table, table)?;
            }
            for run in self.mirror.written_by_host(host.layout) {
                // SAFETY: whole slices of the host's block, written before the replay that asks for this
                let words = unsafe { std::slice::from_raw_parts(host.base.add(run.start), run.len()) };
                self.block.upload(&self.stream, run.start, words)?;
            }
            // the host may write again at once; uploads are rare, so waiting costs nothing
            self.stream.synchronize()
        };
        enqueue().map_err(|failure| self.lost(failure))?;
        self.mirror.set_clean();
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

    /// Fills the scratch with a NaN, so that an op which reads what it did not write shows it.
    pub(super) fn poison(&self) -> std::result::Result<(), Failure> {
        let (at, stride) = self.scratch;
        if stride == 0 { Ok(()) } else { self.block.fill(&self.stream, at, stride * self.sessions, POISON) }
    }

    /// A failure of work that was enqueued earlier, which the driver reports late.
    pub(super) fn lost(&self, failure: Failure) -> Error {
        let ops = quoted(self.recorded.iter().flat_map(Recorded::ops));
        let doing = format!("a kernel of {ops} failed, or the device was lost");
        self.shared
            .failed(failure, &doing)
            .hint("`slm-fast dev SPEC --device cuda` waits for every kernel and names it")
    }
}

impl Remote for Arena {
    fn is_fresh(&self, id: usize, s: usize) -> bool {
        self.mirror.is_fresh(id, s)
    }

    fn touch(&mut self, id: usize, s: usize) {
        self.mirror.touch(id, s);
    }

    fn fetch(&self, host: &Host<'_>, ids: &[usize], sessions: Range<usize>) -> Result<()> {
        let mut landing = self.landing.lock().expect("nothing panics while words are read back");
        let Landing { pinned, landed, runs } = &mut *landing;
        self.mirror.stale(host.layout, ids, sessions.clone(), runs);
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
        self.mirror.set_fresh(ids, sessions);
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let waited = self.shared.context.bind().and_then(|()| self.stream.synchronize());
        waited.map_err(|failure| self.lost(failure))
    }

    fn overrun<'a>(&self, layout: &'a Layout) -> Result<Option<&'a str>> {
        self.shared.context.bind().map_err(|failure| self.lost(failure))?;
        for (number, at) in guards(layout).enumerate() {
            let mut words = [0; GUARD];
            // SAFETY: waited for at once
            let copied = unsafe { self.block.download(&self.stream, at, GUARD, words.as_mut_ptr()) };
            copied.and_then(|()| self.stream.synchronize()).map_err(|failure| self.lost(failure))?;
            if words != [GUARD_WORD; GUARD] {
                return Ok(Some(guarded(layout, number)));
            }
        }
        Ok(None)
    }

    fn prepare(&mut self, host: &Host<'_>, queue: &Queue) -> Result<()> {
        self.number(queue, host.layout).map(drop)
    }

    fn replay(&mut self, host: &Host<'_>, queue: &Queue, sessions: &[usize]) -> Result<()> {
        self.enqueue(host, queue, sessions, self.one_by_one)
    }

    fn time(&mut self, host: &Host<'_>, queue: &Queue, sessions: &[usize], repeats: u32) -> Result<Times> {
        self.measure(host, queue, sessions, repeats)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // graphs and blocks go only when no kernel uses them; a failure was told by the call that met it
        let _ = self.shared.context.bind().and_then(|()| self.stream.synchronize());
    }
}
