//! Launches of `kernels/advantage.cu`: one where a tile holds all environments, else by tiles of environments.

use super::{flag, word};
use crate::device::Kernel;
use crate::op::advantage::{AdvantageShape, Mode};

/// Codes of [`Mode`].
pub const GAE: u32 = 0;
pub const N_STEP: u32 = 1;
pub const RETURNS: u32 = 2;

/// Environments of a tile at most: a warp reads neighbours in memory.
const TILE: usize = 32;
const THREADS: usize = 512;
/// Bytes that `advantage_scan` stages: a term and a cut for each of 4,096 places.
const STAGED: usize = 8 * 4096;
/// Counts of digits: passes, values looked for, digits.
const PASSES: usize = 3;
const RANKS: usize = 4;
const DIGITS: usize = 2048;
/// Values that a lane of `advantage_count` and `advantage_center` takes.
const EACH: usize = 16;

fn tile(d: &AdvantageShape) -> usize {
    d.n.next_power_of_two().min(TILE)
}

fn tiles(d: &AdvantageShape) -> usize {
    d.n.div_ceil(tile(d))
}

pub fn kernels(d: &AdvantageShape) -> Vec<Kernel> {
    let tiles = tiles(d);
    let (mode, steps, center) = match d.mode {
        Mode::Gae => (GAE, 0, false),
        Mode::NStep(steps) => (N_STEP, steps.min(d.t), false),
        Mode::Returns { center } => (RETURNS, 0, center),
    };
    let kernel = |entry: &str, grid: usize, shared_bytes: usize, pass: usize| Kernel {
        entry: entry.into(),
        tiles: grid as u32,
        parts: 1,
        threads: THREADS as u32,
        shared_bytes: shared_bytes as u32,
        shape: vec![
            word("t", d.t),
            word("n", d.n),
            word("mode", mode as usize),
            word("steps", steps),
            flag("center", center),
            flag("normalize_reward", d.normalize_reward),
            flag("normalize_values", d.normalize_values),
            flag("percentile", d.percentile),
            word("tile_bits", tile(d).trailing_zeros() as usize),
            word("tiles", tiles),
            word("pass", pass),
        ],
    };
    let mut all = Vec::new();
    if tiles > 1 && d.normalize_reward {
        all.push(kernel("advantage_carry", tiles, STAGED, 0));
        all.push(kernel("advantage_scale", 1, 0, 0));
    }
    all.push(kernel("advantage_scan", tiles, STAGED, 0));
    if tiles > 1 {
        let rows = (d.t * d.n).div_ceil(THREADS * EACH);
        if d.percentile {
            all.extend((0..PASSES).map(|pass| kernel("advantage_count", rows, 4 * RANKS * DIGITS, pass)));
        }
        all.push(kernel("advantage_finish", 1, 0, 0));
        if center {
            all.push(kernel("advantage_center", rows, 0, 0));
        }
    }
    all
}

/// Moments of three things for every tile, the mean, and with percentiles a pick for every pass and rank, and counts.
pub fn scratch(d: &AdvantageShape) -> usize {
    let counted = if d.percentile { PASSES * RANKS * (2 + DIGITS) } else { 0 };
    if tiles(d) == 1 { 0 } else { 4 * 3 * tiles(d) + 2 + counted }
}
