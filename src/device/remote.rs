//! What a device with memory of its own does for a [`Memory`](super::Memory), and how the host's copy is kept up to date.
//!
//! The host's block is a mirror: what the host writes is uploaded before the next replay, what a replay may have written is
//! downloaded when it is next asked for. Nothing is copied that nobody reads.

#![cfg_attr(not(any(feature = "cuda", feature = "wgpu")), allow(dead_code, reason = "without a gpu nothing is remote"))]

use super::{GUARD, Layout, Queue, Times};
use crate::error::Result;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The host's side of a memory.
pub struct Host<'a> {
    pub layout: &'a Layout,
    /// The first word of the host's block.
    pub base: *mut u32,
}

/// Memory of a cohort on a gpu, with everything that is recorded for it.
pub trait Remote: Send + Sync {
    /// Whether the host has what the device last wrote to a slice.
    fn is_fresh(&self, id: usize, s: usize) -> bool;

    /// Notes that the host writes a slice.
    fn touch(&mut self, id: usize, s: usize);

    /// Brings slices of `ids` (ascending) and `sessions` (ascending) to the host where the device has newer ones, and
    /// waits for them. Slices that lie side by side come as one copy.
    ///
    /// # Errors
    /// A kernel enqueued earlier failed, or the device is gone.
    fn fetch(&self, host: &Host<'_>, ids: &[usize], sessions: Range<usize>) -> Result<()>;

    /// Waits for everything enqueued.
    ///
    /// # Errors
    /// As [`Remote::fetch`].
    fn wait(&self) -> Result<()>;

    /// The first buffer behind which an op has written on the device; `scratch` for the scratch of kernels.
    ///
    /// # Errors
    /// As [`Remote::fetch`].
    fn overrun<'a>(&self, layout: &'a Layout) -> Result<Option<&'a str>>;

    /// Checks that every kernel of a queue fits the device and has the driver compile it.
    ///
    /// # Errors
    /// Names what does not fit.
    fn prepare(&mut self, host: &Host<'_>, queue: &Queue) -> Result<()>;

    /// Replays a queue for `sessions`; the first time kernel by kernel, so that a fault names its op.
    ///
    /// # Errors
    /// Names the op, or what was lost.
    fn replay(&mut self, host: &Host<'_>, queue: &Queue, sessions: &[usize]) -> Result<()>;

    /// Measures a queue.
    ///
    /// # Errors
    /// As [`Remote::replay`].
    fn time(&mut self, host: &Host<'_>, queue: &Queue, sessions: &[usize], repeats: u32) -> Result<Times>;
}

/// Which words are newer where, by buffer and session.
pub struct Mirror {
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
    pub fn new(buffers: usize, sessions: usize) -> Mirror {
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

    pub fn is_fresh(&self, id: usize, s: usize) -> bool {
        self.written[id].load(Ordering::Acquire) <= self.fetched[id * self.sessions + s].load(Ordering::Acquire)
    }

    /// The host now has what the device last wrote to these slices.
    pub fn set_fresh(&self, ids: &[usize], sessions: Range<usize>) {
        for &id in ids {
            let written = self.written[id].load(Ordering::Acquire);
            let slices = &self.fetched[id * self.sessions..][sessions.clone()];
            slices.iter().for_each(|fetched| fetched.store(written, Ordering::Release));
        }
    }

    /// A replay is enqueued that may write these buffers.
    pub fn replayed(&mut self, written: &[usize]) {
        self.replays += 1;
        for &id in written {
            *self.written[id].get_mut() = self.replays;
        }
    }

    /// The host writes a slice.
    pub fn touch(&mut self, id: usize, s: usize) {
        self.dirty[id * self.sessions + s] = true;
        self.any_dirty = true;
    }

    pub fn any_dirty(&self) -> bool {
        self.any_dirty
    }

    /// Everything that the host wrote has been uploaded.
    pub fn set_clean(&mut self) {
        self.dirty.fill(false);
        self.any_dirty = false;
    }

    /// Words of the arena to download so that the host has these slices, in order; neighbours are joined.
    pub fn stale(&self, layout: &Layout, ids: &[usize], sessions: Range<usize>, runs: &mut Vec<Range<usize>>) {
        runs.clear();
        for &id in ids {
            for s in sessions.clone().filter(|&s| !self.is_fresh(id, s)) {
                let slice = slice(layout, id, s);
                match runs.last_mut() {
                    // the gap between neighbouring buffers is one guard
                    Some(run) if slice.start - run.end <= GUARD => run.end = slice.end,
                    _ => runs.push(slice),
                }
            }
        }
    }

    /// Words of the arena that the host has written since the last upload, in order.
    pub fn written_by_host<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = Range<usize>> + 'a {
        let slices = self.dirty.chunks(self.sessions.max(1)).enumerate().filter(|_| self.any_dirty);
        slices.flat_map(move |(id, dirty)| {
            let mut s = 0;
            std::iter::from_fn(move || {
                let first = (s..dirty.len()).find(|&s| dirty[s])?;
                s = (first..dirty.len()).find(|&s| !dirty[s]).unwrap_or(dirty.len());
                Some(slice(layout, id, first).start..slice(layout, id, s - 1).end)
            })
        })
    }
}

/// What the table of running sessions holds: their number, then their positions.
pub struct Running {
    words: Vec<u32>,
    sessions: usize,
}

impl Running {
    /// Nobody runs yet, of `sessions`.
    pub fn new(sessions: usize) -> Running {
        Running { words: vec![0], sessions }
    }

    /// The new table, where these sessions are not those of the last one.
    pub fn change(&mut self, sessions: &[usize]) -> Option<&[u32]> {
        assert!(sessions.iter().all(|&s| s < self.sessions), "a session index is below the cohort's size");
        let is_same = self.words[0] as usize == sessions.len()
            && self.words[1..].iter().zip(sessions).all(|(&a, &b)| a as usize == b);
        if is_same {
            return None;
        }
        self.words.clear();
        self.words.push(sessions.len() as u32);
        self.words.extend(sessions.iter().map(|&s| s as u32));
        Some(&self.words)
    }
}

/// Words of session `s`'s slice, its padding included.
pub fn slice(layout: &Layout, id: usize, s: usize) -> Range<usize> {
    let entry = &layout.entries[id];
    let start = entry.offset + s * entry.stride;
    start..start + entry.stride
}

/// First words of all guards: before the first buffer, behind each, and behind the scratch.
pub fn guards(layout: &Layout) -> impl Iterator<Item = usize> {
    let behind_scratch = layout.device_words() - GUARD;
    layout.guards().chain((layout.scratch_stride() > 0).then_some(behind_scratch))
}

/// The name of what stands before guard number `number` of [`guards`].
pub fn guarded(layout: &Layout, number: usize) -> &str {
    match number.checked_sub(1) {
        None => "arena",
        Some(id) => layout.entries.get(id).map_or("scratch", |entry| &entry.name),
    }
}

/// "`a`, `b`", or "this queue".
pub fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    match &seen[..] {
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
        mirror.set_fresh(&[1], 2..3);
        assert!(!mirror.is_fresh(1, 0) && mirror.is_fresh(1, 2));
        mirror.replayed(&[0, 1]);
        assert!(!mirror.is_fresh(0, 0) && !mirror.is_fresh(1, 2));
    }

    fn layout() -> Layout {
        let mut layout = Layout::on(Kind::Cuda, 3);
        layout.buf::<f32>("a", &[5], Keep::Saved);
        layout.buf::<f32>("b", &[20], Keep::Scratch);
        layout
    }

    #[test]
    fn scratch_lies_behind_the_buffers_with_a_guard_behind_it() {
        let mut layout = layout();
        let buffers = GUARD + 3 * 16 + GUARD + 3 * 32 + GUARD;
        assert_eq!((layout.words, layout.bytes()), (buffers, buffers * 4));
        assert_eq!(guards(&layout).collect::<Vec<_>>(), [0, 64, 176]);
        layout.reserve_scratch(17);
        layout.reserve_scratch(3);
        assert_eq!(layout.bytes(), (buffers + 3 * 32 + GUARD) * 4);
        assert_eq!(guards(&layout).last(), Some(buffers + 3 * 32));
        assert_eq!((0..4).map(|number| guarded(&layout, number)).collect::<Vec<_>>(), ["arena", "a", "b", "scratch"]);
        assert_eq!(slice(&layout, 1, 2), 80 + 64..80 + 96);
    }

    #[test]
    fn only_what_is_new_travels_and_neighbours_travel_together() {
        let layout = layout();
        let mut mirror = Mirror::new(2, 3);
        assert_eq!(mirror.written_by_host(&layout).count(), 0);
        [(0, 0), (0, 1), (1, 2)].into_iter().for_each(|(id, s)| mirror.touch(id, s));
        assert_eq!(mirror.written_by_host(&layout).collect::<Vec<_>>(), [16..48, 144..176]);
        mirror.set_clean();
        assert!(!mirror.any_dirty() && mirror.written_by_host(&layout).count() == 0);
        let mut runs = Vec::new();
        mirror.replayed(&[0, 1]);
        mirror.set_fresh(&[0], 0..1);
        mirror.stale(&layout, &[0, 1], 0..3, &mut runs);
        assert_eq!((runs.len(), &runs[0]), (1, &(32..176)), "the guard between two buffers comes with them");
        mirror.stale(&layout, &[0], 0..1, &mut runs);
        assert!(runs.is_empty());
    }

    #[test]
    fn the_table_changes_with_those_who_run() {
        let mut running = Running::new(3);
        assert_eq!(running.change(&[0, 2]), Some(&[2, 0, 2][..]));
        assert_eq!(running.change(&[0, 2]), None);
        assert_eq!(running.change(&[2]), Some(&[1, 2][..]));
    }

    #[test]
    fn names_are_quoted_once() {
        assert_eq!(quoted(["rollout", "log", "rollout"].into_iter()), "`rollout`, `log`");
        assert_eq!(quoted(std::iter::empty()), "this queue");
    }
}
