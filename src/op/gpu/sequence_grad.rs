//! Launches of `kernels/sequence_grad.cu`.

use super::nets::{STRIDE, WIDTH, pad4};
use super::recurrent::{ahead_words, back_words, block, has_cells, lanes, state_words};
use super::{MSE, SMOOTH_L1, flag, net, number, policy, word};
use crate::device::{Field, Kernel};
use crate::op::Shape;
use crate::op::hyper::update;
use crate::op::lib::nets::Nets;
use crate::op::lib::recurrent::Body;
use crate::op::minibatch_grad::Distance;
use crate::op::sequence_grad::SequenceShape;

/// Tiles that a minibatch is cut into where its environments allow it; environments of a tile.
const TILES: usize = 32;
const TILE: std::ops::RangeInclusive<usize> = 4..=32;
/// Lanes of a block that makes a tile of 64 x 64 numbers; fewest and most of one that goes through time; blocks that pack.
const LANES: usize = 128;
const STEP_LANES: (usize, usize) = (32, 512);
const PACK_BLOCKS: usize = 32;
/// Words of `Numbers` in `kernels/lib/losses.cuh`.
const NUMBERS: usize = 8;

/// Environments of a tile on a gpu, a power of two.
pub fn tile(envs: usize) -> usize {
    (envs / TILES).next_power_of_two().clamp(*TILE.start(), *TILE.end())
}

fn parts(d: &SequenceShape) -> (&Nets, &Body) {
    (d.nets(), d.body())
}

/// Rows of a tile, and of all tiles.
fn rows(d: &SequenceShape) -> (usize, usize) {
    let tile = (d.t * d.tile).next_multiple_of(WIDTH);
    (tile, d.tiles() * tile)
}

/// Words of slopes at the outputs of every head.
fn out_rows(nets: &Nets) -> impl Iterator<Item = usize> {
    let actor = nets.actor.output + nets.policy.free_len();
    std::iter::once(actor).chain(nets.critic.as_ref().map(|critic| critic.output)).map(pad4)
}

fn shape(d: &SequenceShape, layer: usize) -> Vec<Field> {
    let ((nets, body), rows) = (parts(d), &d.rows);
    let (distance, beta) = match rows.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    let (first, count) = d.envs();
    vec![
        net("actor", Some(&nets.actor)),
        net("critic", nets.critic.as_ref()),
        net("front", Some(&body.front)),
        policy("policy", Some(nets.policy)),
        word("gates", body.cell.gates()),
        word("hidden", body.hidden),
        word("obs", rows.obs),
        word("t", d.t),
        word("envs", rows.envs),
        word("first", first),
        word("count", count),
        word("tile", d.tile),
        word("block", block(count)),
        word("len", rows.len),
        word("minibatch", rows.minibatch),
        flag("clipped", rows.clipped),
        word("distance", distance as usize),
        number("beta", beta),
        flag("clip_value", rows.clip_value),
        flag("symlog", rows.symlog),
        flag("normalize_targets", rows.normalize_targets),
        flag("one_sided", rows.one_sided),
        flag("normalize_obs", rows.normalize_obs),
        word("layer", layer),
    ]
}

pub fn kernels(d: &SequenceShape) -> Vec<Kernel> {
    let ((nets, body), (_, count)) = (parts(d), d.envs());
    let envs = block(count);
    assert!(d.tile.is_power_of_two() && d.tile.is_multiple_of(envs), "tiles are whole blocks of environments");
    let launch = |entry: &str, tiles: usize, threads: usize, layer: usize, shared_words: usize| Kernel {
        entry: format!("sequence_grad_{entry}"),
        tiles: tiles as u32,
        parts: if entry == "gather" { 1 } else { nets.groups() as u32 },
        threads: threads as u32,
        shared_bytes: 4 * shared_words as u32,
        shape: shape(d, layer),
    };
    let (blocks, two_tiles, across) = (rows(d).1 / WIDTH, 2 * WIDTH * STRIDE, |columns: usize| columns.div_ceil(WIDTH));
    let layers = body.front.offsets();
    let (last, of_state, steps) = (layers.len() - 1, state_words(body, envs), d.tiles() * d.tile / envs);
    let mut all = vec![launch("gather", blocks + PACK_BLOCKS, LANES, 0, 0)];
    for (l, units) in body.front.hidden.iter().enumerate() {
        all.push(launch("forward", blocks * across(*units), LANES, l, two_tiles));
    }
    all.push(launch("see", blocks * across(body.rows()), LANES, last, two_tiles));
    let cells = usize::from(has_cells(body));
    all.push(launch("steps", steps, lanes(body, 1, STEP_LANES.0, STEP_LANES.1), 0, (2 + cells) * of_state));
    let outputs = out_rows(nets).max().expect("an agent has a net");
    all.push(launch("losses", blocks, LANES, 0, NUMBERS + WIDTH * outputs + WIDTH * STRIDE + outputs * (STRIDE + 1)));
    all.push(launch(
        "back",
        steps,
        lanes(body, 1, STEP_LANES.0, STEP_LANES.1),
        0,
        pad4(body.rows()) * (envs + 4) + (1 + cells) * of_state,
    ));
    for (l, &(input, output, ..)) in layers.iter().enumerate().rev() {
        let mut weights = across(input) * across(output);
        if l == last {
            weights += across(body.hidden) * (across(body.rows()) + across(outputs));
        }
        all.push(launch("weights", d.tiles() * weights, LANES, l, two_tiles));
        if l > 0 {
            all.push(launch("backward", blocks * across(input), LANES, l, two_tiles));
        }
    }
    all
}

/// What the kernels hand on to each other.
pub fn scratch(d: &SequenceShape) -> usize {
    let ((nets, body), (_, rows)) = (parts(d), rows(d));
    let front = &body.front;
    let units: usize = front.hidden.iter().map(|&units| pad4(units)).sum();
    let hidden = units * (1 + usize::from(front.activation.needs_input()));
    let (gates, states) = if has_cells(body) { (1, 3) } else { (2, 2) };
    let tower = hidden + gates * pad4(body.rows()) + states * pad4(body.hidden);
    let row = pad4(d.rows.obs) + nets.groups() * tower + out_rows(nets).sum::<usize>();
    let packed = ahead_words(body, body.hidden) + back_words(body);
    rows * row + nets.groups() * packed + rows / WIDTH * update::LOSSES
}
