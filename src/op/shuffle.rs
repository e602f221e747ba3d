//! The order of rows in an epoch, and how the advantages of each minibatch are normalised.

use crate::device::{Cx, Kernel, Limits, Shader};
use crate::op::advantage::{HIGH, LOW};
use crate::op::lib::rng::{Purpose, philox};
use crate::op::lib::sums;
use crate::op::{Draw, Shape, hyper};

/// How advantages are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// Mean 0 and unbiased standard deviation 1 within each minibatch.
    Standardize,
    /// Divided by the range of the moving percentiles, where that is above 1.
    Percentile,
    None,
}

/// Sizes and choices of [`Shuffle`].
#[derive(Debug, Clone)]
pub struct ShuffleShape {
    /// Rows of the rollout.
    pub m: usize,
    /// Rows of a minibatch; the last one may be smaller.
    pub minibatch: usize,
    /// Epochs of the iteration, each with its own order.
    pub epochs: usize,
    pub normalize: Normalize,
    /// Rows in their own order (one full batch needs no shuffle).
    pub ordered: bool,
}

impl ShuffleShape {
    fn minibatches(&self) -> usize {
        self.m.div_ceil(self.minibatch)
    }
}

impl Shape for ShuffleShape {
    fn tiles(&self) -> usize {
        self.epochs
    }

    fn scratch_words(&self) -> usize {
        2 * self.m
    }

    fn flops(&self) -> f64 {
        (self.epochs * self.m * 120) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::shuffle::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::shuffle::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::shuffle::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::shuffle::scratch(self)
    }

    fn cases() -> Vec<Self> {
        let case = |m, minibatch, epochs, normalize, ordered| ShuffleShape { m, minibatch, epochs, normalize, ordered };
        vec![
            case(1, 1, 1, Normalize::Standardize, false),
            case(37, 12, 2, Normalize::Standardize, false),
            case(512, 128, 10, Normalize::Standardize, false),
            case(300, 64, 2, Normalize::Percentile, false),
            case(65, 64, 1, Normalize::None, false),
            case(40, 40, 1, Normalize::Standardize, true),
            // several rows for a lane of a gpu, then several blocks for a minibatch
            case(3_000, 1_700, 3, Normalize::Standardize, false),
            case(9_300, 4_500, 2, Normalize::Standardize, false),
            case(5_000, 5_000, 2, Normalize::Percentile, true),
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        if arg == "percentiles" {
            words.copy_from_slice(&[-1.0, draw.range(-1.0, 3.0), 2.0, 0.0].map(f32::to_bits));
        }
        arg == "percentiles"
    }
}

crate::op! {
    /// For each epoch a permutation of the rows, keyed by (seed, session, iteration, epoch), and the normalisation of each
    /// minibatch's advantages: `(advantage - moments[0]) * moments[1]`. A permutation is a Feistel network over the next power of
    /// two, walked until it lands inside: no sort, no memory, each place computed alone.
    Shuffle(d: ShuffleShape) = "shuffle", within 1e-6, run = run {
        read seed: u32[2] in 0.0..1000.0;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..1000.0;
        read advantage: f32[d.m] in -3.0..5.0;
        read percentiles: f32[4];
        write index: u32[d.epochs, d.m];
        // shift and factor of each minibatch
        write moments: f32[d.epochs, d.minibatches(), 2];
    }
}

/// Rounds of the Feistel network; with fewer, ideal round functions too leave a bias that shows for 5 or 9 rows.
pub const ROUNDS: u32 = 12;
/// What a round's number adds to its key.
pub const KEY_STEP: u32 = 0x9E37_79B9;
/// Factors of the round function, those of MurmurHash3's finaliser.
pub const FIRST_FACTOR: u32 = 0x85EB_CA6B;
pub const SECOND_FACTOR: u32 = 0xC2B2_AE35;

/// Added to the standard deviation that advantages are divided by.
pub const EPSILON: f64 = 1e-8;

/// Places that the network computes side by side.
const LANES: usize = 16;

/// A keyed bijection of `0..2^bits`: each round changes one half of the bits by a hash of the other, so each is its own
/// inverse, whatever the hash and however the bits are split.
#[inline(always)]
fn feistel<const W: usize>(x: [u32; W], bits: u32, keys: [u32; 4]) -> [u32; W] {
    let low_bits = bits / 2;
    let (low_mask, high_mask) = ((1 << low_bits) - 1, (1 << (bits - low_bits)) - 1);
    let (mut low, mut high) = (x.map(|x| x & low_mask), x.map(|x| x >> low_bits));
    for round in 0..ROUNDS {
        let key = keys[round as usize % 4].wrapping_add(round.wrapping_mul(KEY_STEP));
        for lane in 0..W {
            if round % 2 == 0 {
                high[lane] ^= hash(low[lane], key) & high_mask;
            } else {
                low[lane] ^= hash(high[lane], key) & low_mask;
            }
        }
    }
    std::array::from_fn(|lane| (high[lane] << low_bits) | low[lane])
}

/// The network on every word of a slice.
#[inline(always)]
fn feistel_all(x: &mut [u32], bits: u32, keys: [u32; 4]) {
    let (blocks, rest) = x.as_chunks_mut::<LANES>();
    for block in blocks {
        *block = feistel(*block, bits, keys);
    }
    let mut block = [0; LANES];
    block[..rest.len()].copy_from_slice(rest);
    rest.copy_from_slice(&feistel(block, bits, keys)[..rest.len()]);
}

#[inline(always)]
fn hash(x: u32, key: u32) -> u32 {
    let x = (x ^ key).wrapping_mul(FIRST_FACTOR);
    let x = (x ^ (x >> 13)).wrapping_add(key).wrapping_mul(SECOND_FACTOR);
    x ^ (x >> 16)
}

/// Bits of the smallest power of two that holds `m` rows.
#[inline(always)]
pub(super) fn bits_of(m: usize) -> u32 {
    assert!(0 < m && m <= 1 << 31, "a rollout has between 1 and 2^31 rows");
    m.next_power_of_two().trailing_zeros()
}

#[inline(always)]
pub(super) fn keys_of(epoch: usize, seed: &[u32], clock: &[u32]) -> [u32; 4] {
    philox([epoch as u32, clock[hyper::CLOCK_ITER], Purpose::Shuffle as u32, 0], [seed[0], seed[1]])
}

fn define(d: &ShuffleShape, a: Args) {
    let bits = bits_of(d.m);
    let epochs = a.index.chunks_exact_mut(d.m).zip(a.moments.chunks_exact_mut(2 * d.minibatches()));
    for (epoch, (index, moments)) in epochs.enumerate() {
        let keys = keys_of(epoch, a.seed, a.clock);
        for (i, place) in index.iter_mut().enumerate() {
            *place = if d.ordered { i as u32 } else { row_at(i as u32, d.m, bits, keys) };
        }
        for (index, moments) in index.chunks(d.minibatch).zip(moments.chunks_exact_mut(2)) {
            let x: Vec<f64> = index.iter().map(|i| f64::from(a.advantage[*i as usize])).collect();
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let m2 = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
            moments.copy_from_slice(&normalization(d.normalize, x.len(), mean, m2, a.percentiles));
        }
    }
}

/// The row of `0..m` at a place of an epoch's order.
pub(super) fn row_at(place: u32, m: usize, bits: u32, keys: [u32; 4]) -> u32 {
    let [mut row] = feistel([place], bits, keys);
    while row as usize >= m {
        [row] = feistel([row], bits, keys);
    }
    row
}

/// Shift and factor for a minibatch of `rows` rows; a single row has no deviation and is left as it is.
#[inline(always)]
pub(super) fn normalization(normalize: Normalize, rows: usize, mean: f64, m2: f64, percentiles: &[f32]) -> [f32; 2] {
    match normalize {
        Normalize::Standardize if rows > 1 => [mean as f32, (1.0 / ((m2 / (rows - 1) as f64).sqrt() + EPSILON)) as f32],
        Normalize::Percentile => [0.0, 1.0 / (percentiles[HIGH] - percentiles[LOW]).max(1.0)],
        _ => [0.0, 1.0],
    }
}

fn run(d: &ShuffleShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let Tile { seed, clock, advantage, percentiles, index, moments } = a;
    let (epoch, of) = (cx.tile, |words: usize| cx.tile * words..(cx.tile + 1) * words);
    // SAFETY: a tile has its own epoch
    let (index, moments) = unsafe { (index.part(of(d.m)), moments.part(of(2 * d.minibatches()))) };
    let a = Args { seed, clock, advantage, percentiles, index, moments };
    permute(cx.isa, d, epoch, a, cx.scratch);
}

/// Walks the places outside `0..m` on, together, until none is left.
#[inline(always)]
fn walk_on(m: usize, bits: u32, keys: [u32; 4], index: &mut [u32], scratch: &mut [f32]) {
    let (at, walkers) = bytemuck::cast_slice_mut::<f32, u32>(&mut scratch[..2 * m]).split_at_mut(m);
    let mut left = 0;
    for (i, place) in index.iter().enumerate() {
        // written always, kept where it counts: half of them do, too many to predict
        (at[left], walkers[left]) = (i as u32, *place);
        left += usize::from(*place as usize >= m);
    }
    while left > 0 {
        feistel_all(&mut walkers[..left], bits, keys);
        let mut still = 0;
        for walker in 0..left {
            let (i, place) = (at[walker], walkers[walker]);
            index[i as usize] = place;
            (at[still], walkers[still]) = (i, place);
            still += usize::from(place as usize >= m);
        }
        left = still;
    }
}

crate::per_isa! {
    /// All places of an epoch at once, then those that fell outside.
    fn permute(d: &ShuffleShape, epoch: usize, a: Args<'_>, scratch: &mut [f32]) {
        let (bits, keys) = (bits_of(d.m), keys_of(epoch, a.seed, a.clock));
        for (i, place) in a.index.iter_mut().enumerate() {
            *place = i as u32;
        }
        if !d.ordered {
            feistel_all(a.index, bits, keys);
            walk_on(d.m, bits, keys, a.index, scratch);
        }
        for (index, moments) in a.index.chunks(d.minibatch).zip(a.moments.chunks_exact_mut(2)) {
            let (mut mean, mut m2) = (0.0, 0.0);
            if d.normalize == Normalize::Standardize {
                let gathered = &mut scratch[..index.len()];
                for (x, i) in gathered.iter_mut().zip(index) {
                    *x = a.advantage[*i as usize];
                }
                (mean, m2) = sums::mean_m2(gathered.len(), |i| f64::from(gathered[i]));
            }
            moments.copy_from_slice(&normalization(d.normalize, index.len(), mean, m2, a.percentiles));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(m: usize, epoch: usize, iteration: u32, session: u32) -> Vec<u32> {
        let epochs = epoch + 1;
        let d = ShuffleShape { m, minibatch: m, epochs, normalize: Normalize::None, ordered: false };
        let (mut index, mut moments) = (vec![u32::MAX; epochs * m], vec![0.0; 2 * epochs]);
        let (seed, clock) = ([17, session], [0, 0, iteration, 0]);
        define(
            &d,
            Args {
                seed: &seed,
                clock: &clock,
                advantage: &vec![0.0; m],
                percentiles: &[0.0; 4],
                index: &mut index,
                moments: &mut moments,
            },
        );
        index.split_off(epoch * m)
    }

    #[test]
    fn every_row_comes_once() {
        for m in 1..600 {
            let mut index = order(m, 0, m as u32, 0);
            index.sort_unstable();
            assert!(index.iter().enumerate().all(|(i, row)| i as u32 == *row), "{m} rows");
        }
    }

    #[test]
    fn epochs_iterations_and_sessions_have_their_own_order() {
        let first = order(100, 0, 1, 0);
        for other in [order(100, 1, 1, 0), order(100, 0, 2, 0), order(100, 0, 1, 1)] {
            assert!(first.iter().zip(&other).filter(|(a, b)| a == b).count() < 20);
        }
    }

    #[test]
    fn rows_land_everywhere_equally_often() {
        // 24 rows is not a power of two: walking must not favour any place; 512 cells of (row, place) pairs in the other
        for (m, trials) in [(24, 6_000), (32, 6_000), (5, 6_000)] {
            let (mut places, mut follows) = (vec![0.0f64; m * m], vec![0.0f64; m * m]);
            for trial in 0..trials {
                let index = order(m, trial % 15, (trial / 15) as u32, 3);
                for (place, row) in index.iter().enumerate() {
                    places[place * m + *row as usize] += 1.0;
                }
                for pair in index.windows(2) {
                    follows[(pair[0] as usize) * m + pair[1] as usize] += 1.0;
                }
            }
            let chi = |counts: &[f64], expected: f64| {
                counts.iter().filter(|c| **c > 0.0).map(|c| (c - expected).powi(2) / expected).sum::<f64>()
            };
            let excess = |chi: f64, freedom: f64| (chi - freedom) / (2.0 * freedom).sqrt();
            let k = m as f64;
            let place = excess(chi(&places, trials as f64 / k), (k - 1.0).powi(2));
            let follow = excess(chi(&follows, trials as f64 / k), (k - 1.0).powi(2));
            assert!(place.abs() < 5.0 && follow.abs() < 8.0, "{m}: {place} {follow}");
        }
    }

    #[test]
    fn minibatches_are_standardised_with_the_unbiased_std() {
        let d = ShuffleShape { m: 5, minibatch: 2, epochs: 1, normalize: Normalize::Standardize, ordered: true };
        let (mut index, mut moments) = ([9; 5], [f32::NAN; 6]);
        define(
            &d,
            Args {
                seed: &[0, 0],
                clock: &[0; 4],
                advantage: &[1.0, 3.0, 5.0, 5.0, 9.0],
                percentiles: &[0.0; 4],
                index: &mut index,
                moments: &mut moments,
            },
        );
        assert_eq!(index, [0, 1, 2, 3, 4]);
        assert_eq!(moments, [2.0, (1.0 / 2f64.sqrt()) as f32, 5.0, 1e8, 0.0, 1.0]);
    }
}
