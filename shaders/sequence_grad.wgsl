// Gradient of one minibatch of whole sequences of a recurrent agent. Twin of src/op/sequence_grad.rs.
//
// Kernels in order: gather, which packs the weights of the cells as well; the layers before the cell on all rows, one
// launch each, the last of them gives what the gates get from the inputs; all steps forward (lib/through.wgsl); outputs
// and losses; all steps back, from the slopes at the outputs; gradients of the cell, of the head and of the last layer
// before the cell; then the other layers from the last: slopes at their units, gradient of their weights.
//
// A row is a step of a sequence, rows of one sequence after another, so that a tile of `partial` is a range of rows.
// The bodies of actor and critic are separate and run side by side (z of the grid). Only the cells go step by step;
// everything else makes tiles of 64 x 64 numbers by blocks of 64 lanes (lib/layers.wgsl). Few sequences are bound by
// the latency of the steps, many by the f32 units. Orders depend on shapes alone.

#import lib/activation
#import lib/core
#import lib/layers
#import lib/matrix
#import lib/minibatch
#import lib/through

struct Shape {
    // heads on the bodies
    actor: Net,
    critic: Net,
    policy: Policy,
    // the layers before the cell, and the cell's own units
    front: Net,
    lstm: bool,
    units: u32,
    obs: u32,
    // rows of the minibatch, steps of a sequence, environments of the rollout, sequences of the minibatch
    len: u32,
    t: u32,
    envs: u32,
    sequences: u32,
    // sequences of a tile of `partial`
    tile: u32,
    clipped: bool,
    distance: u32,
    beta: f32,
    clip_value: bool,
    symlog: bool,
    normalize_targets: bool,
    one_sided: bool,
    normalize_obs: bool,
    // of kernels that go step by step: which way (1: forward, 2: back), sequences of a block, state in scratch
    going: u32,
    block: u32,
    spilled: bool,
    // words per row of scratch of one body, and in it before the gates
    body_words: u32,
    gates: u32,
    // blocks that gather
    gatherers: u32,
}

struct Launch {
    // place in the order of environments, and number of the minibatch
    start: u32,
    minibatch: u32,
    // tiles side by side; of a gradient, tiles of all of it
    across: u32,
    // bit 0: this is the last layer before the cell
    flags: u32,
    // of a layer before the cell: sizes, its first parameter, and words per row of a body's scratch before what `Side`
    // calls so
    input: u32,
    output: u32,
    weight: u32,
    below: u32,
    here: u32,
    before: u32,
}

struct Args {
    index: ReadU,          // [epochs * N]
    moments: ReadF,        // [epochs * minibatches, 2]
    obs: ReadF,            // [M, O]
    normalizer: ReadF,     // [2, O]
    ended: ReadU,          // [M]
    first_state: ReadF,    // [N, bodies * state]
    action: ReadF,         // [M, A]
    log_prob: ReadF,       // [M]
    value: ReadF,          // [M + N]
    advantage: ReadF,      // [M]
    returns: ReadF,        // [M]
    value_moments: ReadF,  // [4]
    hyper: ReadF,          // [LEN + groups * GROUP_LEN]
    schedule: ReadF,       // [LEN + groups]
    params: ReadF,         // [P]
    partial: WriteF,       // [tiles, P]
    partial_loss: WriteF,  // [tiles, LOSSES]
    scratch: UpdateF,
}

const BODIES = select(1u, 2u, SEPARATE);
const BODY_PARAMS = d.front.params + GATE_ROWS * (d.units + 1u);
// Parameters of the actor with its body, and of both.
const ACTOR_PARAMS = d.actor.params + FREE + BODY_PARAMS;
const PARAMS = ACTOR_PARAMS + select(0u, d.critic.params + BODY_PARAMS, SEPARATE);
// Words of a row of outputs, with the slopes of free parameters behind them.
const OUT_WORDS = ACTOR_OUTPUTS + FREE;
// Words per row of a body's scratch: gates, what the GRU's got from the state, states before and after a step, outputs.
const RECURRENT = d.gates + GATE_ROWS;
const BEFORE = RECURRENT + select(GATE_ROWS, 0u, d.lstm);
const AFTER = BEFORE + STATE;
const OUT = AFTER + d.units;
// Words per row before the losses, and before packed weights.
const LOSSES = d.obs + BODIES * d.body_words;
const ROW_WORDS = LOSSES + SUMS_LOSSES;

fn activation_of(z: u32) -> u32 {
    return d.front.activation;
}

fn unit_of(z: u32, x: f32) -> f32 {
    return activate(d.front.activation, x);
}

fn unit_slope(z: u32, y: f32) -> f32 {
    return slope(d.front.activation, y);
}

// First word of what lies in scratch behind `skipped` words per row.
fn scratch_of(s: u32, skipped: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + d.len * skipped;
}

// The same inside the scratch of body `z`.
fn body_of(s: u32, z: u32, skipped: u32) -> u32 {
    return scratch_of(s, d.obs + z * d.body_words + skipped);
}

fn gates_at(s: u32, z: u32) -> u32 {
    return body_of(s, z, d.gates);
}

// Of the LSTM, slopes of both are the same.
fn recurrent_at(s: u32, z: u32) -> u32 {
    return body_of(s, z, select(RECURRENT, d.gates, d.lstm));
}

fn before_at(s: u32, z: u32) -> u32 {
    return body_of(s, z, BEFORE);
}

// The LSTM's `c` before a step.
fn c_at(s: u32, z: u32) -> u32 {
    return body_of(s, z, BEFORE + d.units);
}

fn after_at(s: u32, z: u32) -> u32 {
    return body_of(s, z, AFTER);
}

// Packed weights lie behind the rows, at a multiple of four, then the slopes of sequences that have no room elsewhere.
fn packed_of(s: u32, z: u32) -> u32 {
    return (scratch_of(s, ROW_WORDS) + 3u) / 4u * 4u + z * PACKED;
}

fn carried_at(s: u32, z: u32) -> u32 {
    return packed_of(s, BODIES) + z * d.sequences * STATE;
}

fn params_of(s: u32) -> u32 {
    return a.params.at + s * a.params.stride;
}

// Parameters of the head on body `z`, and of the body.
fn head_params(s: u32, z: u32) -> u32 {
    return params_of(s) + z * ACTOR_PARAMS;
}

fn body_params(s: u32, z: u32) -> u32 {
    return head_params(s, z) + select(d.actor.params + FREE, d.critic.params, z == 1u);
}

// The layer before the cell that this launch is about.
fn front_side(s: u32, z: u32) -> Side {
    var side: Side;
    side.input = launch.input;
    side.output = launch.output;
    side.weight = body_params(s, z) + launch.weight;
    side.bias = side.weight + side.input * side.output;
    // the first layer reads observations
    side.below = select(body_of(s, z, launch.below), scratch_of(s, 0u), launch.weight == 0u);
    side.here = body_of(s, z, launch.here);
    side.before = body_of(s, z, launch.before);
    side.last = (launch.flags & 1u) == 1u;
    side.out_row = side.output;
    return side;
}

// The weight of the state, as a layer whose inputs are the states before all steps and whose outputs the gates.
fn cell_side(s: u32, z: u32) -> Side {
    let weight = body_params(s, z) + d.front.params;
    return last_side(d.units, GATE_ROWS, weight, before_at(s, z), recurrent_at(s, z), GATE_ROWS);
}

fn head_side(s: u32, z: u32) -> Side {
    let outputs = select(ACTOR_OUTPUTS, d.critic.layer[0].output, z == 1u);
    let out_row = select(OUT_WORDS, outputs, z == 1u);
    return last_side(d.units, outputs, head_params(s, z), after_at(s, z), body_of(s, z, OUT), out_row);
}

fn env_of(s: u32, sequence: u32) -> u32 {
    return get_u(a.index.at + s * a.index.stride + launch.start + sequence);
}

// The rollout's row that is row `i` of the minibatch.
fn row_of(s: u32, i: u32) -> u32 {
    return i % d.t * d.envs + env_of(s, i / d.t);
}

// Rows of scratch of four sequences at step `t`.
fn rows_of(sequences: vec4<u32>, t: u32) -> vec4<u32> {
    return sequences * d.t + t;
}

const LEARNT_FROM = 0u;
const LEARNT_END = d.t;

// Which of four sequences of a block go on behind step `t`.
fn goes_on(s: u32, f: Four, q: u32, t: u32) -> vec4<bool> {
    let ended = a.ended.at + s * a.ended.stride + t * d.envs;
    return vec4<bool>(get_u(ended + begins[4u * q]) == 0u, get_u(ended + begins[4u * q + 1u]) == 0u,
                      get_u(ended + begins[4u * q + 2u]) == 0u, get_u(ended + begins[4u * q + 3u]) == 0u);
}

fn leave_after(s: u32, z: u32, f: Four, unit: u32, state: State4) {
    put_rows(f, after_at(s, z) + unit, d.units, state.h);
}

// Words that a lane gathers, and fours that it packs.
const GATHERED = 16u;

@compute @workgroup_size(THREADS)
fn sequence_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    if (block.z == 0u) {
        if (block.x >= d.gatherers) { return; }
        let to = scratch_of(s, 0u);
        for (var i = 0u; i < GATHERED; i++) {
            let word = (block.x * GATHERED + i) * THREADS + lane;
            if (word < d.len * d.obs) { put(to + word, observation(s, row_of(s, word / d.obs), word % d.obs)); }
        }
        return;
    }
    let z = block.z - 1u;
    let to = packed_of(s, z);
    let weight = body_params(s, z) + d.front.params;
    for (var i = 0u; i < GATHERED; i++) {
        let four = (block.x * GATHERED + i) * THREADS + lane;
        if (four < PACKED / 4u) { pack_cell(to, four, weight - GATE_ROWS, weight); }
    }
}

@compute @workgroup_size(THREADS)
fn sequence_grad_forward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_forward(block.z, front_side(s, block.z), d.len, row, col, lane);
}

// What the gates get from the inputs, but for the bias.
@compute @workgroup_size(THREADS)
fn sequence_grad_see(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_tile(front_side(s, block.z), d.len, row, col, lane);
}

// Where a block of sequences begins, each with its environment's first row; those beyond the last one are as that one.
fn load_begins(s: u32, first: u32, lane: u32) {
    for (var i = lane; i < d.block; i += THREADS) { begins[i] = env_of(s, min(first + i, d.sequences - 1u)); }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn sequence_grad_ahead(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    load_begins(s, block.x * d.block, lane);
    let state = a.first_state.at + s * a.first_state.stride + block.z * STATE;
    forward_in_time(s, block.z, block.x * d.block, state, BODIES * STATE, lane);
}

@compute @workgroup_size(THREADS)
fn sequence_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = head_side(s, block.z);
    let row = block.x * SIDE;
    layer_outputs(side, d.len, row, lane);
    storageBarrier();

    // a lane per row
    if (row + lane >= d.len) { return; }
    let mine = side.here + (row + lane) * side.out_row;
    let losses = scratch_of(s, LOSSES) + row + lane;
    judge_row(s, block.z == 1u, row_of(s, row + lane), mine, side.bias, losses);
}

@compute @workgroup_size(THREADS)
fn sequence_grad_back(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    load_begins(s, block.x * d.block, lane);
    let head = head_side(s, block.z);
    back_in_time(s, block.z, block.x * d.block, head.weight, head.output, head.here, head.out_row, lane);
}

// Losses of a tile of rows, by one block.
fn add_losses(s: u32, tile: u32, begin: u32, count: u32, lane: u32) {
    for (var c = 0u; c < SUMS_LOSSES; c++) {
        let source = scratch_of(s, LOSSES) + c * d.len + begin;
        let sum = sum_of_words(source, source + count, lane);
        let nothing = c == SUMS_VALUE && !SEPARATE && !SHARED_VALUE;
        if (lane == 0u) {
            put(a.partial_loss.at + s * a.partial_loss.stride + tile * SUMS_LOSSES + c, select(sum, 0.0, nothing));
        }
    }
}

@compute @workgroup_size(THREADS)
fn sequence_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let z = block.z % BODIES;
    let tile = block.x / launch.across;
    let place = block.x % launch.across;
    let begin = tile * d.tile * d.t;
    let count = min(d.tile * d.t, d.len - begin);
    // behind the last layer before the cell come the cell's own weight and the head
    var side = front_side(s, z);
    if (block.z / BODIES == 1u) { side = cell_side(s, z); }
    if (block.z / BODIES == 2u) {
        side = head_side(s, z);
        if (z == 0u && place == 0u) { add_losses(s, tile, begin, count, lane); }
    }
    let grad = a.partial.at + s * a.partial.stride + tile * PARAMS + side.weight - params_of(s);
    layer_weights(side, begin, count, place, grad, lane);
}

@compute @workgroup_size(THREADS)
fn sequence_grad_backward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_backward(block.z, front_side(s, block.z), d.len, row, col, lane);
}
