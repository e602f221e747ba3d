//! Launches of `shaders/td_grad.wgsl`, layer by layer.

use crate::device::{Field, Shader};
use crate::op::Shape;
use crate::op::gpu::{flag, net, word};
use crate::op::td_grad::{Backup, TdShape};

/// Lanes of a block, rows and columns of its tile of a product.
const LANES: usize = 64;
const SIDE: usize = 64;
/// Words that a lane gathers.
const GATHERED: usize = 16;
/// Bits of `flags`.
const LAST: usize = 1;
const ADDS_LOSSES: usize = 2;

/// Ways ahead: the drawn rows, then the states after them by the net itself and by the target net.
fn ways(d: &TdShape) -> usize {
    1 + usize::from(asks_itself(d)) + usize::from(asks_target(d))
}

pub(super) fn asks_itself(d: &TdShape) -> bool {
    d.backup != Backup::Target
}

pub(super) fn asks_target(d: &TdShape) -> bool {
    matches!(d.backup, Backup::Target | Backup::Double)
}

/// Words of all layers of one row.
fn layers(d: &TdShape) -> usize {
    d.net.hidden.iter().sum::<usize>() + d.net.output
}

/// Words of the layers before layer `l`.
fn before(d: &TdShape, l: usize) -> usize {
    d.net.hidden[..l].iter().sum()
}

/// Words of scratch per row before units as they are before the activation, and before the losses.
fn inputs(d: &TdShape) -> usize {
    2 * d.net.input + ways(d) * layers(d)
}

fn losses(d: &TdShape) -> usize {
    // only those of the first way are read again, but all ways are one launch
    inputs(d) + if d.net.activation.needs_input() { ways(d) * layers(d) } else { 0 }
}

/// Members of `struct Shape`.
fn shape(d: &TdShape) -> Vec<Field> {
    let [distance, beta] = super::minibatch_grad::distance(d.distance);
    vec![
        net("net", Some(&d.net)),
        word("actions", d.actions),
        flag("dueling", d.dueling),
        word("rows", d.rows),
        word("envs", d.envs),
        word("batch", d.batch),
        flag("sarsa", d.backup == Backup::Sarsa),
        flag("asks_itself", asks_itself(d)),
        flag("asks_target", asks_target(d)),
        distance,
        beta,
        flag("normalize_obs", d.normalize_obs),
        word("tile_rows", d.tile_rows),
        word("layers_words", layers(d)),
        word("losses", losses(d)),
    ]
}

pub fn shaders(d: &TdShape) -> Vec<Shader> {
    let all = d.net.offsets();
    // one launch of a kernel: its grid, tiles side by side, the layer
    let launch = |entry: &str, tiles: usize, parts: usize, across: usize, l: usize, flags: usize| {
        let (input, output, weight, _) = all[l];
        // on the way back the units below are asked for
        let of = if entry == "backward" { l - 1 } else { l };
        let is_last = if l == d.net.hidden.len() { LAST } else { 0 };
        let mut fields = shape(d);
        fields.extend([
            word("start", d.start),
            word("across", across),
            word("flags", is_last | flags),
            word("input", input),
            word("output", output),
            word("weight", weight),
            word("below", if l == 0 { 0 } else { before(d, l - 1) }),
            word("here", before(d, l)),
            word("before", inputs(d) + before(d, of)),
        ]);
        Shader {
            entry: format!("td_grad_{entry}"),
            swaps: Vec::new(),
            tiles: tiles as u32,
            parts: parts as u32,
            threads: LANES as u32,
            shape: fields,
        }
    };
    let (blocks, depth) = (d.batch.div_ceil(SIDE), d.net.hidden.len());
    let gathered = (d.batch * d.net.input).div_ceil(LANES * GATHERED);
    let mut kernels = vec![launch("gather", gathered, 2, 1, 0, 0)];
    for (l, units) in d.net.hidden.iter().enumerate() {
        let across = units.div_ceil(SIDE);
        kernels.push(launch("forward", blocks * across, ways(d), across, l, 0));
    }
    kernels.push(launch("outputs", blocks, ways(d), 1, depth, 0));
    kernels.push(launch("losses", d.batch.div_ceil(LANES), 1, 1, depth, 0));
    for (l, (input, output, ..)) in all.iter().enumerate().rev() {
        let across = input.div_ceil(SIDE) * output.div_ceil(SIDE);
        let flags = if l == depth { ADDS_LOSSES } else { 0 };
        kernels.push(launch("weights", d.tiles() * across, 1, across, l, flags));
        if l > 0 {
            let across = input.div_ceil(SIDE);
            kernels.push(launch("backward", blocks * across, 1, across, l, 0));
        }
    }
    kernels
}

/// Observations, layers, losses.
pub fn scratch(d: &TdShape) -> usize {
    d.batch * (losses(d) + 1)
}
