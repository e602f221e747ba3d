//! Launches of `kernels/minibatch_grad.cu`, of `kernels/minibatch_grad_bf16.cu`, and of
//! `kernels/minibatch_grad_layered.cu` where nets do not fit a block.

use super::nets::{
    HALF_STRIDE, STRIDE, WIDTH, acts_words, half_acts, half_row, half_words, narrow, narrow_row, net_words, pad4,
};
use super::{MSE, SHARED_BYTES, SMOOTH_L1, flag, net, number, policy, word};
use crate::device::{Field, Kernel, Precision};
use crate::op::Shape;
use crate::op::hyper::update;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::minibatch_grad::{Distance, GradShape};

/// Tiles of a large minibatch, so that two separate nets make 256 blocks.
const TILES: usize = 128;
/// The same layer by layer, where a tile has a block per 64 x 64 weights, and large gradients are summed.
const LAYERED_TILES: usize = 16;
/// Rows that go through a fused net together, by entry.
const ROWS: [usize; 3] = [32, 64, 128];
/// Lanes of a block.
const LANES: usize = 128;
/// Words of `Numbers` in `kernels/lib/losses.cuh`.
const NUMBERS: usize = 8;

/// Rows of a tile on a gpu. Small minibatches are cut small: their blocks run side by side.
pub fn tile_rows(nets: &Nets, len: usize) -> usize {
    if !fits(nets, ROWS[0]) {
        return len.div_ceil(LAYERED_TILES).next_multiple_of(WIDTH);
    }
    let rows = len.div_ceil(TILES);
    ROWS.into_iter().find(|&most| rows <= most).unwrap_or(rows.next_multiple_of(ROWS[2]))
}

fn each(nets: &Nets) -> impl Iterator<Item = (&Mlp, usize)> {
    std::iter::once((&nets.actor, nets.policy.free_len())).chain(nets.critic.iter().map(|critic| (critic, 0)))
}

/// Bytes of shared memory of the fused kernels with chunks of that many rows; the largest of the nets decides.
fn shared_bytes(nets: &Nets, rows: usize) -> usize {
    let words = each(nets).map(|(mlp, free)| {
        let outputs = 2 * rows * narrow_row(mlp.output + free);
        let net = match mlp.precision {
            Precision::F32 => rows * narrow_row(mlp.input) + net_words(mlp) + acts_words(mlp, rows, true),
            Precision::Bf16 => {
                rows * (half_row(mlp.input) + half_row(mlp.output)) + half_words(mlp) + half_acts(mlp, rows)
            }
        };
        outputs + net
    });
    4 * (NUMBERS + words.max().expect("an agent has a net"))
}

/// Whether the fused kernels with chunks of that many rows can have these nets.
fn fits(nets: &Nets, rows: usize) -> bool {
    // all of a row's operands are fragments in registers
    let few = |mlp: &Mlp| mlp.precision == Precision::F32 || mlp.input.max(mlp.output) <= WIDTH;
    each(nets).all(|(mlp, _)| narrow(mlp) && few(mlp)) && shared_bytes(nets, rows) <= SHARED_BYTES
}

/// What the kernels of a precision are called.
fn named(precision: Precision, what: impl std::fmt::Display) -> String {
    match precision {
        Precision::F32 => format!("minibatch_grad_{what}"),
        Precision::Bf16 => format!("minibatch_grad_bf16_{what}"),
    }
}

fn shape(d: &GradShape, layer: usize) -> Vec<Field> {
    let (distance, beta) = match d.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    vec![
        net("actor", Some(&d.nets.actor)),
        net("critic", d.nets.critic.as_ref()),
        policy("policy", Some(d.nets.policy)),
        word("obs", d.obs),
        word("start", d.start),
        word("len", d.len),
        word("minibatch", d.minibatch),
        word("tile_rows", d.tile_rows),
        flag("clipped", d.clipped),
        word("distance", distance as usize),
        number("beta", beta),
        flag("clip_value", d.clip_value),
        flag("symlog", d.symlog),
        flag("normalize_targets", d.normalize_targets),
        flag("one_sided", d.one_sided),
        flag("normalize_obs", d.normalize_obs),
        word("layer", layer),
    ]
}

pub fn kernels(d: &GradShape) -> Vec<Kernel> {
    let tall = |rows: &usize| *rows <= d.tile_rows.max(ROWS[0]) && fits(&d.nets, *rows);
    let Some(rows) = ROWS.into_iter().rev().find(tall) else { return layered(d) };
    vec![Kernel {
        entry: named(d.precision(), rows),
        tiles: d.tiles() as u32,
        parts: d.nets.groups() as u32,
        // a warp of the matrix units has 16 rows
        threads: if d.precision() == Precision::Bf16 { 2 * rows } else { LANES } as u32,
        shared_bytes: shared_bytes(&d.nets, rows) as u32,
        shape: shape(d, 0),
    }]
}

/// Words of a net's matrices per row: activations, those before the activation where slopes need them, and slopes at the
/// outputs.
fn layered_words(mlp: &Mlp, free: usize) -> usize {
    let units: usize = mlp.hidden.iter().map(|&units| pad4(units)).sum();
    units * (1 + usize::from(mlp.activation.needs_input())) + pad4(mlp.output + free)
}

/// Scratch of the kernels that go layer by layer.
pub fn device_scratch(d: &GradShape) -> usize {
    if fits(&d.nets, ROWS[0]) {
        return 0;
    }
    let words: usize = each(&d.nets).map(|(mlp, free)| layered_words(mlp, free)).sum();
    let blocks = d.len.div_ceil(WIDTH);
    blocks * (WIDTH * (pad4(d.obs) + words) + update::LOSSES)
}

/// A layer as [`Mlp::offsets`] gives it: input, output, weight, bias.
type Offsets = (usize, usize, usize, usize);

/// Kernels that go layer by layer; the deepest net decides how many.
fn layered(d: &GradShape) -> Vec<Kernel> {
    assert!(d.tile_rows.is_multiple_of(WIDTH), "tiles are whole blocks of rows");
    let blocks = d.len.div_ceil(WIDTH);
    let launch = |entry: &str, tiles, layer, shared_words: usize| Kernel {
        entry: named(d.precision(), entry),
        tiles: tiles as u32,
        parts: if entry == "gather" { 1 } else { d.nets.groups() as u32 },
        threads: LANES as u32,
        shared_bytes: 4 * shared_words as u32,
        shape: shape(d, layer),
    };
    // most tiles of 64 that a net's layer has, in a dimension that is made of these words
    let most = |layer: usize, across: &dyn Fn(&Mlp, usize, Offsets) -> usize| {
        let tiles = each(&d.nets).filter_map(|(mlp, free)| Some(across(mlp, free, *mlp.offsets().get(layer)?)));
        tiles.max().unwrap_or(0)
    };
    let layers = each(&d.nets).map(|(mlp, _)| mlp.hidden.len() + 1).max().expect("an agent has a net");
    let two_tiles = 2 * WIDTH * if d.precision() == Precision::Bf16 { HALF_STRIDE / 2 } else { STRIDE };
    let mut all = vec![launch("gather", blocks, 0, 0)];
    for l in 0..layers - 1 {
        let across = most(l, &|_, _, (_, units, ..)| units.div_ceil(WIDTH));
        all.push(launch("forward", blocks * across, l, two_tiles));
    }
    let outputs = each(&d.nets).map(|(mlp, free)| {
        let weights = pad4(mlp.output) * (STRIDE + 1);
        WIDTH * pad4(mlp.output + free) + WIDTH * STRIDE + weights
    });
    all.push(launch("losses", blocks, 0, NUMBERS + outputs.max().expect("an agent has a net")));
    for l in (0..layers).rev() {
        let tiles = most(l, &|mlp, free, (input, output, ..)| {
            let free = if l == mlp.hidden.len() { free } else { 0 };
            input.div_ceil(WIDTH) * (output + free).div_ceil(WIDTH)
        });
        all.push(launch("weights", d.tiles() * tiles, l, two_tiles));
        if l > 0 {
            all.push(launch("backward", blocks * most(l, &|_, _, (input, ..)| input.div_ceil(WIDTH)), l, two_tiles));
        }
    }
    all
}
