//! The cpu device: which vector instructions there are, and a small pool of threads that replays a queue.

use super::{Call, Cx, Memory};
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Vector instructions that kernels are compiled for; the best one present is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, DQ and VL: 16 lanes.
    Avx512,
    /// AVX2 and FMA: 8 lanes.
    Avx2,
    /// Whatever the target always has (SSE2 on x86-64, NEON on aarch64).
    Base,
}

impl Isa {
    /// The best one of this machine.
    pub fn detect() -> Isa {
        Isa::available()[0]
    }

    /// All that this machine can run, best first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                found.push(Isa::Avx512);
            }
            if avx2 {
                found.push(Isa::Avx2);
            }
        }
        found.push(Isa::Base);
        found
    }

    /// Whether it multiplies numbers of bfloat16, two in the time of one f32 (AVX-512 BF16).
    pub fn multiplies_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Isa::Avx512 {
            return is_x86_feature_detected!("avx512bf16");
        }
        false
    }

    /// As a person would write it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "AVX-512",
            Isa::Avx2 => "AVX2",
            Isa::Base => "baseline",
        }
    }
}

/// Below this many floating-point operations a launch is not worth a second thread (about 20 microseconds of work).
const WORTH_A_THREAD: f64 = 1e6;
/// Polls of an idle worker before it sleeps; some tens of microseconds.
const SPINS: u32 = 2_000;

/// Threads and their instructions.
pub struct Cpu {
    pub isa: Isa,
    pool: Pool,
    /// One per thread, grown before a replay when a queue asks for more than any before.
    scratch: Vec<Scratch>,
    /// Two replays at once would share scratches, so a device is lent to one thread at a time.
    one_replay: PhantomData<Cell<()>>,
}

struct Scratch(UnsafeCell<Vec<f32>>);

// SAFETY: during a replay a scratch is used by the thread whose index it has, between replays by the device's only user
unsafe impl Sync for Scratch {}

impl Cpu {
    /// `threads` threads, 0 for one per available core; `isa` is one of [`Isa::available`].
    pub fn new(threads: usize, isa: Isa) -> Cpu {
        assert!(Isa::available().contains(&isa), "kernels run only instructions that this machine has");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores } else { threads };
        let scratch = (0..threads).map(|_| Scratch(UnsafeCell::new(Vec::new()))).collect();
        Cpu { isa, pool: Pool::new(threads), scratch, one_replay: PhantomData }
    }

    pub fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// Runs `calls` for `sessions`. With at least a session per thread each thread takes whole sessions and no launch
    /// waits for another; with fewer, threads share the tiles of each launch. Both give the same bits, since a tile's
    /// work depends on shapes alone.
    pub(super) fn replay(&self, calls: &[Box<dyn Call>], memory: &Memory, sessions: &[usize]) {
        let need = calls.iter().map(|c| c.scratch_words()).max().unwrap_or(0);
        for scratch in &self.scratch {
            // SAFETY: no thread has work yet
            let scratch = unsafe { &mut *scratch.0.get() };
            if scratch.len() < need {
                scratch.resize(need, 0.0);
            }
        }
        let (isa, scratch) = (self.isa, &self.scratch[..]);
        let tiles_of = |call: &dyn Call, s: usize, thread: usize, tile: usize| {
            // SAFETY: `thread` is this thread's own index; (s, tile) is claimed once; calls of one session are in order
            unsafe {
                call.run(memory, s, &mut Cx { isa, tile, scratch: &mut *scratch[thread].0.get() });
            }
        };
        if sessions.len() >= self.threads() {
            let whole_session = |item: usize, thread: usize| {
                for call in calls {
                    for tile in 0..call.tiles() {
                        tiles_of(&**call, sessions[item], thread, tile);
                    }
                }
            };
            self.pool.run(sessions.len(), &whole_session);
            return;
        }
        for call in calls {
            let tiles = call.tiles();
            let items = sessions.len() * tiles;
            let one = |item: usize, thread: usize| tiles_of(&**call, sessions[item / tiles], thread, item % tiles);
            if call.flops() * (sessions.len() as f64) < WORTH_A_THREAD {
                (0..items).for_each(|item| one(item, 0));
            } else {
                self.pool.run(items, &one);
            }
        }
    }
}

type Job<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Threads that wait for items `0..n` of a job and share them out.
struct Pool {
    shared: Arc<Shared>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

struct Shared {
    /// Number of the job in the high half, items not yet claimed in the low half: one compare-and-swap claims an item
    /// of exactly the job that was seen.
    ticket: AtomicU64,
    done: AtomicUsize,
    /// The current job; written only while no item is left, read only after an item of it was claimed.
    job: UnsafeCell<Option<Job<'static>>>,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is guarded by the ticket protocol described above
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

impl Shared {
    /// Claims and runs items until none is left; true if it ran any.
    fn work(&self, thread: usize) -> bool {
        let mut worked = false;
        loop {
            let ticket = self.ticket.load(Ordering::Acquire);
            let left = ticket as u32;
            if left == 0 {
                return worked;
            }
            if self.ticket.compare_exchange_weak(ticket, ticket - 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            worked = true;
            // SAFETY: an item of this job is claimed, so `run` has not returned and the job is alive
            let job = unsafe { (*self.job.get()).expect("a job is installed before its items can be claimed") };
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(left as usize - 1, thread)));
            if ran.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn idle(&self) -> bool {
        self.ticket.load(Ordering::SeqCst) as u32 == 0 && !self.stop.load(Ordering::SeqCst)
    }

    fn worker(&self, thread: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut spins = 0;
            while !self.work(thread) && spins < SPINS && !self.stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
                spins += 1;
            }
            if spins == SPINS {
                let mut guard = self.lock.lock().expect("nothing panics while holding the pool's lock");
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while self.idle() {
                    guard = self.wake.wait(guard).expect("nothing panics while holding the pool's lock");
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn wake_all(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().expect("nothing panics while holding the pool's lock"));
            self.wake.notify_all();
        }
    }
}

impl Pool {
    fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicU32::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .filter_map(|thread| {
                let shared = shared.clone();
                // a machine that refuses a thread still runs, with fewer
                std::thread::Builder::new().name(format!("cpu-{thread}")).spawn(move || shared.worker(thread)).ok()
            })
            .collect();
        Pool { shared, workers }
    }

    /// Runs `job(item, thread)` for every item and returns when all are done.
    fn run(&self, items: usize, job: Job<'_>) {
        if self.workers.is_empty() || items <= 1 {
            (0..items).for_each(|item| job(item, 0));
            return;
        }
        let shared = &*self.shared;
        shared.done.store(0, Ordering::Relaxed);
        // SAFETY: the job outlives this call, and this call returns only when every claimed item is done
        unsafe { *shared.job.get() = Some(std::mem::transmute::<Job<'_>, Job<'static>>(job)) };
        let number = (shared.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1) << 32;
        shared.ticket.store(number | items as u64, Ordering::SeqCst);
        shared.wake_all();
        shared.work(0);
        let mut spins = 0u32;
        while shared.done.load(Ordering::Acquire) < items {
            spins += 1;
            // a worker that lost its core must be able to get it back
            if spins.is_multiple_of(256) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "an op panicked on a worker thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.lock.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // a worker's panic was already reported by the run it happened in
            drop(worker.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_once_in_every_job() {
        let pool = Pool::new(3);
        for round in 0..2_000 {
            let n = 1 + round % 37;
            let hits: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
            pool.run(n, &|i, thread| {
                assert!(thread < 3);
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
            if round % 500 == 0 {
                // long enough for the workers to fall asleep
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }

    #[test]
    #[should_panic(expected = "an op panicked on a worker thread")]
    fn a_panic_reaches_the_caller() {
        Pool::new(2).run(8, &|i, _| assert!(i != 3));
    }
}
