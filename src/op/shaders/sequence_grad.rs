//! Launches of `shaders/sequence_grad.wgsl`: layers on all rows, the cells step by step.

use super::through::{Front, Going, Place, packed};
use crate::device::{Field, Limits, Shader};
use crate::op::Shape;
use crate::op::gpu::{flag, net, policy, word};
use crate::op::hyper::update;
use crate::op::lib::recurrent::{Body, Cell};
use crate::op::sequence_grad::SequenceShape;

/// Lanes of a block, rows and columns of its tile of a product.
const LANES: usize = 64;
const SIDE: usize = 64;
/// Words that a lane gathers, and fours of words that it packs.
const GATHERED: usize = 16;
/// Bit of `flags`.
const LAST: usize = 1;

/// Words of one row of a body in scratch: layers before the cell, gates; what the GRU's gates got from the state; states
/// before and after; outputs.
fn row_words(body: &Body, front: &Front, outputs: usize) -> usize {
    let matrices = if body.cell == Cell::Gru { 2 } else { 1 };
    front.gates + matrices * body.rows() + body.state_len() + body.hidden + outputs
}

/// Words of a row of the actor's outputs, with the slopes of free parameters behind them.
fn outputs(d: &SequenceShape) -> usize {
    d.nets().actor.output + d.nets().policy.free_len()
}

/// Members of `struct Shape`.
fn shape(d: &SequenceShape, place: &Place, going: Going) -> Vec<Field> {
    let (nets, body, rows) = (d.nets(), d.body(), &d.rows);
    let front = Front::new(body);
    let [distance, beta] = super::minibatch_grad::distance(rows.distance);
    let mut fields = vec![
        net("actor", Some(&nets.actor)),
        net("critic", nets.critic.as_ref()),
        policy("policy", Some(nets.policy)),
        net("front", Some(&body.front)),
        flag("lstm", body.cell == Cell::Lstm),
        word("units", body.hidden),
        word("obs", rows.obs),
        word("len", rows.len),
        word("t", d.t),
        word("envs", rows.envs),
        word("sequences", d.envs().1),
        word("tile", d.tile),
        flag("clipped", rows.clipped),
        distance,
        beta,
        flag("clip_value", rows.clip_value),
        flag("symlog", rows.symlog),
        flag("normalize_targets", rows.normalize_targets),
        flag("one_sided", rows.one_sided),
        flag("normalize_obs", rows.normalize_obs),
    ];
    fields.extend([
        word("going", going as usize),
        word("block", place.block),
        flag("spilled", place.spilled),
        word("body_words", row_words(body, &front, outputs(d))),
        word("gates", front.gates),
        word("gatherers", gatherers(d)),
    ]);
    fields
}

/// Blocks that gather observations.
fn gatherers(d: &SequenceShape) -> usize {
    (d.rows.len * d.rows.obs).div_ceil(LANES * GATHERED)
}

pub fn shaders(d: &SequenceShape, limits: &Limits) -> Vec<Shader> {
    let (nets, body, sequences) = (d.nets(), d.body(), d.envs().1);
    let (front, bodies, layers) = (Front::new(body), nets.bodies(), body.front.offsets());
    let place = Place::new(body, sequences, limits);
    // one launch of a kernel: its grid, tiles side by side, the layer before the cell
    let launch = |entry: &str, tiles: usize, parts: usize, across: usize, l: usize, going: Going| {
        let (input, output, weight, _) = layers[l];
        // on the way back the units below are asked for
        let of = if entry == "backward" { l - 1 } else { l };
        let mut fields = shape(d, &place, going);
        fields.extend([
            word("start", d.envs().0),
            word("minibatch", d.rows.minibatch),
            word("across", across),
            word("flags", if l == body.front.hidden.len() { LAST } else { 0 }),
            word("input", input),
            word("output", output),
            word("weight", weight),
            word("below", if l == 0 { 0 } else { front.here(l - 1) }),
            word("here", front.here(l)),
            word("before", front.before(of)),
        ]);
        Shader {
            entry: format!("sequence_grad_{entry}"),
            swaps: Vec::new(),
            tiles: tiles as u32,
            parts: parts as u32,
            threads: if going == Going::Nowhere { LANES } else { place.threads } as u32,
            shape: fields,
        }
    };
    let (blocks, depth) = (d.rows.len.div_ceil(SIDE), body.front.hidden.len());
    let across = |words: usize| words.div_ceil(SIDE);
    let packers = (packed(body) / 4).div_ceil(LANES * GATHERED);
    let mut all = vec![launch("gather", gatherers(d).max(packers), 1 + bodies, 1, 0, Going::Nowhere)];
    for (l, &units) in body.front.hidden.iter().enumerate() {
        all.push(launch("forward", blocks * across(units), bodies, across(units), l, Going::Nowhere));
    }
    all.push(launch("see", blocks * across(body.rows()), bodies, across(body.rows()), depth, Going::Nowhere));
    all.push(launch("ahead", place.blocks(sequences), bodies, 1, depth, Going::Forward));
    all.push(launch("losses", blocks, bodies, 1, depth, Going::Nowhere));
    all.push(launch("back", place.blocks(sequences), bodies, 1, depth, Going::Back));
    for (l, &(input, output, ..)) in layers.iter().enumerate().rev() {
        if l == depth {
            // the last layer before the cell, the cell's own weight, the head
            let most = across(output) * across(input.max(body.hidden));
            let most = most.max(across(outputs(d)) * across(body.hidden));
            all.push(launch("weights", d.tiles() * most, 3 * bodies, most, l, Going::Nowhere));
        } else {
            let tiles = across(input) * across(output);
            all.push(launch("weights", d.tiles() * tiles, bodies, tiles, l, Going::Nowhere));
        }
        if l > 0 {
            all.push(launch("backward", blocks * across(input), bodies, across(input), l, Going::Nowhere));
        }
    }
    all
}

/// Observations, rows of every body, losses, packed weights, slopes of sequences that have no room elsewhere.
pub fn scratch(d: &SequenceShape) -> usize {
    let (nets, body) = (d.nets(), d.body());
    let row = d.rows.obs + nets.bodies() * row_words(body, &Front::new(body), outputs(d)) + update::LOSSES;
    (d.rows.len * row).next_multiple_of(4) + nets.bodies() * (packed(body) + d.envs().1 * body.state_len())
}
