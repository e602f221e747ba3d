// Rows that were drawn become a batch of their own, with how much better each was than is now expected. Twin of
// src/op/imitate.rs.
//
// A block per ROWS rows, gathered; then the net that gives the value, layer by layer: a lane takes one unit for four
// rows, so a weight that is read, side by side with the neighboring lanes', feeds four fused multiply-adds. Activations
// lie in workgroup memory, or in scratch where they do not fit. Bound by the latency of the weights. Sums run over inputs
// in order within a lane.

#import lib/activation
#import lib/core
#import lib/seen

struct Shape {
    net: Net,
    // where its parameters begin, and which output is the value
    offset: u32,
    value_at: u32,
    // words of an observation and of an action
    obs: u32,
    action: u32,
    batch: u32,
    normalize_obs: bool,
    // words from row to row of activations, and whether they are in scratch
    wide: u32,
    spilled: bool,
}

struct Launch {
    // the first of this batch among the rows that were drawn
    start: u32,
}

struct Args {
    index: ReadU,         // [samples]
    weight: ReadF,        // [samples]
    obs: ReadF,           // [R, O]
    action: ReadF,        // [R, A]
    returns: ReadF,       // [R]
    normalizer: ReadF,    // [2, O]
    hyper: ReadF,         // [LEN + groups * GROUP_LEN]
    params: ReadF,        // [P]
    order: WriteU,        // [B]
    moments: WriteF,      // [1, 2]
    seen: WriteF,         // [B, O]
    taken: WriteF,        // [B, A]
    log_prob: WriteF,     // [B]
    value: WriteF,        // [B]
    advantage: WriteF,    // [B]
    target_: WriteF,      // [B]
    error: WriteF,        // [B]
    scratch: UpdateF,
}

const ROWS = 16u;
const FOUR = 4u;
// Activations of one layer.
const ACTS = ROWS * d.wide;

var<workgroup> acts: array<f32, select(2u * ACTS, 1u, d.spilled)>;

// Number `i` of the two layers' activations; `spill` is where a block's begin in scratch.
fn acts_at(spill: u32, i: u32) -> f32 {
    if (d.spilled) { return get_f(spill + i); }
    return acts[i];
}

fn acts_put(spill: u32, i: u32, x: f32) {
    if (d.spilled) {
        put(spill + i, x);
    } else {
        acts[i] = x;
    }
}

fn synchronize() {
    workgroupBarrier();
    if (d.spilled) { storageBarrier(); }
}

// A hidden layer, of the activations from `before` on to those from `after` on.
fn hidden(lane: u32, y: Layer, params: u32, spill: u32, before: u32, after: u32) {
    for (var i = lane; i < ROWS / FOUR * y.output; i += THREADS) {
        let unit = i % y.output;
        let row = i / y.output * FOUR;
        let at = before + row * d.wide;
        var sum = vec4<f32>(get_f(params + y.bias + unit));
        for (var k = 0u; k < y.input; k++) {
            let w = get_f(params + y.weight + k * y.output + unit);
            let x = vec4<f32>(acts_at(spill, at + k), acts_at(spill, at + d.wide + k),
                              acts_at(spill, at + 2u * d.wide + k), acts_at(spill, at + 3u * d.wide + k));
            sum = fma(x, vec4<f32>(w), sum);
        }
        for (var r = 0u; r < FOUR; r++) {
            acts_put(spill, after + (row + r) * d.wide + unit, activate(d.net.activation, sum[r]));
        }
    }
}

@compute @workgroup_size(THREADS)
fn imitate(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let first = block.x * ROWS;
    let rows = min(d.batch - first, ROWS);
    let index = a.index.at + s * a.index.stride + launch.start + first;
    let obs = a.obs.at + s * a.obs.stride;
    let action = a.action.at + s * a.action.stride;
    let params = a.params.at + s * a.params.stride + d.offset;
    let spill = a.scratch.at + s * a.scratch.stride + block.x * 2u * ACTS;

    // the batch, as it was; and as the net sees it
    let seen = a.seen.at + s * a.seen.stride + first * d.obs;
    for (var i = lane; i < ROWS * d.obs; i += THREADS) {
        let row = i / d.obs;
        let o = i % d.obs;
        var x = 0.0;
        if (row < rows) {
            x = get_f(obs + get_u(index + row) * d.obs + o);
            put(seen + i, x);
            x = seen_of(s, x, o, d.obs);
        }
        acts_put(spill, row * d.wide + o, x);
    }
    let taken = a.taken.at + s * a.taken.stride + first * d.action;
    for (var i = lane; i < rows * d.action; i += THREADS) {
        put(taken + i, get_f(action + get_u(index + i / d.action) * d.action + i % d.action));
    }
    if (first == 0u && lane < 2u) { put(a.moments.at + s * a.moments.stride + lane, f32(lane)); }
    synchronize();

    // the layers of usual nets one by one, so that their sizes are constants
    if (d.net.layers > 1u) {
        hidden(lane, d.net.layer[0], params, spill, 0u, ACTS);
        synchronize();
    }
    if (d.net.layers > 2u) {
        hidden(lane, d.net.layer[1], params, spill, ACTS, 0u);
        synchronize();
    }
    for (var l = 2u; l + 1u < d.net.layers; l++) {
        hidden(lane, d.net.layer[l], params, spill, (l & 1u) * ACTS, ACTS - (l & 1u) * ACTS);
        synchronize();
    }

    // a lane per row: the value, and how far the return lies above it
    if (lane >= rows) { return; }
    let y = d.net.layer[d.net.layers - 1u];
    let at = ((d.net.layers - 1u) & 1u) * ACTS + lane * d.wide;
    var value = get_f(params + y.bias + d.value_at);
    for (var k = 0u; k < y.input; k++) {
        value = fma(acts_at(spill, at + k), get_f(params + y.weight + d.value_at * y.input + k), value);
    }
    let b = first + lane;
    let better = max(get_f(a.returns.at + s * a.returns.stride + get_u(index + lane)) - value, 0.0);
    let gain = get_f(a.weight.at + s * a.weight.stride + launch.start + b) * better;
    put_u(a.order.at + s * a.order.stride + b, b);
    put(a.log_prob.at + s * a.log_prob.stride + b, 0.0);
    put(a.value.at + s * a.value.stride + b, value);
    put(a.advantage.at + s * a.advantage.stride + b, gain);
    put(a.target_.at + s * a.target_.stride + b, select(value - 1.0, value + gain, gain > 0.0));
    put(a.error.at + s * a.error.stride + b, better);
}
