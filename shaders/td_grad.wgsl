// Gradient of one batch of temporal-difference errors of a Q net, layer by layer through scratch. Twin of
// src/op/td_grad.rs.
//
// Kernels in order: gather; forward, once per hidden layer; outputs; losses; then for every layer from the last:
// gradient of its weights, and slopes at the units below it, in the place of their activations. The ways ahead lie side
// by side (z of the grid): 0 is the net at the rows that were drawn, then come the net and the target net at the states
// after them, as far as the backup asks; only the first goes back.
//
// Blocks of 64 lanes make tiles of 64 x 64 numbers (lib/layers.wgsl). Per row and weight one fused multiply-add for
// each way ahead and 2 for the way back. Small batches are bound by the latency of the launches, large ones by the f32
// units and workgroup memory. Orders depend on shapes alone.

#import lib/activation
#import lib/core
#import lib/layers
#import lib/matrix
#import lib/seen
#import lib/values

struct Shape {
    net: Net,
    // of which a dueling net has one output more, the value of the state
    actions: u32,
    dueling: bool,
    // rows of the ring, and environments
    rows: u32,
    envs: u32,
    batch: u32,
    // the value of the action that came next, instead of the largest one
    sarsa: bool,
    // whether the net itself and the target net look at the states after
    asks_itself: bool,
    asks_target: bool,
    distance: u32,
    beta: f32,
    normalize_obs: bool,
    tile_rows: u32,
    // words per row of scratch of all layers of one way ahead, and before the losses
    layers_words: u32,
    losses: u32,
}

struct Launch {
    // the first of this batch among the rows that were drawn
    start: u32,
    // tiles side by side; of a gradient, tiles of all of it
    across: u32,
    // bit 0: this is the last layer; bit 1: this launch adds up the losses of tiles
    flags: u32,
    // of a layer: sizes, and its first parameter
    input: u32,
    output: u32,
    weight: u32,
    // words per row of scratch: of the layers before the one below and before this one, of units before the activation
    below: u32,
    here: u32,
    before: u32,
}

struct Args {
    index: ReadU,        // [samples]
    last: ReadU,         // [samples]
    returns: ReadF,      // [samples]
    discount: ReadF,     // [samples]
    weight: ReadF,       // [samples]
    obs: ReadF,          // [R, O]
    next_obs: ReadF,     // [R, O]
    action: ReadF,       // [R]
    normalizer: ReadF,   // [2, O]
    hyper: ReadF,        // [LEN + groups * GROUP_LEN]
    params: ReadF,       // [P]
    target_: ReadF,      // [P], or nothing
    partial: WriteF,     // [tiles, P]
    partial_loss: WriteF,// [tiles, LOSSES]
    error: WriteF,       // [B]
    scratch: UpdateF,
}

const OBS = d.net.layer[0].input;
const OUTPUT = d.net.layer[d.net.layers - 1u];
// The way of the target net: behind that of the net itself, where that one looks at the states after.
const OTHER = select(1u, 2u, d.asks_itself);

fn activation_of(z: u32) -> u32 {
    return d.net.activation;
}

fn unit_of(z: u32, x: f32) -> f32 {
    return activate(d.net.activation, x);
}

fn unit_slope(z: u32, y: f32) -> f32 {
    return slope(d.net.activation, y);
}

// First word of what lies in scratch behind `skipped` words per row: observations, then those after, then the layers of
// each way, then units before the activation, then the losses.
fn scratch_of(s: u32, skipped: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + d.batch * skipped;
}

// Parameters of the net of way `z`.
fn params_of(s: u32, z: u32) -> u32 {
    if (d.asks_target && z == OTHER) { return a.target_.at + s * a.target_.stride; }
    return a.params.at + s * a.params.stride;
}

// Where the layers of way `z` begin, in words per row.
fn layers_of(z: u32) -> u32 {
    return 2u * OBS + z * d.layers_words;
}

// The layer that this launch is about, of way `z`.
fn side_of(s: u32, z: u32) -> Side {
    var side: Side;
    side.input = launch.input;
    side.output = launch.output;
    side.weight = params_of(s, z) + launch.weight;
    side.bias = side.weight + side.input * side.output;
    // the first layer reads observations
    let first = launch.weight == 0u;
    side.below = scratch_of(s, select(layers_of(z) + launch.below, select(OBS, 0u, z == 0u), first));
    side.here = scratch_of(s, layers_of(z) + launch.here);
    side.before = scratch_of(s, launch.before + z * d.layers_words);
    side.last = (launch.flags & 1u) == 1u;
    side.out_row = side.output;
    return side;
}

// Words that a lane gathers.
const GATHERED = 16u;

@compute @workgroup_size(THREADS)
fn td_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let after = block.z == 1u;
    let rows = select(a.index.at + s * a.index.stride, a.last.at + s * a.last.stride, after) + launch.start;
    let obs = select(a.obs.at + s * a.obs.stride, a.next_obs.at + s * a.next_obs.stride, after);
    let to = scratch_of(s, select(0u, OBS, after));
    for (var i = 0u; i < GATHERED; i++) {
        let word = (block.x * GATHERED + i) * THREADS + lane;
        if (word < d.batch * OBS) {
            let o = word % OBS;
            let x = get_f(obs + get_u(rows + word / OBS) * OBS + o);
            put(to + word, seen_of(s, x, o, OBS));
        }
    }
}

@compute @workgroup_size(THREADS)
fn td_grad_forward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_forward(block.z, side_of(s, block.z), d.batch, row, col, lane);
}

@compute @workgroup_size(THREADS)
fn td_grad_outputs(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    layer_outputs(side_of(s, block.z), d.batch, block.x * SIDE, lane);
}

// Values of the actions in one row, by way `z`.
fn values_of(s: u32, z: u32, row: u32) -> Values {
    let here = scratch_of(s, layers_of(z) + d.layers_words - OUTPUT.output) + row * OUTPUT.output;
    return values_at(here, params_of(s, z) + OUTPUT.bias);
}

// What the state after sample `i` is worth, which row `row` of the batch has looked at.
fn next_value(s: u32, i: u32, row: u32) -> f32 {
    var judge: Values;
    var worth: Values;
    if (d.asks_itself) { judge = values_of(s, 1u, row); }
    if (d.asks_target) { worth = values_of(s, OTHER, row); }
    if (!d.asks_itself) { judge = worth; }
    if (!d.asks_target) { worth = judge; }
    let after = (get_u(a.last.at + s * a.last.stride + i) + d.envs) % d.rows;
    let taken = get_f(a.action.at + s * a.action.stride + after);
    return value_of_next(judge, worth, d.sarsa, taken);
}

// A lane per row; what was drawn and a row's outputs are read once.
@compute @workgroup_size(THREADS)
fn td_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    let i = launch.start + row;
    let drawn = get_u(a.index.at + s * a.index.stride + i);
    let action = get_f(a.action.at + s * a.action.stride + drawn);
    let weight = get_f(a.weight.at + s * a.weight.stride + i);
    let value = next_value(s, i, row);
    let goal = get_f(a.returns.at + s * a.returns.stride + i)
        + get_f(a.discount.at + s * a.discount.stride + i) * value;
    // slopes at the outputs come in their place
    let here = scratch_of(s, layers_of(0u) + d.layers_words - OUTPUT.output) + row * OUTPUT.output;
    learn_row(values_of(s, 0u, row), action, goal, weight, a.error.at + s * a.error.stride + row,
              scratch_of(s, d.losses) + row, here);
}

@compute @workgroup_size(THREADS)
fn td_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let tile = block.x / launch.across;
    let place = block.x % launch.across;
    let begin = tile * d.tile_rows;
    let count = min(d.tile_rows, d.batch - begin);
    if ((launch.flags & 2u) != 0u && place == 0u) {
        let to = a.partial_loss.at + s * a.partial_loss.stride + tile * SUMS_LOSSES;
        add_value_losses(to, scratch_of(s, d.losses) + begin, count, lane);
    }
    let grad = a.partial.at + s * a.partial.stride + tile * d.net.params + launch.weight;
    layer_weights(side_of(s, 0u), begin, count, place, grad, lane);
}

@compute @workgroup_size(THREADS)
fn td_grad_backward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_backward(0u, side_of(s, 0u), d.batch, row, col, lane);
}
