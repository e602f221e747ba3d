//! Launches of `shaders/sequence_td_grad.wgsl`: layers on all rows, the cells step by step.

use super::td_grad::{asks_itself, asks_target};
use super::through::{Front, Going, Place, packed};
use crate::device::{Field, Limits, Shader};
use crate::op::Shape;
use crate::op::gpu::{flag, net, word};
use crate::op::lib::recurrent::Cell;
use crate::op::sequence_td_grad::SequenceTdShape;

/// Lanes of a block, rows and columns of its tile of a product.
const LANES: usize = 64;
const SIDE: usize = 64;
/// Lanes of the block that lists steps aside.
const LISTING: usize = 256;
/// Words that a lane gathers, and fours of words that it packs.
const GATHERED: usize = 16;
/// Bits of `flags`.
const LAST: usize = 1;
const SEES: usize = 2;

/// Nets that go ahead.
fn nets(d: &SequenceTdShape) -> usize {
    1 + usize::from(asks_target(&d.td))
}

/// Rows of sequences, and steps that may be taken aside: no target looks at those before the first that is learnt from.
fn rows(d: &SequenceTdShape) -> [usize; 2] {
    [d.steps() * d.count(), (d.learned + d.ahead) * d.count()]
}

/// Blocks that gather observations.
fn gatherers(d: &SequenceTdShape) -> usize {
    (rows(d).iter().sum::<usize>() * d.body.front.input).div_ceil(LANES * GATHERED)
}

/// Members of `struct Shape`.
fn shape(d: &SequenceTdShape, front: &Front, place: &Place, going: Going) -> Vec<Field> {
    let (td, body) = (&d.td, &d.body);
    let [distance, beta] = super::minibatch_grad::distance(td.distance);
    vec![
        net("front", Some(&body.front)),
        flag("lstm", body.cell == Cell::Lstm),
        word("units", body.hidden),
        word("obs", body.front.input),
        word("outputs", td.net.output),
        word("actions", td.actions),
        flag("dueling", td.dueling),
        word("rows", td.rows),
        word("envs", td.envs),
        word("t", d.steps()),
        word("burn_in", d.burn_in),
        word("learned", d.learned),
        word("sequences", d.count()),
        word("tile", d.tile),
        word("batch", td.batch),
        flag("asks_itself", asks_itself(td)),
        flag("asks_target", asks_target(td)),
        distance,
        beta,
        flag("normalize_obs", td.normalize_obs),
        word("going", going as usize),
        word("block", place.block),
        flag("spilled", place.spilled),
        word("gates", front.gates),
        word("gatherers", gatherers(d)),
    ]
}

/// One launch: kernel, grid, tiles side by side, which way through time; the layer: input, output, first parameter; its
/// flags, and words per row before what it reads, what it gives, and what the units were before the activation.
struct Launch {
    entry: &'static str,
    grid: [usize; 2],
    across: usize,
    going: Going,
    layer: [usize; 3],
    flags: usize,
    at: [usize; 3],
}

pub fn shaders(d: &SequenceTdShape, limits: &Limits) -> Vec<Shader> {
    let (td, body, depth) = (&d.td, &d.body, d.body.front.hidden.len());
    let (front, place) = (Front::new(body), Place::new(body, d.count(), limits));
    let across = |words: usize| words.div_ceil(SIDE);
    let blocks = across(rows(d).iter().sum());
    // layer `l` before the cell; behind them comes the head
    let layers: Vec<_> = body.front.offsets();
    let launch = |entry, grid, across, l: usize, going| {
        let (after, head) = (front.gates + body.rows(), td.net.len());
        // on the way back the units below are asked for
        let of = if entry == "backward" { l - 1 } else { l };
        let (layer, flags, at) = if l > depth {
            ([body.hidden, td.net.output, 0], LAST, [after, after + body.hidden, 0])
        } else {
            let (input, output, weight, _) = layers[l];
            let below = if l == 0 { 0 } else { front.here(l - 1) };
            let flags = usize::from(l == depth) * LAST + usize::from(l == 0) * SEES;
            ([input, output, head + weight], flags, [below, front.here(l), front.before(of)])
        };
        Launch { entry, grid, across, going, layer, flags, at }
    };
    let here = Going::Nowhere;
    let packers = (packed(body) / 4).div_ceil(LANES * GATHERED);
    let mut all = vec![
        launch("list", [1, 1], 1, depth, here),
        launch("gather", [gatherers(d).max(packers), 1 + nets(d)], 1, depth, here),
    ];
    for (l, &units) in body.front.hidden.iter().enumerate() {
        all.push(launch("forward", [blocks * across(units), nets(d)], across(units), l, here));
    }
    let gates = across(body.rows());
    let asides = (rows(d)[1].div_ceil(4) * body.hidden).div_ceil(LANES);
    let sequences = place.blocks(d.count());
    all.extend([
        launch("outputs", [blocks * gates, nets(d)], gates, depth, here),
        launch("ahead", [sequences, nets(d)], 1, depth, Going::Forward),
        launch("aside", [asides, nets(d)], 1, depth, here),
        launch("outputs", [blocks, nets(d)], 1, depth + 1, here),
        launch("losses", [td.batch.div_ceil(LANES), 1], 1, depth, here),
        launch("back", [sequences, 1], 1, depth, Going::Back),
    ]);
    for (l, &(input, output, ..)) in layers.iter().enumerate().rev() {
        // behind the last layer before the cell the cell's own weight and the head
        let last = l == depth;
        let beside = if last { input.max(body.hidden) } else { input };
        let tiles = across(output) * across(beside);
        all.push(launch("weights", [d.tiles() * tiles, if last { 3 } else { 1 }], tiles, l, here));
        if l > 0 {
            let rows = across(d.learned * d.tile.min(d.count()));
            all.push(launch("backward", [rows * across(input), d.tiles()], across(input), l, here));
        }
    }
    all.into_iter().map(|launch| shader(d, &front, &place, &launch)).collect()
}

fn shader(d: &SequenceTdShape, front: &Front, place: &Place, launch: &Launch) -> Shader {
    let mut fields = shape(d, front, place, launch.going);
    let ([input, output, weight], [below, here, before]) = (launch.layer, launch.at);
    fields.extend([
        word("start", d.td.start),
        word("across", launch.across),
        word("flags", launch.flags),
        word("input", input),
        word("output", output),
        word("weight", weight),
        word("below", below),
        word("here", here),
        word("before", before),
    ]);
    let threads = match (launch.going, launch.entry) {
        (Going::Nowhere, "list") => LISTING,
        (Going::Nowhere, _) => LANES,
        _ => place.threads,
    };
    Shader {
        entry: format!("sequence_td_grad_{}", launch.entry),
        swaps: Vec::new(),
        tiles: launch.grid[0] as u32,
        parts: launch.grid[1] as u32,
        threads: threads as u32,
        shape: fields,
    }
}

/// Observations and nets of all rows; states, slopes at outputs, losses, ends and places of the rows of sequences; steps
/// aside and their number; packed weights, slopes of sequences that have no room elsewhere.
pub fn scratch(d: &SequenceTdShape) -> usize {
    let ([steps, asides], body, output) = (rows(d), &d.body, d.td.net.output);
    let net = Front::new(body).gates + body.rows() + body.hidden + output;
    let recurrent = if body.cell == Cell::Gru { body.rows() } else { 0 };
    let kept = recurrent + 2 * body.state_len() - body.hidden;
    let words =
        (steps + asides) * (body.front.input + nets(d) * net) + steps * (nets(d) * kept + output + 3) + 2 * asides + 1;
    words.next_multiple_of(4) + nets(d) * packed(body) + d.count() * body.state_len()
}
