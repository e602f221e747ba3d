//! What this machine can do at most: multiply-adds and memory copies, on one core and on all.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use crate::common::Report;
use slm_fast::device::cpu::Isa;
use slm_fast::op::lib::simd::Simd;

/// Independent sums: enough to hide a latency of 5 cycles on two ports, few enough for 16 registers.
const SUMS: usize = 12;
/// Multiply-adds of every sum in one measurement, about 10 ms.
const ROUNDS: usize = 4_000_000;
/// Bytes copied in one measurement: far more than any cache of one core.
const COPY: usize = 128 << 20;
/// Measurements; the best one counts, since a ceiling is what no disturbance took away.
const TRIES: usize = 10;

/// Best figures of this run, in GFLOP/s (a multiply-add is two) and GB/s (a copied byte is read and written: two).
pub struct Ceilings {
    isa: Isa,
    threads: usize,
    pub fma_one: f64,
    pub fma_all: f64,
    copy_one: f64,
    copy_all: f64,
}

impl Ceilings {
    /// Measures for about a second.
    pub fn measure() -> Ceilings {
        let isa = Isa::detect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ceilings {
            isa,
            threads,
            fma_one: fma(isa, 1),
            fma_all: fma(isa, threads),
            copy_one: copy(1),
            copy_all: copy(threads),
        }
    }

    pub fn report(&self, report: &mut Report) {
        println!("ceilings with {} and {} threads", self.isa.name(), self.threads);
        report.line("ceiling.fma.1_thread", self.fma_one, "GFLOP/s");
        report.line("ceiling.fma.all_threads", self.fma_all, "GFLOP/s");
        report.line("ceiling.copy.1_thread", self.copy_one, "GB/s");
        report.line("ceiling.copy.all_threads", self.copy_all, "GB/s");
        report.row("ceiling.threads", self.threads as f64, "threads");
    }
}

slm_fast::per_simd! {
    /// `SUMS` chains of multiply-adds that wait for nothing but themselves.
    fn chains(rounds: usize, factor: f32, result: &mut f32) = chains_body;
}

#[inline(always)]
fn chains_body<I: Simd>(rounds: usize, factor: f32, result: &mut f32) {
    let mut lanes = [0.0f32; 16];
    // SAFETY: `per_simd` runs this only where the instructions are present, and no vector has more than 16 lanes
    unsafe {
        let factor = I::splat(factor);
        let mut sums = [factor; SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = I::madd(*sum, factor, factor);
            }
        }
        for sum in sums {
            I::store(lanes.as_mut_ptr(), sum);
            *result += lanes[0];
        }
    }
}

/// Lanes of the vectors of an instruction set.
fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Base => 4,
    }
}

fn fma(isa: Isa, threads: usize) -> f64 {
    let work = |_: usize| {
        let mut result = 0.0;
        chains(isa, ROUNDS, black_box(0.5), &mut result);
        black_box(result);
    };
    best(threads, (2 * SUMS * lanes(isa) * ROUNDS) as f64, work) / 1e9
}

fn copy(threads: usize) -> f64 {
    let buffers: Vec<_> = (0..threads).map(|_| std::sync::Mutex::new((vec![1u8; COPY], vec![2u8; COPY]))).collect();
    let work = |thread: usize| {
        let mut buffers = buffers[thread].lock().expect("one thread has these buffers");
        let (from, to) = &mut *buffers;
        to.copy_from_slice(from);
        black_box(&to);
    };
    best(threads, 2.0 * COPY as f64, work) / 1e9
}

/// Units a second of `threads` threads that each do `units` of work side by side; the best of some tries.
fn best(threads: usize, units: f64, work: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let mut fastest = f64::INFINITY;
    for _ in 0..TRIES {
        let seconds = std::thread::scope(|scope| {
            let one = |thread: usize| {
                let (barrier, work) = (&barrier, &work);
                move || {
                    barrier.wait();
                    let start = Instant::now();
                    work(thread);
                    start.elapsed().as_secs_f64()
                }
            };
            let others: Vec<_> = (1..threads).map(|thread| scope.spawn(one(thread))).collect();
            let mine = one(0)();
            let theirs = others.into_iter().map(|other| other.join().expect("a measurement does not panic"));
            theirs.fold(mine, f64::max)
        });
        fastest = fastest.min(seconds);
    }
    units * threads as f64 / fastest
}
