//! Launches of `shaders/minibatch_grad_fused.wgsl` where nets fit workgroup memory, and of
//! `shaders/minibatch_grad_layered.wgsl` elsewhere.

use crate::device::{Field, Limits, Shader};
use crate::op::Shape;
use crate::op::gpu::{MSE, SMOOTH_L1, flag, net, number, policy, word};
use crate::op::hyper::update;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::minibatch_grad::{Distance, GradShape};

/// Tiles of a large minibatch, so that two separate nets make 512 blocks.
const TILES: usize = 256;
/// The same layer by layer, where a tile has a block per 64 x 64 weights, and large gradients are summed.
const LAYERED_TILES: usize = 16;
/// Lanes of a block, rows and columns of its tile of a product; units of a hidden layer of the fused kernel.
const LANES: usize = 64;
const SIDE: usize = 64;
/// Rows that go through the fused kernel together.
const ROWS: usize = 32;
/// Words from row to row of weights and activations there.
const STRIDE: usize = SIDE + 4;
/// Most words of an observation, and of the outputs with free parameters behind them, there: with two biases they are
/// rows of the chunk's units in the end.
const NARROW: usize = 15;
/// Words that a lane gathers.
const GATHERED: usize = 16;

/// Rows of a tile. Small minibatches are cut small: their blocks run side by side.
pub fn tile_rows(nets: &Nets, len: usize) -> usize {
    if fused(nets) {
        len.div_ceil(TILES).next_multiple_of(ROWS)
    } else {
        len.div_ceil(LAYERED_TILES).next_multiple_of(SIDE)
    }
}

fn each(nets: &Nets) -> impl Iterator<Item = (&Mlp, usize)> {
    std::iter::once((&nets.actor, nets.policy.free_len())).chain(nets.critic.iter().map(|critic| (critic, 0)))
}

/// Whether the fused kernel knows such nets: one or two narrow hidden layers, slopes read off the values.
fn fused(nets: &Nets) -> bool {
    each(nets).all(|(mlp, _)| {
        (1..=2).contains(&mlp.hidden.len())
            && mlp.hidden.iter().all(|&units| units <= SIDE)
            && mlp.input.max(nets.actor.output + nets.policy.free_len()) <= NARROW
            && !mlp.activation.needs_input()
    })
}

/// Rows of a weight between hidden layers that the fused kernel has in workgroup memory at once; none where there is no
/// room, or no such kernel.
fn weight_rows(nets: &Nets, limits: &Limits) -> Option<usize> {
    let quads = |words: usize| words.next_multiple_of(4);
    let out = each(nets).map(|(mlp, free)| quads(mlp.output + free)).max()?;
    let hidden = each(nets).map(|(mlp, _)| mlp.hidden.len()).max()?;
    let input = nets.actor.input;
    // a chunk's observations, units and outputs; narrow weights and biases; a quad per lane
    let chunk = ROWS * (quads(input) + 4 + hidden * STRIDE + out);
    let narrow = SIDE * (input + out + 2) + 4 * LANES;
    let middle = |rows: usize| if hidden > 1 { rows * STRIDE } else { 4 };
    let fits = |rows: &usize| 4 * (chunk + narrow + middle(*rows)) <= limits.shared_bytes;
    if fused(nets) { [SIDE, SIDE / 2].into_iter().find(fits) } else { None }
}

/// What `shaders/lib/distance.wgsl` asks of a shape.
pub(super) fn distance(distance: Distance) -> [Field; 2] {
    let (code, beta) = match distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    [word("distance", code as usize), number("beta", beta)]
}

/// Members of `struct Shape`.
fn shape(d: &GradShape, weight_rows: usize) -> Vec<Field> {
    let [distance, beta] = distance(d.distance);
    vec![
        net("actor", Some(&d.nets.actor)),
        net("critic", d.nets.critic.as_ref()),
        policy("policy", Some(d.nets.policy)),
        word("obs", d.obs),
        word("len", d.len),
        word("tile_rows", d.tile_rows),
        flag("clipped", d.clipped),
        distance,
        beta,
        flag("clip_value", d.clip_value),
        flag("symlog", d.symlog),
        flag("normalize_targets", d.normalize_targets),
        flag("one_sided", d.one_sided),
        flag("normalize_obs", d.normalize_obs),
        word("weight_rows", weight_rows),
        word("losses", losses(d)),
    ]
}

pub fn shaders(d: &GradShape, limits: &Limits) -> Vec<Shader> {
    let Some(rows) = weight_rows(&d.nets, limits) else { return layered(d) };
    let mut shape = shape(d, rows);
    shape.extend([word("start", d.start), word("minibatch", d.minibatch)]);
    vec![Shader {
        entry: "minibatch_grad".into(),
        swaps: vec![("WAY", "minibatch_grad_fused")],
        tiles: d.tiles() as u32,
        parts: d.nets.groups() as u32,
        threads: LANES as u32,
        shape,
    }]
}

/// Where the matrices of one net lie in a session's scratch: words per row of the minibatch before each.
struct Places {
    /// Of every layer: outputs or their slopes.
    here: Vec<usize>,
    /// Of every hidden layer: units before the activation, where slopes need them.
    before: Vec<usize>,
    end: usize,
}

impl Places {
    fn new(mlp: &Mlp, free: usize, start: usize) -> Places {
        let mut end = start;
        let mut place = |words: usize| {
            end += words;
            end - words
        };
        let mut here: Vec<usize> = mlp.hidden.iter().map(|&units| place(units)).collect();
        here.push(place(mlp.output + free));
        let kept = |units: usize| if mlp.activation.needs_input() { units } else { 0 };
        let before = mlp.hidden.iter().map(|&units| place(kept(units))).collect();
        Places { here, before, end }
    }
}

/// Places of the actor and, where there is one, the critic; observations come first.
fn places(nets: &Nets) -> Vec<Places> {
    let mut start = nets.actor.input;
    let place = |(mlp, free)| {
        let places = Places::new(mlp, free, start);
        start = places.end;
        places
    };
    each(nets).map(place).collect()
}

/// Words per row of scratch before the losses.
fn losses(d: &GradShape) -> usize {
    places(&d.nets).last().map_or(0, |places| places.end)
}

/// Scratch of the kernels that go layer by layer, which any limits may ask for.
pub fn scratch(d: &GradShape) -> usize {
    d.len * (losses(d) + update::LOSSES)
}

/// Bit of `flags` beside those of the nets whose last layer it is.
const ADDS_LOSSES: usize = 4;

/// Which way a launch goes: what the kernel calls `before` depends on it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Forward,
    Back,
}

/// Members of `Launch` that tell of one layer: names of the actor's, then of the critic's.
const SIDE_NAMES: [[&str; 6]; 2] = [
    ["actor_input", "actor_output", "actor_weight", "actor_below", "actor_here", "actor_before"],
    ["critic_input", "critic_output", "critic_weight", "critic_below", "critic_here", "critic_before"],
];

/// One launch of a kernel at that layer; `None`: at the output layers, however deep.
fn launch(d: &GradShape, entry: &str, grid: (usize, usize), layer: Option<usize>, way: Way) -> Shader {
    let (mut flags, mut offset, mut sides) = (0, 0, [[0; 6]; 2]);
    for (z, ((mlp, free), places)) in each(&d.nets).zip(places(&d.nets)).enumerate() {
        let l = layer.unwrap_or(mlp.hidden.len());
        // the output layer of the net that is less deep waits for its own launch
        let waits = way == Way::Forward && l == mlp.hidden.len() && layer.is_some();
        if let Some(&(input, output, weight, _)) = mlp.offsets().get(l).filter(|_| !waits) {
            let below = if l == 0 { 0 } else { places.here[l - 1] };
            let before = match way {
                Way::Forward => places.before.get(l),
                Way::Back => places.before.get(l.wrapping_sub(1)),
            };
            sides[z] = [input, output, offset + weight, below, places.here[l], before.copied().unwrap_or(0)];
            flags |= usize::from(l == mlp.hidden.len()) << z;
        }
        offset += mlp.len() + free;
    }
    if way == Way::Back && layer == Some(depth(d)) {
        flags |= ADDS_LOSSES;
    }
    let mut shape = shape(d, 0);
    let (tiles, across) = grid;
    let own = [word("start", d.start), word("minibatch", d.minibatch), word("across", across), word("flags", flags)];
    shape.extend(own);
    for (names, words) in SIDE_NAMES.iter().zip(sides) {
        shape.extend(names.iter().zip(words).map(|(name, x)| word(name, x)));
    }
    Shader {
        entry: format!("minibatch_grad_{entry}"),
        swaps: vec![("WAY", "minibatch_grad_layered")],
        tiles: tiles as u32,
        parts: if entry == "gather" { 1 } else { d.nets.groups() as u32 },
        threads: LANES as u32,
        shape,
    }
}

/// Hidden layers of the deepest net.
fn depth(d: &GradShape) -> usize {
    each(&d.nets).map(|(mlp, _)| mlp.hidden.len()).max().expect("an agent has a net")
}

/// Kernels that go layer by layer; the deepest net decides how many.
fn layered(d: &GradShape) -> Vec<Shader> {
    let blocks = d.len.div_ceil(SIDE);
    // most of what the nets have of something at that layer: of input, output, free parameters
    let most = |layer: usize, of: &dyn Fn(usize, usize, usize) -> usize| {
        let tiles = each(&d.nets).filter_map(|(mlp, free)| {
            let &(input, output, ..) = mlp.offsets().get(layer)?;
            Some(of(input, output, if layer == mlp.hidden.len() { free } else { 0 }))
        });
        tiles.max().unwrap_or(0)
    };
    let gathered = (d.len * d.obs).div_ceil(LANES * GATHERED);
    let mut all = vec![launch(d, "gather", (gathered, 1), Some(0), Way::Forward)];
    for l in 0..depth(d) {
        let across = most(l, &|_, units, _| units.div_ceil(SIDE));
        all.push(launch(d, "forward", (blocks * across, across), Some(l), Way::Forward));
    }
    all.push(launch(d, "losses", (blocks, 1), None, Way::Forward));
    for l in (0..=depth(d)).rev() {
        let tiles = most(l, &|input, output, free| input.div_ceil(SIDE) * (output + free).div_ceil(SIDE));
        all.push(launch(d, "weights", (d.tiles() * tiles, tiles), Some(l), Way::Back));
        if l > 0 {
            let across = most(l, &|input, _, _| input.div_ceil(SIDE));
            all.push(launch(d, "backward", (blocks * across, across), Some(l), Way::Back));
        }
    }
    all
}
