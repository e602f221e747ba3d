//! What a device can do at most, measured: what ops and `slm-fast devices` are compared with.

use super::Cuda;
use super::driver::Attribute;
use crate::device::{Buf, Call, Cx, Device, Field, Keep, Kernel, Kind, Layout, Limits, Memory, Queue, Shader};
use crate::error::Result;

/// As in `kernels/ceilings.cu`.
const THREADS: u32 = 256;
const WORDS_PER_BLOCK: usize = 4 * 8 * THREADS as usize;
const SUMS: u32 = 8;
/// FLOPs of one matrix product, and of the multiply-adds of one warp.
const MATRIX_FLOPS: f64 = 4096.0;
const WARP_FLOPS: f64 = 64.0;
/// Blocks of the multiply-adds per multiprocessor: all threads that it can hold.
const BLOCKS: u32 = 8;
/// A measurement is as large as needed to take this long, within these limits.
const MILLISECONDS: f64 = 5.0;
const WORDS: [usize; 2] = [1 << 18, 1 << 27];
const ROUNDS: [u32; 2] = [1 << 8, 1 << 16];
/// Measurements; the best one counts, since a ceiling is what no disturbance took away.
const TRIES: usize = 5;

/// The best of a few measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// GB/s of copies within the device's memory; a copied byte is read and written: two.
    pub copy: f64,
    /// GFLOP/s of f32 multiply-adds; one is two.
    pub fma: f64,
    /// GFLOP/s of matrix products of bfloat16 numbers, as `mma.sync` gives them.
    pub mma: f64,
}

/// One of the kernels.
struct Ceiling {
    entry: &'static str,
    tiles: u32,
    words: usize,
    rounds: u32,
    from: Buf<f32>,
    to: Buf<f32>,
}

impl Call for Ceiling {
    fn name(&self) -> &'static str {
        self.entry
    }
    fn tiles(&self) -> usize {
        self.tiles as usize
    }
    fn scratch_words(&self) -> usize {
        0
    }
    fn flops(&self) -> f64 {
        0.0
    }
    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel {
            entry: self.entry.into(),
            tiles: self.tiles,
            parts: 1,
            threads: THREADS,
            shared_bytes: 0,
            shape: vec![
                Field { name: "words", words: vec![self.words as u32] },
                Field { name: "rounds", words: vec![self.rounds] },
            ],
        }]
    }
    fn device_scratch(&self) -> usize {
        0
    }
    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        Vec::new()
    }
    fn shader_scratch(&self) -> usize {
        0
    }
    fn args(&self) -> Vec<usize> {
        vec![self.from.id(), self.to.id()]
    }
    unsafe fn run(&self, _: &Memory, _: usize, _: &mut Cx<'_>) {
        unreachable!("the ceilings of the cpu are measured otherwise");
    }
}

impl Cuda {
    /// Measures all for some tenths of a second.
    ///
    /// # Errors
    /// Whatever the driver says.
    pub fn ceilings(&self) -> Result<Ceilings> {
        let failed = |failure| self.shared.failed(failure, "asking for the device's size");
        let (free, _) = self.shared.context.memory().map_err(failed)?;
        let processors = self.shared.context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        let tiles = BLOCKS * processors.map_err(failed)? as u32;

        let mut words = WORDS[0];
        let copy = loop {
            let blocks = words.div_ceil(WORDS_PER_BLOCK) as u32;
            let ms = self.measure("ceiling_copy", blocks, words, 0)?;
            if ms >= MILLISECONDS || words >= WORDS[1] || 8 * words * 4 > free / 2 {
                break 8.0 * words as f64 / ms / 1e6;
            }
            words *= 4;
        };
        let fma = self.arithmetic("ceiling_fma", tiles, WARP_FLOPS)?;
        let mma = self.arithmetic("ceiling_mma", tiles, MATRIX_FLOPS)?;
        Ok(Ceilings { copy, fma, mma })
    }

    /// GFLOP/s of a kernel whose warps have SUMS chains of `flops` FLOPs each.
    fn arithmetic(&self, entry: &'static str, tiles: u32, flops: f64) -> Result<f64> {
        let chains = f64::from(tiles * SUMS * THREADS / 32);
        let mut rounds = ROUNDS[0];
        loop {
            let ms = self.measure(entry, tiles, WORDS[0], rounds)?;
            if ms >= MILLISECONDS || rounds >= ROUNDS[1] {
                return Ok(chains * flops * f64::from(rounds) / ms / 1e6);
            }
            rounds *= 4;
        }
    }

    /// Milliseconds of the fastest launch.
    fn measure(&self, entry: &'static str, tiles: u32, words: usize, rounds: u32) -> Result<f64> {
        let mut layout = Layout::on(Kind::Cuda, 1);
        let mut buf = |name| layout.buf::<f32>(name, &[words], Keep::Scratch);
        let (from, to) = (buf("from"), buf("to"));
        let mut queue = Queue::default();
        queue.push(Ceiling { entry, tiles, words, rounds, from, to });
        let device = Device::Cuda(self.clone());
        let mut memory = layout.allocate_on(&device)?;
        let mut best = f64::INFINITY;
        for _ in 0..TRIES {
            best = best.min(queue.time(&device, &mut memory, &[0], 1)?.replay_ms);
        }
        Ok(best)
    }
}
