// Gradient of one batch of temporal-difference errors of a recurrent Q net. Twin of src/op/sequence_td_grad.rs.
//
// Kernels in order: list, of the steps that a net takes aside; gather, which packs the weights of the cells as well; the
// layers before the cell on all rows, one launch each, then outputs: what the gates get from the inputs; all steps
// forward (lib/through.wgsl); the steps aside; outputs again: the heads'; losses; all learned steps back; gradients of
// the cell, of the head and of the last layer before the cell; then the other layers from the last: slopes at their
// units, gradient of their weights.
//
// A row is a step of a sequence. The rows of a tile of `partial` lie together, step after step, so that those that are
// learnt from are a range. Behind all of them lie the steps aside, whose number only the data tell: blocks beyond the
// last one return. The net and the target net go ahead side by side (z of the grid); only the first goes back. Blocks of
// 64 lanes make tiles of 64 x 64 numbers (lib/layers.wgsl). Small batches are bound by the latency of the steps, many
// sequences by the f32 units. Orders depend on shapes alone, and no row's numbers on its place.

#import lib/activation
#import lib/core
#import lib/layers
#import lib/matrix
#import lib/seen
#import lib/through
#import lib/values

struct Shape {
    // the layers before the cell, and the cell's own units
    front: Net,
    lstm: bool,
    units: u32,
    obs: u32,
    // outputs of the head: values of the actions; of a dueling net one more, the value of the state
    outputs: u32,
    actions: u32,
    dueling: bool,
    // rows of the ring, and environments
    rows: u32,
    envs: u32,
    // steps of a sequence, those before the ones that are learnt from, and those
    t: u32,
    burn_in: u32,
    learned: u32,
    // sequences of the batch, and of a tile of `partial`; rows that are learnt from
    sequences: u32,
    tile: u32,
    batch: u32,
    // whether the net itself and the target net say what the next states are worth
    asks_itself: bool,
    asks_target: bool,
    distance: u32,
    beta: f32,
    normalize_obs: bool,
    // of kernels that go step by step: which way (1: forward, 2: back), sequences of a block, state in scratch
    going: u32,
    block: u32,
    spilled: bool,
    // words per row of the layers before the cell: where the gates begin
    gates: u32,
    // blocks that gather
    gatherers: u32,
}

struct Launch {
    // the first of this batch among the rows that were drawn
    start: u32,
    // tiles side by side; of a gradient, tiles of all of it
    across: u32,
    // bit 0: this is the last layer of a net; bit 1: it reads observations
    flags: u32,
    // of a layer: sizes, its first parameter, and words per row of a net's scratch before what `Side` calls so
    input: u32,
    output: u32,
    weight: u32,
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
    ended: ReadU,        // [R]
    first_state: ReadF,  // [R, state]
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

const NETS = select(1u, 2u, d.asks_target);
const HEAD_PARAMS = d.outputs * (d.units + 1u);
const PARAMS = HEAD_PARAMS + d.front.params + GATE_ROWS * (d.units + 1u);
// Rows of sequences, steps that may be taken aside, and both.
const ROWS = d.t * d.sequences;
const ASIDE = (d.t - d.burn_in) * d.sequences;
const ALL = ROWS + ASIDE;
// Words per row of one net, of all rows: layers before the cell, gates, the cell's outputs, the head's.
const AFTER = d.gates + GATE_ROWS;
const OUT = AFTER + d.units;
const NET_WORDS = OUT + d.outputs;
// Of rows of sequences: what the GRU's gates got from the state, states before a step, the LSTM's `c` after it.
const BEFORE = select(GATE_ROWS, 0u, d.lstm);
const C_AFTER = BEFORE + STATE;
const KEPT_WORDS = C_AFTER + STATE - d.units;
// And of the net that learns: slopes at the outputs, losses; how episodes ended, places of steps aside.
const SLOPES = NETS * KEPT_WORDS;
const LOSSES = SLOPES + d.outputs;
const ENDS = LOSSES + 1u;
const PLACES = ENDS + 1u;

const LEARNT_FROM = d.burn_in;
const LEARNT_END = d.burn_in + d.learned;

fn activation_of(z: u32) -> u32 {
    return d.front.activation;
}

fn unit_of(z: u32, x: f32) -> f32 {
    return activate(d.front.activation, x);
}

fn unit_slope(z: u32, y: f32) -> f32 {
    return slope(d.front.activation, y);
}

// First word of what lies in scratch behind `skipped` words of all rows: observations, then the nets.
fn scratch_of(s: u32, skipped: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + ALL * skipped;
}

fn net_of(s: u32, z: u32, skipped: u32) -> u32 {
    return scratch_of(s, d.obs + z * NET_WORDS + skipped);
}

// The same behind `skipped` words of the rows of sequences, which lie behind all that.
fn kept_of(s: u32, skipped: u32) -> u32 {
    return scratch_of(s, d.obs + NETS * NET_WORDS) + ROWS * skipped;
}

// Steps aside: the rows that they go on from, then their rows in the records, then how many there are.
fn origins_of(s: u32) -> u32 {
    return kept_of(s, PLACES + 1u);
}

fn records_of(s: u32) -> u32 {
    return origins_of(s) + ASIDE;
}

fn count_of(s: u32) -> u32 {
    return records_of(s) + ASIDE;
}

// Packed weights lie behind that, at a multiple of four, then the slopes of sequences that have no room elsewhere.
fn packed_of(s: u32, z: u32) -> u32 {
    return (count_of(s) + 4u) / 4u * 4u + z * PACKED;
}

fn carried_at(s: u32, z: u32) -> u32 {
    return packed_of(s, NETS);
}

fn gates_at(s: u32, z: u32) -> u32 {
    return net_of(s, z, d.gates);
}

// Of the LSTM, slopes of both are the same.
fn recurrent_at(s: u32, z: u32) -> u32 {
    return select(kept_of(s, z * KEPT_WORDS), gates_at(s, z), d.lstm);
}

fn before_at(s: u32, z: u32) -> u32 {
    return kept_of(s, z * KEPT_WORDS + BEFORE);
}

// The LSTM's `c` before a step, and after it.
fn c_at(s: u32, z: u32) -> u32 {
    return kept_of(s, z * KEPT_WORDS + BEFORE + d.units);
}

fn c_after_at(s: u32, z: u32) -> u32 {
    return kept_of(s, z * KEPT_WORDS + C_AFTER);
}

fn after_at(s: u32, z: u32) -> u32 {
    return net_of(s, z, AFTER);
}

// Parameters of net `z`: its head's, then its body's.
fn params_of(s: u32, z: u32) -> u32 {
    if (d.asks_target && z == 1u) { return a.target_.at + s * a.target_.stride; }
    return a.params.at + s * a.params.stride;
}

// The layer that this launch is about.
fn side_of(s: u32, z: u32) -> Side {
    var side: Side;
    side.input = launch.input;
    side.output = launch.output;
    side.weight = params_of(s, z) + launch.weight;
    side.bias = side.weight + side.input * side.output;
    side.below = select(net_of(s, z, launch.below), scratch_of(s, 0u), (launch.flags & 2u) == 2u);
    side.here = net_of(s, z, launch.here);
    side.before = net_of(s, z, launch.before);
    side.last = (launch.flags & 1u) == 1u;
    side.out_row = side.output;
    return side;
}

// The weight of the state of the net that learns, as a layer whose inputs are the states before all steps and whose
// outputs the gates.
fn cell_side(s: u32) -> Side {
    let weight = params_of(s, 0u) + HEAD_PARAMS + d.front.params;
    return last_side(d.units, GATE_ROWS, weight, before_at(s, 0u), recurrent_at(s, 0u), GATE_ROWS);
}

// Its head, on the way back.
fn head_side(s: u32) -> Side {
    return last_side(d.units, d.outputs, params_of(s, 0u), after_at(s, 0u), kept_of(s, SLOPES), d.outputs);
}

// Sequences of the tile that begins with sequence `first`.
fn beside(first: vec4<u32>) -> vec4<u32> {
    return min(vec4<u32>(d.tile), vec4<u32>(d.sequences) - first);
}

// Rows of scratch of four sequences at step `t`.
fn rows_of(sequences: vec4<u32>, t: u32) -> vec4<u32> {
    let first = sequences / d.tile * d.tile;
    return first * d.t + beside(first) * t + sequences - first;
}

fn row_of(sequence: u32, t: u32) -> u32 {
    return rows_of(vec4<u32>(sequence), t).x;
}

// The step of a row, and its sequence.
fn step_of(row: u32) -> vec2<u32> {
    let first = row / (d.tile * d.t) * d.tile;
    let at = row - first * d.t;
    let count = beside(vec4<u32>(first)).x;
    return vec2<u32>(at / count, first + at % count);
}

// Rows of a tile of `partial` that are learnt from: the first one, and how many there are.
fn learnt_of(tile: u32) -> vec2<u32> {
    let count = beside(vec4<u32>(tile * d.tile)).x;
    return vec2<u32>(tile * d.tile * d.t + d.burn_in * count, d.learned * count);
}

// The place of a sequence's step among the rows that were drawn.
fn sample_of(sequence: u32, t: u32) -> u32 {
    return launch.start + t * d.sequences + sequence;
}

// The row in the records of that.
fn record_of(s: u32, sequence: u32, t: u32) -> u32 {
    return get_u(a.index.at + s * a.index.stride + sample_of(sequence, t));
}

// Which of four sequences go on behind a step.
fn goes_on(s: u32, f: Four, q: u32, t: u32) -> vec4<bool> {
    let ends = kept_of(s, ENDS);
    return vec4<bool>(get_u(ends + f.rows.x) == 0u, get_u(ends + f.rows.y) == 0u, get_u(ends + f.rows.z) == 0u,
                      get_u(ends + f.rows.w) == 0u);
}

fn leave_after(s: u32, z: u32, f: Four, unit: u32, state: State4) {
    put_rows(f, after_at(s, z) + unit, d.units, state.h);
    if (d.lstm) { put_rows(f, c_after_at(s, z) + unit, d.units, state.c); }
}

var<workgroup> counts: array<u32, THREADS>;

// One block: which steps are taken aside, where an episode ends or a sequence does. Lanes take turns at the rows.
@compute @workgroup_size(THREADS)
fn sequence_td_grad_list(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let ends = kept_of(s, ENDS);
    var count = 0u;
    for (var row = lane; row < ROWS; row += THREADS) {
        let step = step_of(row);
        let ended = get_u(a.ended.at + s * a.ended.stride + record_of(s, step.y, step.x));
        put_u(ends + row, ended);
        if (step.x >= d.burn_in && (ended != 0u || step.x + 1u == d.t)) { count++; }
    }
    counts[lane] = count;
    workgroupBarrier();
    var number = 0u;
    for (var i = 0u; i < lane; i++) { number += counts[i]; }
    if (lane == THREADS - 1u) { put_u(count_of(s), number + count); }
    for (var row = lane; row < ROWS; row += THREADS) {
        let step = step_of(row);
        if (step.x >= d.burn_in && (get_u(ends + row) != 0u || step.x + 1u == d.t)) {
            put_u(origins_of(s) + number, row);
            put_u(records_of(s) + number, record_of(s, step.y, step.x));
            put_u(kept_of(s, PLACES) + row, ROWS + number);
            number++;
        }
    }
}

// Steps that net `z` takes aside.
fn asides_of(s: u32, z: u32) -> u32 {
    if (z == 0u && !d.asks_itself) { return 0u; }
    return get_u(count_of(s));
}

var<workgroup> all_rows: u32;

// All rows of net `z`, the same for the whole block.
fn rows_of_net(s: u32, z: u32, lane: u32) -> u32 {
    if (lane == 0u) { all_rows = ROWS + asides_of(s, z); }
    return workgroupUniformLoad(&all_rows);
}

// Words that a lane gathers, and fours that it packs.
const GATHERED = 16u;

@compute @workgroup_size(THREADS)
fn sequence_td_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    if (block.z == 0u) {
        if (block.x >= d.gatherers) { return; }
        let end = ROWS + get_u(count_of(s));
        for (var i = 0u; i < GATHERED; i++) {
            let word = (block.x * GATHERED + i) * THREADS + lane;
            let row = word / d.obs;
            if (row < end) {
                let step = step_of(min(row, ROWS - 1u));
                var obs = a.obs.at + s * a.obs.stride + record_of(s, step.y, step.x) * d.obs;
                if (row >= ROWS) {
                    obs = a.next_obs.at + s * a.next_obs.stride + get_u(records_of(s) + row - ROWS) * d.obs;
                }
                put(scratch_of(s, 0u) + word, seen_of(s, get_f(obs + word % d.obs), word % d.obs, d.obs));
            }
        }
        return;
    }
    let z = block.z - 1u;
    let weight = params_of(s, z) + HEAD_PARAMS + d.front.params;
    for (var i = 0u; i < GATHERED; i++) {
        let four = (block.x * GATHERED + i) * THREADS + lane;
        if (four < PACKED / 4u) { pack_cell(packed_of(s, z), four, weight - GATE_ROWS, weight); }
    }
}

@compute @workgroup_size(THREADS)
fn sequence_td_grad_forward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let rows = rows_of_net(s, block.z, lane);
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    if (row < rows) { layer_forward(block.z, side_of(s, block.z), rows, row, col, lane); }
}

// What the gates get from the inputs, and the outputs of the head; but for the bias.
@compute @workgroup_size(THREADS)
fn sequence_td_grad_outputs(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let rows = rows_of_net(s, block.z, lane);
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    if (row < rows) { layer_tile(side_of(s, block.z), rows, row, col, lane); }
}

@compute @workgroup_size(THREADS)
fn sequence_td_grad_ahead(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let first = block.x * d.block;
    // sequences beyond the last one are as that one
    for (var i = lane; i < d.block; i += THREADS) {
        begins[i] = record_of(s, min(first + i, d.sequences - 1u), 0u);
    }
    workgroupBarrier();
    forward_in_time(s, block.z, first, a.first_state.at + s * a.first_state.stride, STATE, lane);
}

// One step from states that are there already; a lane takes a unit of four rows.
@compute @workgroup_size(THREADS)
fn sequence_td_grad_aside(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let z = block.z;
    let asides = asides_of(s, z);
    let i = block.x * THREADS + lane;
    let unit = i % d.units;
    let first = i / d.units * 4u;
    if (first >= asides) { return; }
    let own = four_of(first, asides);
    let origins = origins_of(s);
    let origin = vec4<u32>(get_u(origins + own.rows.x), get_u(origins + own.rows.y), get_u(origins + own.rows.z),
                           get_u(origins + own.rows.w));
    let behind = Four(origin, own.live);
    let to = Four(own.rows + ROWS, own.live);
    var sums = begin_gates(s, z, to, unit);
    for (var k = 0u; k < own_units(); k++) {
        let h = get_rows(behind, after_at(s, z) + k, d.units);
        add_state(h, get4(packed_of(s, z) + 4u * (k * d.units + unit)), &sums);
    }
    var before: State4;
    before.h = get_rows(behind, after_at(s, z) + unit, d.units);
    if (d.lstm) { before.c = get_rows(behind, c_after_at(s, z) + unit, d.units); }
    put_rows(to, after_at(s, z) + unit, d.units, open_gates(before, &sums).h);
}

// Values of the actions in a row of net `z`.
fn values_of(s: u32, z: u32, row: u32) -> Values {
    return values_at(net_of(s, z, OUT) + row * d.outputs, params_of(s, z) + d.outputs * d.units);
}

// What the state is worth that follows step `t` of a sequence.
fn next_value(s: u32, sequence: u32, t: u32) -> f32 {
    let row = row_of(sequence, t);
    var next = row_of(sequence, t + 1u);
    if (t + 1u == d.t || get_u(kept_of(s, ENDS) + row) != 0u) { next = get_u(kept_of(s, PLACES) + row); }
    var judge: Values;
    var worth: Values;
    if (d.asks_itself) { judge = values_of(s, 0u, next); }
    if (d.asks_target) { worth = values_of(s, 1u, next); }
    if (!d.asks_itself) { judge = worth; }
    if (!d.asks_target) { worth = judge; }
    return value_of_next(judge, worth, false, 0.0);
}

// A lane per row that is learnt from, in the order of `error`.
@compute @workgroup_size(THREADS)
fn sequence_td_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let at = block.x * THREADS + lane;
    if (at >= d.batch) { return; }
    let t = d.burn_in + at / d.sequences;
    let sequence = at % d.sequences;
    let i = sample_of(sequence, t);
    let record = record_of(s, sequence, t);
    // the ring may have gone round between the row and its last one
    let ring = d.rows / d.envs;
    let steps = (get_u(a.last.at + s * a.last.stride + i) / d.envs + ring - record / d.envs) % ring;
    let goal = get_f(a.returns.at + s * a.returns.stride + i)
        + get_f(a.discount.at + s * a.discount.stride + i) * next_value(s, sequence, t + steps);
    let row = row_of(sequence, t);
    learn_row(values_of(s, 0u, row), get_f(a.action.at + s * a.action.stride + record), goal,
              get_f(a.weight.at + s * a.weight.stride + i), a.error.at + s * a.error.stride + at,
              kept_of(s, LOSSES) + row, kept_of(s, SLOPES) + row * d.outputs);
}

@compute @workgroup_size(THREADS)
fn sequence_td_grad_back(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let head = head_side(s);
    back_in_time(s, 0u, block.x * d.block, head.weight, head.output, head.here, head.out_row, lane);
}

@compute @workgroup_size(THREADS)
fn sequence_td_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let tile = block.x / launch.across;
    let place = block.x % launch.across;
    let learnt = learnt_of(tile);
    // behind the last layer before the cell come the cell's own weight and the head
    var side = side_of(s, 0u);
    if (block.z == 1u) { side = cell_side(s); }
    if (block.z == 2u) {
        side = head_side(s);
        if (place == 0u) {
            let to = a.partial_loss.at + s * a.partial_loss.stride + tile * SUMS_LOSSES;
            add_value_losses(to, kept_of(s, LOSSES) + learnt.x, learnt.y, lane);
        }
    }
    let grad = a.partial.at + s * a.partial.stride + tile * PARAMS + side.weight - params_of(s, 0u);
    layer_weights(side, learnt.x, learnt.y, place, grad, lane);
}

// Slopes at hidden units of the rows of a tile of `partial` that are learnt from.
@compute @workgroup_size(THREADS)
fn sequence_td_grad_backward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let learnt = learnt_of(block.z);
    let row = learnt.x + block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    let end = learnt.x + learnt.y;
    if (row < end) { layer_backward(0u, side_of(s, 0u), end, row, col, lane); }
}
