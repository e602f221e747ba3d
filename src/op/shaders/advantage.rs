//! Launches of `shaders/advantage.wgsl`: one where a tile holds all environments, else by tiles of environments.

use crate::device::{Field, Limits, Shader};
use crate::op::advantage::{AdvantageShape, HIGH_QUANTILE, LOW_QUANTILE, Mode};
use crate::op::gpu::advantage::{GAE, N_STEP, RETURNS};
use crate::op::gpu::{flag, word};

const THREADS: usize = 256;
/// Environments of a tile: a block reads neighbours in memory, and has a lane for each. More where a rollout is short, so
/// that a tile fills the places that a block takes at a time.
const TILE: [usize; 2] = [32, 256];
const PLACES: usize = 4 * THREADS;
/// Digits of a percentile, values looked for, values of a digit.
const PASSES: usize = 4;
const RANKS: usize = 4;
const DIGITS: usize = 256;
/// Advantages that one block goes through alone for the percentiles.
const ONE_BLOCK: usize = 8 << 10;
/// Advantages of a block that counts or subtracts, at least, and most such blocks.
const COUNTED: usize = 4 << 10;
const COUNTERS: usize = 128;

fn tile(d: &AdvantageShape) -> usize {
    let full = (PLACES / d.t).next_power_of_two().clamp(TILE[0], TILE[1]);
    d.n.next_power_of_two().min(full)
}

fn tiles(d: &AdvantageShape) -> usize {
    d.n.div_ceil(tile(d))
}

/// Blocks that count, and advantages of each.
fn cut(d: &AdvantageShape) -> (usize, usize) {
    let rows = d.t * d.n;
    let counted = COUNTED.max(rows.div_ceil(COUNTERS));
    (rows.div_ceil(counted), counted)
}

/// Ranks of the values that the two percentiles lie between, and how far behind the first of each two.
fn places(d: &AdvantageShape) -> [Field; 2] {
    let places = [LOW_QUANTILE, HIGH_QUANTILE].map(|q| q * (d.t * d.n - 1) as f64);
    let ranks = places.iter().flat_map(|place| [place.floor() as u32, place.ceil() as u32]).collect();
    let shares = places.iter().map(|place| (place.fract() as f32).to_bits()).collect();
    [Field { name: "ranks", words: ranks }, Field { name: "shares", words: shares }]
}

pub fn shaders(d: &AdvantageShape, limits: &Limits) -> Vec<Shader> {
    let (tiles, (counters, counted)) = (tiles(d), cut(d));
    let (mode, steps, center) = match d.mode {
        Mode::Gae => (GAE, 0, false),
        Mode::NStep(steps) => (N_STEP, steps.min(d.t), false),
        Mode::Returns { center } => (RETURNS, 0, center),
    };
    let mut shape = vec![
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
        word("counters", counters),
        word("counted", counted),
    ];
    shape.extend(places(d));
    let shader = |entry: &str, grid: usize, digit: usize| Shader {
        entry: entry.into(),
        swaps: super::lanes(limits),
        tiles: grid as u32,
        parts: 1,
        threads: THREADS as u32,
        shape: shape.iter().cloned().chain([word("digit", digit)]).collect(),
    };
    let mut all = Vec::new();
    if tiles > 1 && d.normalize_reward {
        all.extend([shader("advantage_carry", tiles, 0), shader("advantage_scale", 1, 0)]);
    }
    all.push(shader("advantage_scan", tiles, 0));
    if tiles > 1 {
        all.push(shader("advantage_finish", 1, 0));
        if center {
            all.push(shader("advantage_center", counters, 0));
        }
    }
    if d.percentile && d.t * d.n <= ONE_BLOCK {
        all.push(shader("advantage_percentiles", 1, 0));
    } else if d.percentile {
        for digit in 0..PASSES {
            all.extend([shader("advantage_count", counters, digit), shader("advantage_find", 1, digit)]);
        }
    }
    all
}

/// Moments of three things for every tile, a pick for every rank, counts of every block.
pub fn scratch(d: &AdvantageShape) -> usize {
    let counts = if d.percentile && d.t * d.n > ONE_BLOCK { RANKS * (2 + cut(d).0 * DIGITS) } else { 0 };
    if tiles(d) == 1 && counts == 0 { 0 } else { 4 * 3 * tiles(d) + counts }
}
