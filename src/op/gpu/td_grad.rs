//! Launches of `kernels/td_grad.cu`, and of `kernels/td_grad_layered.cu` where nets do not fit a block.

use super::nets::{STRIDE, WIDTH, acts_words, narrow, narrow_row, net_words, pad4};
use super::{MSE, SHARED_BYTES, SMOOTH_L1, flag, net, number, word};
use crate::device::{Field, Kernel};
use crate::op::Shape;
use crate::op::lib::mlp::Mlp;
use crate::op::minibatch_grad::Distance;
use crate::op::td_grad::{Backup, TdShape};

/// Rows that go through a fused net together.
const ROWS: usize = 32;
/// Most tiles of a batch; layer by layer, where large gradients are summed.
const TILES: usize = 128;
const LAYERED_TILES: usize = 16;
/// Lanes of a block.
const LANES: usize = 128;

/// Rows of a tile on a gpu: few, so that their blocks run side by side.
pub fn tile_rows(net: &Mlp, batch: usize) -> usize {
    if fits(net, true) {
        batch.div_ceil(TILES).next_multiple_of(ROWS)
    } else {
        batch.div_ceil(LAYERED_TILES).next_multiple_of(WIDTH)
    }
}

/// Bytes of shared memory of the fused kernel.
fn shared_bytes(net: &Mlp, has_target: bool) -> usize {
    let rows = 2 * ROWS * (narrow_row(net.input) + narrow_row(net.output));
    4 * (rows + net_words(net) * if has_target { 2 } else { 1 } + acts_words(net, ROWS, true))
}

fn fits(net: &Mlp, has_target: bool) -> bool {
    narrow(net) && shared_bytes(net, has_target) <= SHARED_BYTES
}

/// Whether the net itself, and whether the target net, looks at the next state.
pub fn asked(d: &TdShape) -> (bool, bool) {
    (d.backup != Backup::Target, matches!(d.backup, Backup::Target | Backup::Double))
}

fn shape(d: &TdShape, layer: usize) -> Vec<Field> {
    let (distance, beta) = match d.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    let (asks_itself, has_target) = asked(d);
    vec![
        net("net", Some(&d.net)),
        word("actions", d.actions),
        flag("dueling", d.dueling),
        word("rows", d.rows),
        word("envs", d.envs),
        word("start", d.start),
        word("batch", d.batch),
        word("tile_rows", d.tile_rows),
        flag("sarsa", d.backup == Backup::Sarsa),
        flag("asks_itself", asks_itself),
        flag("has_target", has_target),
        word("distance", distance as usize),
        number("beta", beta),
        flag("normalize_obs", d.normalize_obs),
        word("layer", layer),
    ]
}

pub fn kernels(d: &TdShape) -> Vec<Kernel> {
    // a target net of the same size is thought of even where none is asked, so that tiles and path go together
    if !fits(&d.net, true) {
        return layered(d);
    }
    vec![Kernel {
        entry: "td_grad".into(),
        tiles: d.tiles() as u32,
        parts: 1,
        threads: LANES as u32,
        shared_bytes: shared_bytes(&d.net, asked(d).1) as u32,
        shape: shape(d, 0),
    }]
}

/// Passes of a batch through nets: of the states, and of the next states by each net that is asked.
fn passes(d: &TdShape) -> usize {
    1 + usize::from(asked(d).0) + usize::from(asked(d).1)
}

/// Scratch of the kernels that go layer by layer.
pub fn device_scratch(d: &TdShape) -> usize {
    if fits(&d.net, true) {
        return 0;
    }
    let units: usize = d.net.hidden.iter().map(|&units| pad4(units)).sum();
    let pass = units * (1 + usize::from(d.net.activation.needs_input())) + pad4(d.net.output);
    let blocks = d.batch.div_ceil(WIDTH);
    blocks * (WIDTH * (2 * pad4(d.net.input) + passes(d) * pass) + 1)
}

/// Kernels that go layer by layer.
fn layered(d: &TdShape) -> Vec<Kernel> {
    assert!(d.tile_rows.is_multiple_of(WIDTH), "tiles are whole blocks of rows");
    let blocks = d.batch.div_ceil(WIDTH);
    let launch = |entry: &str, tiles: usize, parts: usize, layer: usize, shared_words: usize| Kernel {
        entry: format!("td_grad_{entry}"),
        tiles: tiles as u32,
        parts: parts as u32,
        threads: LANES as u32,
        shared_bytes: 4 * shared_words as u32,
        shape: shape(d, layer),
    };
    let two_tiles = 2 * WIDTH * STRIDE;
    let layers = d.net.offsets();
    let mut all = vec![launch("gather", blocks, 2, 0, 0)];
    for (l, units) in d.net.hidden.iter().enumerate() {
        all.push(launch("forward", blocks * units.div_ceil(WIDTH), passes(d), l, two_tiles));
    }
    let outputs = pad4(d.net.output);
    let heads = WIDTH * outputs * passes(d) + WIDTH * STRIDE + outputs * (STRIDE + 1);
    all.push(launch("losses", blocks, 1, 0, heads));
    for (l, &(input, output, ..)) in layers.iter().enumerate().rev() {
        let tiles = input.div_ceil(WIDTH) * output.div_ceil(WIDTH);
        all.push(launch("weights", d.tiles() * tiles, 1, l, two_tiles));
        if l > 0 {
            all.push(launch("backward", blocks * input.div_ceil(WIDTH), 1, l, two_tiles));
        }
    }
    all
}
