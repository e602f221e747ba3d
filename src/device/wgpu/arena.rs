//! The memory of a cohort on an adapter: one buffer holds every buffer of the plan at the host's own offsets, then the scratch
//! that kernels share; beside it the table of running sessions, and work that is recorded and not yet submitted.

use super::launch::Recorded;
use super::{Shared, Wgpu, survey};
use crate::device::remote::{Host, Mirror, Remote, Running, guarded, guards, quoted};
use crate::device::{GUARD, GUARD_WORD, Layout, Limits, Queue, Times, human_bytes, out_of_memory};
use crate::error::{Error, Result};
use ::wgpu as gpu;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Bytes that one copy to the host brings at most; a larger one comes in parts.
const LANDING: u64 = 16 << 20;
/// Submissions that may be under way before the host waits for the oldest: enough that the device never idles, few enough
/// that progress and Ctrl-C stay prompt.
const FLIGHT: usize = 2;
/// Replays and dispatches that are submitted together at most: a submission costs as much as dozens of dispatches.
const REPLAYS: usize = 4;
const DISPATCHES: usize = 512;
/// A NaN that no op computes, in scratch before it is written.
const POISON: u32 = 0x7FD5_5555;
/// Words that are poisoned by one copy.
const POISON_WORDS: u64 = 1 << 16;

/// Device memory of a cohort, with everything recorded for it.
pub struct Arena {
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Limits,
    pub(super) words: gpu::Buffer,
    pub(super) table: gpu::Buffer,
    /// The first word of the scratch, and the words of a session's slice of it.
    pub(super) scratch: (usize, usize),
    running: Running,
    sessions: usize,
    /// Every kernel is launched and waited for by itself.
    pub(super) one_by_one: bool,
    pub(super) mirror: Mirror,
    work: Mutex<Work>,
    pub(super) recorded: Vec<Recorded>,
}

/// What is on its way to the device and back.
struct Work {
    /// Commands that are not submitted yet, and how much they hold.
    encoder: Option<gpu::CommandEncoder>,
    replays: usize,
    dispatches: usize,
    /// Submissions that may not be done yet, oldest first.
    flight: VecDeque<gpu::SubmissionIndex>,
    /// Where what is read back lands, made when something is.
    landing: Option<gpu::Buffer>,
    /// NaNs to copy from.
    poison: Option<gpu::Buffer>,
    /// Words of the arena, in order; the copies of one read-back.
    runs: Vec<Range<usize>>,
}

impl Arena {
    /// Allocates the device's side of a layout: zeroed, guard words in place.
    ///
    /// # Errors
    /// Says what is asked for where the device does not have it, or has it and cannot bind it at once.
    pub fn new(wgpu: &Wgpu, layout: &Layout) -> Result<Arena> {
        let shared = wgpu.shared.clone();
        let device = &shared.device;
        let words = layout.device_words();
        let bytes = words.saturating_mul(4) as u64;
        let most = survey::most_bytes(&device.limits());
        if bytes > most || u32::try_from(words).is_err() {
            let has = format!("{} can hold {} of one cohort", wgpu.describe(), human_bytes(most as usize));
            return Err(out_of_memory(&shared.place(), &format!("{}; {has}", human_bytes(bytes as usize))));
        }
        let usage = gpu::BufferUsages::STORAGE | gpu::BufferUsages::COPY_SRC | gpu::BufferUsages::COPY_DST;
        let buffer = |label, size: u64| {
            let size = size.next_multiple_of(16);
            device.create_buffer(&gpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        };
        let scope = device.push_error_scope(gpu::ErrorFilter::OutOfMemory);
        let (arena, table) = (buffer("arena", bytes), buffer("sessions", 4 * (1 + layout.sessions as u64)));
        if let Some(error) = pollster::block_on(scope.pop()) {
            let needs = format!("{}, which {} does not have: {error}", human_bytes(bytes as usize), wgpu.describe());
            return Err(out_of_memory(&shared.place(), &needs));
        }
        for at in guards(layout) {
            shared.queue.write_buffer(&arena, 4 * at as u64, bytemuck::cast_slice(&[GUARD_WORD; GUARD]));
        }
        shared.check(|| "the preparation of its memory".to_string())?;
        let work = Work {
            encoder: None,
            replays: 0,
            dispatches: 0,
            flight: VecDeque::with_capacity(FLIGHT + 1),
            landing: None,
            poison: None,
            runs: Vec::new(),
        };
        Ok(Arena {
            words: arena,
            table,
            scratch: (layout.words, layout.scratch_stride()),
            running: Running::new(layout.sessions),
            sessions: layout.sessions,
            limits: wgpu.limits,
            one_by_one: wgpu.one_by_one,
            mirror: Mirror::new(layout.entries.len(), layout.sessions),
            work: Mutex::new(work),
            recorded: Vec::new(),
            shared,
        })
    }

    /// Uploads what the host wrote and the table of running sessions, if there is anything new. Uploads happen before
    /// whatever is submitted next, so what is recorded until now goes first.
    pub(super) fn upload(&mut self, host: &Host<'_>, sessions: &[usize]) -> Result<()> {
        if let Some(table) = self.running.change(sessions) {
            let table = table.to_vec();
            self.submit()?;
            self.shared.queue.write_buffer(&self.table, 0, bytemuck::cast_slice(&table));
        }
        if self.mirror.any_dirty() {
            self.submit()?;
            for run in self.mirror.written_by_host(host.layout) {
                // SAFETY: whole slices of the host's block, which nobody writes meanwhile
                let words = unsafe { std::slice::from_raw_parts(host.base.add(run.start), run.len()) };
                self.shared.queue.write_buffer(&self.words, 4 * run.start as u64, bytemuck::cast_slice(words));
            }
            self.mirror.set_clean();
        }
        Ok(())
    }

    /// Records a replay of queue number `number`, and submits it where enough has come together.
    pub(super) fn record_replay(&mut self, number: usize) -> Result<()> {
        let mut work = self.work.lock().expect("nothing panics while work is recorded");
        let device = &self.shared.device;
        let encoder = work.encoder.get_or_insert_with(|| device.create_command_encoder(&Default::default()));
        let dispatches = self.recorded[number].encode(encoder, None);
        work.replays += 1;
        work.dispatches += dispatches;
        if work.replays >= REPLAYS || work.dispatches >= DISPATCHES {
            self.flush(&mut work)?;
        }
        Ok(())
    }

    /// Submits what is recorded.
    pub(super) fn submit(&self) -> Result<()> {
        self.flush(&mut self.work.lock().expect("nothing panics while work is recorded"))
    }

    /// Submits commands of their own, behind what is recorded, and waits for them.
    pub(super) fn run(&self, encode: impl FnOnce(&mut gpu::CommandEncoder)) -> Result<()> {
        self.submit()?;
        let mut encoder = self.shared.device.create_command_encoder(&Default::default());
        encode(&mut encoder);
        let index = self.shared.queue.submit([encoder.finish()]);
        self.await_index(index)
    }

    fn flush(&self, work: &mut Work) -> Result<()> {
        if let Some(encoder) = work.encoder.take() {
            (work.replays, work.dispatches) = (0, 0);
            work.flight.push_back(self.shared.queue.submit([encoder.finish()]));
            while work.flight.len() > FLIGHT {
                let oldest = work.flight.pop_front().expect("it is longer than that");
                self.await_index(oldest)?;
            }
        }
        Ok(())
    }

    fn await_index(&self, index: gpu::SubmissionIndex) -> Result<()> {
        let waited = self.shared.device.poll(gpu::PollType::Wait { submission_index: Some(index), timeout: None });
        self.check()?;
        waited.map(drop).map_err(|error| self.lost(&error.to_string()))
    }

    /// Whether anything has gone wrong so far.
    fn check(&self) -> Result<()> {
        self.shared.check(|| self.doing())
    }

    fn doing(&self) -> String {
        format!("a replay of {}", quoted(self.recorded.iter().flat_map(Recorded::ops)))
    }

    fn lost(&self, what: &str) -> Error {
        self.shared.given_up(what, &self.doing())
    }

    /// Fills the scratch with a NaN, so that an op which reads what it did not write shows it.
    pub(super) fn poison(&self) -> Result<()> {
        let (at, stride) = self.scratch;
        let words = (stride * self.sessions) as u64;
        if words == 0 {
            return Ok(());
        }
        let mut work = self.work.lock().expect("nothing panics while work is recorded");
        let source = work.poison.get_or_insert_with(|| {
            let (size, usage) = (4 * POISON_WORDS, gpu::BufferUsages::COPY_SRC | gpu::BufferUsages::COPY_DST);
            let descriptor = gpu::BufferDescriptor { label: Some("poison"), size, usage, mapped_at_creation: false };
            let buffer = self.shared.device.create_buffer(&descriptor);
            self.shared.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&[POISON; POISON_WORDS as usize]));
            buffer
        });
        let source = source.clone();
        drop(work);
        self.run(|encoder| {
            for start in (0..words).step_by(POISON_WORDS as usize) {
                let size = 4 * POISON_WORDS.min(words - start);
                encoder.copy_buffer_to_buffer(&source, 0, &self.words, 4 * (at as u64 + start), size);
            }
        })
    }

    /// Copies words of a device buffer to the host, in parts that the landing holds, and waits for them.
    fn download(
        &self,
        work: &mut Work,
        from: &gpu::Buffer,
        runs: &[Range<usize>],
        mut take: impl FnMut(usize, &[u32]),
    ) -> Result<()> {
        self.flush(work)?;
        let device = &self.shared.device;
        let all: u64 = runs.iter().map(|run| 4 * run.len() as u64).sum();
        let size = all.min(LANDING).next_power_of_two();
        if work.landing.as_ref().is_none_or(|landing| landing.size() < size) {
            let usage = gpu::BufferUsages::COPY_DST | gpu::BufferUsages::MAP_READ;
            let descriptor = gpu::BufferDescriptor { label: Some("landing"), size, usage, mapped_at_creation: false };
            work.landing = Some(device.create_buffer(&descriptor));
        }
        let landing = work.landing.as_ref().expect("it is there now");
        let room = (landing.size() / 4) as usize;
        let mut runs = runs.iter().filter(|run| run.start < run.end).cloned().peekable();
        while runs.peek().is_some() {
            // as many runs, or as much of one, as there is room for
            let (mut parts, mut used) = (Vec::new(), 0);
            while let Some(run) = runs.peek_mut().filter(|_| used < room) {
                let part = run.start..run.end.min(run.start + room - used);
                run.start = part.end;
                if run.start == run.end {
                    runs.next();
                }
                used += part.len();
                parts.push(part);
            }
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut at = 0;
            for part in &parts {
                let bytes = 4 * part.len() as u64;
                encoder.copy_buffer_to_buffer(from, 4 * part.start as u64, landing, at, bytes);
                at += bytes;
            }
            let index = self.shared.queue.submit([encoder.finish()]);
            let landed = landing.slice(..at);
            landed.map_async(gpu::MapMode::Read, |_| ());
            self.await_index(index)?;
            let view = landed.get_mapped_range().map_err(|error| self.lost(&error.to_string()))?;
            let mut words: &[u32] = bytemuck::cast_slice(&view);
            for part in parts {
                let (these, rest) = words.split_at(part.len());
                take(part.start, these);
                words = rest;
            }
            drop(view);
            landing.unmap();
        }
        Ok(())
    }

    /// Reads words of a buffer that is not the arena.
    pub(super) fn read(&self, from: &gpu::Buffer, words: usize) -> Result<Vec<u32>> {
        let mut read = Vec::with_capacity(words);
        let mut work = self.work.lock().expect("nothing panics while work is recorded");
        self.download(&mut work, from, std::slice::from_ref(&(0..words)), |_, part| read.extend_from_slice(part))?;
        Ok(read)
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
        let mut work = self.work.lock().expect("nothing panics while work is recorded");
        let mut runs = std::mem::take(&mut work.runs);
        self.mirror.stale(host.layout, ids, sessions.clone(), &mut runs);
        let fetched = self.download(&mut work, &self.words, &runs, |at, words| {
            // SAFETY: words of the host's block, which nobody reads before they are fresh
            unsafe { words.as_ptr().copy_to_nonoverlapping(host.base.add(at), words.len()) };
        });
        work.runs = runs;
        fetched?;
        self.mirror.set_fresh(ids, sessions);
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        self.submit()?;
        let waited = self.shared.device.poll(gpu::PollType::wait_indefinitely());
        self.check()?;
        waited.map(drop).map_err(|error| self.lost(&error.to_string()))
    }

    fn overrun<'a>(&self, layout: &'a Layout) -> Result<Option<&'a str>> {
        let runs: Vec<Range<usize>> = guards(layout).map(|at| at..at + GUARD).collect();
        let mut hit = None;
        let mut work = self.work.lock().expect("nothing panics while work is recorded");
        self.download(&mut work, &self.words, &runs, |at, words| {
            if words.iter().any(|&word| word != GUARD_WORD) {
                hit.get_or_insert(at / GUARD * GUARD);
            }
        })?;
        Ok(hit.and_then(|at| guards(layout).position(|guard| guard == at)).map(|number| guarded(layout, number)))
    }

    fn prepare(&mut self, host: &Host<'_>, queue: &Queue) -> Result<()> {
        self.number(queue, host.layout).map(drop)
    }

    fn replay(&mut self, host: &Host<'_>, queue: &Queue, sessions: &[usize]) -> Result<()> {
        self.enqueue(host, queue, sessions)
    }

    fn time(&mut self, host: &Host<'_>, queue: &Queue, sessions: &[usize], repeats: u32) -> Result<Times> {
        self.measure(host, queue, sessions, repeats)
    }
}
