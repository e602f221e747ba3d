//! Launches of `kernels/sequence_td_grad.cu`.

use super::nets::{STRIDE, WIDTH, pad4};
use super::recurrent::{ahead_words, back_words, block, has_cells, lanes, state_words};
use super::td_grad::asked;
use super::{MSE, SMOOTH_L1, flag, net, number, word};
use crate::device::{Field, Kernel};
use crate::op::Shape;
use crate::op::minibatch_grad::Distance;
use crate::op::sequence_td_grad::SequenceTdShape;

/// Lanes of a block that makes a tile of 64 x 64 numbers; fewest and most of one that goes through time; blocks that pack;
/// rows of a block that takes steps aside.
const LANES: usize = 128;
const STEP_LANES: (usize, usize) = (32, 512);
const PACK_BLOCKS: usize = 32;
const BESIDE: usize = 4;

/// Rows of all tiles, and those of them that are learnt from, both in whole blocks per tile.
fn rows(d: &SequenceTdShape) -> (usize, usize) {
    let learned = (d.learned * d.tile).next_multiple_of(WIDTH);
    let all = (d.steps() * d.tile).max(d.burn_in * d.tile + learned).next_multiple_of(WIDTH);
    (d.tiles() * all, d.tiles() * learned)
}

/// Words of the cell's input.
fn seen(d: &SequenceTdShape) -> usize {
    d.body.front.hidden.last().copied().unwrap_or(d.obs())
}

fn shape(d: &SequenceTdShape, layer: usize) -> Vec<Field> {
    let (td, body) = (&d.td, &d.body);
    let (distance, beta) = match td.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    let (asks_itself, has_target) = asked(td);
    vec![
        net("head", Some(&td.net)),
        net("front", Some(&body.front)),
        word("gates", body.cell.gates()),
        word("hidden", body.hidden),
        word("actions", td.actions),
        flag("dueling", td.dueling),
        word("rows", td.rows),
        word("envs", td.envs),
        word("start", td.start),
        word("count", d.count()),
        word("tile", d.tile),
        word("block", block(d.count())),
        word("steps", d.steps()),
        word("burn_in", d.burn_in),
        word("learned", d.learned),
        word("batch", td.batch),
        flag("asks_itself", asks_itself),
        flag("has_target", has_target),
        word("distance", distance as usize),
        number("beta", beta),
        flag("normalize_obs", td.normalize_obs),
        word("layer", layer),
    ]
}

pub fn kernels(d: &SequenceTdShape) -> Vec<Kernel> {
    let (body, sequences) = (&d.body, block(d.count()));
    assert!(d.tile.is_power_of_two() && d.tile.is_multiple_of(sequences), "tiles are whole blocks of sequences");
    let launch = |entry: &str, tiles: usize, parts: usize, threads: usize, layer: usize, shared_words: usize| Kernel {
        entry: format!("sequence_td_grad_{entry}"),
        tiles: tiles as u32,
        parts: parts as u32,
        threads: threads as u32,
        shared_bytes: 4 * shared_words as u32,
        shape: shape(d, layer),
    };
    let ((all, learned), two_tiles) = (rows(d), 2 * WIDTH * STRIDE);
    let across = |columns: usize| columns.div_ceil(WIDTH);
    let (asks_itself, has_target) = asked(&d.td);
    // nets that go ahead, and those that are asked what follows
    let (nets, asked) = (1 + usize::from(has_target), usize::from(asks_itself) + usize::from(has_target));
    let layers = body.front.offsets();
    let (last, of_state, steps) = (layers.len() - 1, state_words(body, sequences), d.tiles() * d.tile / sequences);
    let cells = usize::from(has_cells(body));
    let through = lanes(body, 1, STEP_LANES.0, STEP_LANES.1);
    let outputs = pad4(d.td.net.output);

    let mut kernels = vec![launch("gather", (all + learned) / WIDTH + PACK_BLOCKS, 1, LANES, 0, 0)];
    for (l, units) in body.front.hidden.iter().enumerate() {
        kernels.push(launch("forward", (all + learned) / WIDTH * across(*units), nets, LANES, l, two_tiles));
    }
    kernels.push(launch("see", all / WIDTH * across(body.rows()), nets, LANES, last, two_tiles));
    kernels.push(launch("steps", steps, nets, through, 0, (2 + cells) * of_state));
    let beside = (pad4(body.hidden) + pad4(seen(d))) * (BESIDE + 4);
    kernels.push(launch("next", learned / BESIDE, asked, through, 0, beside));
    let heads = WIDTH * outputs * (1 + asked) + WIDTH * STRIDE + outputs * (STRIDE + 1);
    kernels.push(launch("losses", learned / WIDTH, 1, LANES, 0, heads));
    let slopes = pad4(body.rows()) * (sequences + 4) + (1 + cells) * of_state;
    kernels.push(launch("back", steps, 1, through, 0, slopes));
    for (l, &(input, output, ..)) in layers.iter().enumerate().rev() {
        let mut weights = across(input) * across(output);
        if l == last {
            weights += across(body.hidden) * (across(body.rows()) + across(outputs));
        }
        kernels.push(launch("weights", d.tiles() * weights, 1, LANES, l, two_tiles));
        if l > 0 {
            kernels.push(launch("backward", learned / WIDTH * across(input), 1, LANES, l, two_tiles));
        }
    }
    kernels
}

/// What the kernels hand on to each other.
pub fn scratch(d: &SequenceTdShape) -> usize {
    let (body, (all, learned)) = (&d.body, rows(d));
    let front = &body.front;
    let units: usize = front.hidden.iter().map(|&units| pad4(units)).sum();
    let (gates, states) = if has_cells(body) { (1, 3) } else { (2, 2) };
    let packed = ahead_words(body, body.hidden) + ahead_words(body, seen(d)) + back_words(body);
    let of_net = (all + learned) * units
        + all * (gates * pad4(body.rows()) + states * pad4(body.hidden))
        + learned * pad4(body.hidden)
        + packed;
    let nets = 1 + usize::from(asked(&d.td).1);
    let before = if front.activation.needs_input() { units } else { 0 };
    (all + learned) * (1 + pad4(d.obs()))
        + nets * of_net
        + all * before
        + learned * pad4(d.td.net.output)
        + learned / WIDTH
}
