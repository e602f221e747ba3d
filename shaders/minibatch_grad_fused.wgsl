// Gradient of one minibatch for nets with one or two narrow hidden layers: gather, forward, losses, backward in one
// launch. Twin of src/op/minibatch_grad.rs.
//
// One block of 64 lanes per tile of rows, session and net: actor and critic are separate nets and share nothing, so
// they run side by side; each writes its own parameters' part of `partial` and its own columns of `partial_loss`. A
// block goes through the tile in chunks of 32 rows whose activations stay in workgroup memory, where slopes take their
// place on the way back; the gradient stays in registers until the tile is done. The weight between hidden layers, 64 x
// 64, lies in workgroup memory where a block may have 48 KiB, else it comes in two halves; the narrow ones are there
// always.
//
// A row costs 3 multiply-adds per weight (2 in the first layer), of which a lane has 4 rows x 8 units, or 8 x 8 of the
// weight's gradient, and reads 12 or 16 words per 32 or 64 of them. Rows of units lie 4 words more than a multiple of
// 32 apart: lanes that read neighboring rows meet different banks. Bound by the f32 units, then by workgroup memory;
// device memory sees each row once and the gradient once per tile. Every sum runs in an order that shapes alone decide.

#import lib/activation
#import lib/core
#import lib/matrix
#import lib/minibatch

struct Launch {
    start: u32,
    minibatch: u32,
}

const ROWS = 32u;
// Quads from row to row of units and weights; of observations; of outputs with free parameters behind them.
const ROW_QUADS = 17u;
const OBS_QUADS = (d.obs + 3u) / 4u;
const X_QUADS = OBS_QUADS | 1u;
const OUT_WORDS = ACTOR_OUTPUTS + FREE;
const OUT_QUADS = (OUT_WORDS + 3u) / 4u;

const ACTOR_LAST = d.actor.layers - 1u;
const CRITIC_LAST = max(d.critic.layers, 1u) - 1u;
const HIDDEN = max(ACTOR_LAST, CRITIC_LAST);
// Parts that the weight between hidden layers comes in.
const PARTS = SIDE / d.weight_rows;
const WEIGHT_QUADS = select(1u, d.weight_rows * ROW_QUADS, HIDDEN > 1u);

var<workgroup> x: array<vec4<f32>, ROWS * X_QUADS>;
var<workgroup> acts: array<vec4<f32>, HIDDEN * ROWS * ROW_QUADS>;
// Of every 32 rows i of the weight, row `i % 4 * 8 + i / 4`: lanes that read rows for neighboring quads of units meet
// different banks.
var<workgroup> weight: array<vec4<f32>, WEIGHT_QUADS>;
// The first weight; the last one, a row per unit; biases of the first layer and of the middle one.
var<workgroup> first_weight: array<vec4<f32>, d.obs * SIDE_QUADS>;
var<workgroup> last_weight: array<vec4<f32>, SIDE * OUT_QUADS>;
var<workgroup> biases: array<vec4<f32>, 2u * SIDE_QUADS>;
// Outputs, then their slopes.
var<workgroup> outputs: array<vec4<f32>, ROWS * OUT_QUADS>;
// Half of the sums of an output quad.
var<workgroup> shares: array<vec4<f32>, THREADS>;

// A lane's share of a layer's units: quad `2 * i + w` is row `r + 8 i`, columns from `32 w + 4 c` on.
alias Share = array<vec4<f32>, 8>;

// The net that a block works for: its first, middle and last layer.
struct Parts {
    first: Layer,
    middle: Layer,
    last: Layer,
    two: bool,
    outputs: u32,
    free: u32,
}

fn parts_of(z: u32) -> Parts {
    if (SEPARATE && z == 1u) {
        return Parts(d.critic.layer[0], d.critic.layer[1], d.critic.layer[CRITIC_LAST], CRITIC_LAST == 2u, 1u, 0u);
    }
    return Parts(d.actor.layer[0], d.actor.layer[1], d.actor.layer[ACTOR_LAST], ACTOR_LAST == 2u, ACTOR_OUTPUTS, FREE);
}

// Word `i` of a matrix that has `len` there; zero beyond.
fn word_or_zero(at: u32, i: u32, len: u32) -> f32 {
    return select(0.0, get_f(at + min(i, len - 1u)), i < len);
}

fn quad_or_zero(at: u32, i: u32, len: u32) -> vec4<f32> {
    return vec4<f32>(word_or_zero(at, i, len), word_or_zero(at, i + 1u, len), word_or_zero(at, i + 2u, len),
                     word_or_zero(at, i + 3u, len));
}

// Brings a part of the weight between hidden layers, quad by quad. No barrier.
fn load_weight(at: u32, y: Layer, part: u32, lane: u32) {
    for (var row = lane / SIDE_QUADS; row < d.weight_rows; row += THREADS / SIDE_QUADS) {
        let i = part * d.weight_rows + row;
        var v = vec4<f32>();
        if (i < y.input) { v = quad_or_zero(at + i * y.output, 4u * (lane % SIDE_QUADS), y.output); }
        weight[(row / 32u * 32u + row % 4u * 8u + row % 32u / 4u) * ROW_QUADS + lane % SIDE_QUADS] = v;
    }
}

// Brings the other parameters, once; outputs beyond the net's have zeros.
fn load_narrow(params: u32, net: Parts, lane: u32) {
    let quad = lane % SIDE_QUADS;
    for (var o = lane / SIDE_QUADS; o < d.obs; o += THREADS / SIDE_QUADS) {
        let row = params + net.first.weight + o * net.first.output;
        first_weight[o * SIDE_QUADS + quad] = quad_or_zero(row, 4u * quad, net.first.output);
    }
    if (lane < SIDE_QUADS) {
        biases[quad] = quad_or_zero(params + net.first.bias, 4u * quad, net.first.output);
    } else if (lane < 2u * SIDE_QUADS && net.two) {
        biases[lane] = quad_or_zero(params + net.middle.bias, 4u * quad, net.middle.output);
    }
    for (var q = 0u; q < OUT_QUADS; q++) {
        var v = vec4<f32>();
        for (var j = 0u; j < 4u; j++) {
            let o = 4u * q + j;
            let row = params + net.last.weight + o * net.last.input;
            if (o < net.outputs) { v[j] = word_or_zero(row, lane, net.last.input); }
        }
        last_weight[lane * OUT_QUADS + q] = v;
    }
}

// Copies observations, a quad per lane; rows from `count` on become zeros, and so do the words behind an observation.
fn gather(s: u32, begin: u32, count: u32, lane: u32) {
    for (var i = lane; i < ROWS * OBS_QUADS; i += THREADS) {
        let row = i / OBS_QUADS;
        let o = i % OBS_QUADS * 4u;
        var v = vec4<f32>();
        if (row < count) {
            let m = row_of(s, begin + row);
            v.x = observation(s, m, o);
            if (o + 1u < d.obs) { v.y = observation(s, m, o + 1u); }
            if (o + 2u < d.obs) { v.z = observation(s, m, o + 2u); }
            if (o + 3u < d.obs) { v.w = observation(s, m, o + 3u); }
        }
        x[row * X_QUADS + i % OBS_QUADS] = v;
    }
}

// sums += x weight for the lane's share of the first hidden layer.
fn multiply_first(lane: u32, sums: ptr<function, Share>) {
    let r = lane / 8u;
    for (var k = 0u; k < d.obs; k++) {
        let near = first_weight[k * SIDE_QUADS + lane % 8u];
        let far = first_weight[k * SIDE_QUADS + lane % 8u + 8u];
        let x0 = x[(r + 0u) * X_QUADS + k / 4u][k % 4u];
        let x1 = x[(r + 8u) * X_QUADS + k / 4u][k % 4u];
        let x2 = x[(r + 16u) * X_QUADS + k / 4u][k % 4u];
        let x3 = x[(r + 24u) * X_QUADS + k / 4u][k % 4u];
        (*sums)[0] = fma(vec4<f32>(x0), near, (*sums)[0]);
        (*sums)[1] = fma(vec4<f32>(x0), far, (*sums)[1]);
        (*sums)[2] = fma(vec4<f32>(x1), near, (*sums)[2]);
        (*sums)[3] = fma(vec4<f32>(x1), far, (*sums)[3]);
        (*sums)[4] = fma(vec4<f32>(x2), near, (*sums)[4]);
        (*sums)[5] = fma(vec4<f32>(x2), far, (*sums)[5]);
        (*sums)[6] = fma(vec4<f32>(x3), near, (*sums)[6]);
        (*sums)[7] = fma(vec4<f32>(x3), far, (*sums)[7]);
    }
}

// sums += units weight for the lane's share, over the part of the units that `weight` holds, `depth` of them.
fn multiply_part(first: u32, depth: u32, lane: u32, sums: ptr<function, Share>) {
    let source = lane / 8u * ROW_QUADS + first / 4u;
    for (var k = 0u; k < depth; k += 4u) {
        let x0 = acts[source + k / 4u];
        let x1 = acts[source + k / 4u + 8u * ROW_QUADS];
        let x2 = acts[source + k / 4u + 16u * ROW_QUADS];
        let x3 = acts[source + k / 4u + 24u * ROW_QUADS];
        let row = (k / 32u * 32u + k % 32u / 4u) * ROW_QUADS + lane % 8u;
        var near: vec4<f32>;
        var far: vec4<f32>;
        near = weight[row + 0u * ROW_QUADS];
        far = weight[row + 0u * ROW_QUADS + 8u];
        (*sums)[0] = fma(vec4<f32>(x0.x), near, (*sums)[0]);
        (*sums)[1] = fma(vec4<f32>(x0.x), far, (*sums)[1]);
        (*sums)[2] = fma(vec4<f32>(x1.x), near, (*sums)[2]);
        (*sums)[3] = fma(vec4<f32>(x1.x), far, (*sums)[3]);
        (*sums)[4] = fma(vec4<f32>(x2.x), near, (*sums)[4]);
        (*sums)[5] = fma(vec4<f32>(x2.x), far, (*sums)[5]);
        (*sums)[6] = fma(vec4<f32>(x3.x), near, (*sums)[6]);
        (*sums)[7] = fma(vec4<f32>(x3.x), far, (*sums)[7]);
        near = weight[row + 8u * ROW_QUADS];
        far = weight[row + 8u * ROW_QUADS + 8u];
        (*sums)[0] = fma(vec4<f32>(x0.y), near, (*sums)[0]);
        (*sums)[1] = fma(vec4<f32>(x0.y), far, (*sums)[1]);
        (*sums)[2] = fma(vec4<f32>(x1.y), near, (*sums)[2]);
        (*sums)[3] = fma(vec4<f32>(x1.y), far, (*sums)[3]);
        (*sums)[4] = fma(vec4<f32>(x2.y), near, (*sums)[4]);
        (*sums)[5] = fma(vec4<f32>(x2.y), far, (*sums)[5]);
        (*sums)[6] = fma(vec4<f32>(x3.y), near, (*sums)[6]);
        (*sums)[7] = fma(vec4<f32>(x3.y), far, (*sums)[7]);
        near = weight[row + 16u * ROW_QUADS];
        far = weight[row + 16u * ROW_QUADS + 8u];
        (*sums)[0] = fma(vec4<f32>(x0.z), near, (*sums)[0]);
        (*sums)[1] = fma(vec4<f32>(x0.z), far, (*sums)[1]);
        (*sums)[2] = fma(vec4<f32>(x1.z), near, (*sums)[2]);
        (*sums)[3] = fma(vec4<f32>(x1.z), far, (*sums)[3]);
        (*sums)[4] = fma(vec4<f32>(x2.z), near, (*sums)[4]);
        (*sums)[5] = fma(vec4<f32>(x2.z), far, (*sums)[5]);
        (*sums)[6] = fma(vec4<f32>(x3.z), near, (*sums)[6]);
        (*sums)[7] = fma(vec4<f32>(x3.z), far, (*sums)[7]);
        near = weight[row + 24u * ROW_QUADS];
        far = weight[row + 24u * ROW_QUADS + 8u];
        (*sums)[0] = fma(vec4<f32>(x0.w), near, (*sums)[0]);
        (*sums)[1] = fma(vec4<f32>(x0.w), far, (*sums)[1]);
        (*sums)[2] = fma(vec4<f32>(x1.w), near, (*sums)[2]);
        (*sums)[3] = fma(vec4<f32>(x1.w), far, (*sums)[3]);
        (*sums)[4] = fma(vec4<f32>(x2.w), near, (*sums)[4]);
        (*sums)[5] = fma(vec4<f32>(x2.w), far, (*sums)[5]);
        (*sums)[6] = fma(vec4<f32>(x3.w), near, (*sums)[6]);
        (*sums)[7] = fma(vec4<f32>(x3.w), far, (*sums)[7]);
    }
}

// Stores the lane's share of units, activated.
fn store_units(z: u32, nought: u32, base: u32, lane: u32, sums: ptr<function, Share>) {
    let at = base + lane / 8u * ROW_QUADS + lane % 8u;
    acts[at + 0u * ROW_QUADS + 0u] = (*sums)[0];
    acts[at + 0u * ROW_QUADS + 8u] = (*sums)[1];
    acts[at + 8u * ROW_QUADS + 0u] = (*sums)[2];
    acts[at + 8u * ROW_QUADS + 8u] = (*sums)[3];
    acts[at + 16u * ROW_QUADS + 0u] = (*sums)[4];
    acts[at + 16u * ROW_QUADS + 8u] = (*sums)[5];
    acts[at + 24u * ROW_QUADS + 0u] = (*sums)[6];
    acts[at + 24u * ROW_QUADS + 8u] = (*sums)[7];
    // the lane's own words again, so that the loop is small, whatever the activation
    for (var q = nought; q < 8u; q++) {
        let place = at + q / 2u * 8u * ROW_QUADS + q % 2u * 8u;
        let v = acts[place];
        acts[place] = vec4<f32>(unit_of(z, v.x), unit_of(z, v.y), unit_of(z, v.z), unit_of(z, v.w));
    }
}

fn share_of(near: vec4<f32>, far: vec4<f32>) -> Share {
    return Share(near, far, near, far, near, far, near, far);
}

// Outputs of all rows: a lane per row has half of the units.
fn head(bias: u32, net: Parts, base: u32, lane: u32) {
    let row = lane % ROWS;
    let half = lane / ROWS;
    for (var q = 0u; q < OUT_QUADS; q++) {
        var sum = vec4<f32>();
        for (var k = half * SIDE_QUADS / 2u; k < (half + 1u) * SIDE_QUADS / 2u; k++) {
            let v = acts[base + row * ROW_QUADS + k];
            let at = 4u * k * OUT_QUADS + q;
            sum = fma(vec4<f32>(v.x), last_weight[at], sum);
            sum = fma(vec4<f32>(v.y), last_weight[at + OUT_QUADS], sum);
            sum = fma(vec4<f32>(v.z), last_weight[at + 2u * OUT_QUADS], sum);
            sum = fma(vec4<f32>(v.w), last_weight[at + 3u * OUT_QUADS], sum);
        }
        shares[lane] = sum;
        workgroupBarrier();
        if (half == 0u) {
            outputs[row * OUT_QUADS + q] = quad_or_zero(bias, 4u * q, net.outputs) + sum + shares[lane + ROWS];
        }
        workgroupBarrier();
    }
}

// Losses of a lane's row, and the slopes at its outputs in their place, which come back too.
fn losses_of(s: u32, is_critic: bool, m: u32, row: u32,
             losses: ptr<function, LossSums>) -> array<vec4<f32>, OUT_QUADS> {
    let source = row * OUT_QUADS;
    let n = numbers_of(s);
    var slopes: array<vec4<f32>, OUT_QUADS>;
    if (is_critic) {
        slopes[0].x = value_row(s, m, n, outputs[source].x, losses);
        return slopes;
    }
    var out: Outputs;
    var of_out: Outputs;
    for (var j = 0u; j < POLICY_OUTPUTS; j++) { out[j] = outputs[source + j / 4u][j % 4u]; }
    load_free(s, &out);
    actor_row(s, m, n, &out, &of_out, losses);
    for (var j = 0u; j < POLICY_WORDS; j++) { slopes[place(j) / 4u][place(j) % 4u] = of_out[j]; }
    if (SHARED_VALUE) {
        let value = outputs[source + POLICY_OUTPUTS / 4u][POLICY_OUTPUTS % 4u];
        slopes[POLICY_OUTPUTS / 4u][POLICY_OUTPUTS % 4u] = value_row(s, m, n, value, losses);
    }
    return slopes;
}

// Products of a quad with four others, added to `sums`.
fn add_dots(v: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, sums: vec4<f32>) -> vec4<f32> {
    var next = fma(vec4<f32>(v.x), vec4<f32>(w0.x, w1.x, w2.x, w3.x), sums);
    next = fma(vec4<f32>(v.y), vec4<f32>(w0.y, w1.y, w2.y, w3.y), next);
    next = fma(vec4<f32>(v.z), vec4<f32>(w0.z, w1.z, w2.z, w3.z), next);
    return fma(vec4<f32>(v.w), vec4<f32>(w0.w, w1.w, w2.w, w3.w), next);
}

// Slopes below the weight that `weight` holds a part of, from unit `first` on, in the place of the units, which lie at
// the start of `acts`; the slopes above, `depth` of them, lie behind.
fn multiply_back(z: u32, first: u32, depth: u32, lane: u32) {
    let r = lane / 8u;
    let c = lane % 8u;
    // a quad of units at a time
    for (var j = 0u; j < d.weight_rows; j += 32u) {
        var s0 = vec4<f32>();
        var s1 = vec4<f32>();
        var s2 = vec4<f32>();
        var s3 = vec4<f32>();
        let above = (ROWS + r) * ROW_QUADS;
        let row = (j + c) * ROW_QUADS;
        for (var k = 0u; k < (depth + 3u) / 4u; k++) {
            let w0 = weight[row + k];
            let w1 = weight[row + k + 8u * ROW_QUADS];
            let w2 = weight[row + k + 16u * ROW_QUADS];
            let w3 = weight[row + k + 24u * ROW_QUADS];
            s0 = add_dots(acts[above + 0u * ROW_QUADS + k], w0, w1, w2, w3, s0);
            s1 = add_dots(acts[above + 8u * ROW_QUADS + k], w0, w1, w2, w3, s1);
            s2 = add_dots(acts[above + 16u * ROW_QUADS + k], w0, w1, w2, w3, s2);
            s3 = add_dots(acts[above + 24u * ROW_QUADS + k], w0, w1, w2, w3, s3);
        }
        let at = r * ROW_QUADS + (first + j) / 4u + c;
        acts[at + 0u * ROW_QUADS] = s0 * quad_slopes(z, acts[at + 0u * ROW_QUADS]);
        acts[at + 8u * ROW_QUADS] = s1 * quad_slopes(z, acts[at + 8u * ROW_QUADS]);
        acts[at + 16u * ROW_QUADS] = s2 * quad_slopes(z, acts[at + 16u * ROW_QUADS]);
        acts[at + 24u * ROW_QUADS] = s3 * quad_slopes(z, acts[at + 24u * ROW_QUADS]);
    }
}

// Puts a lane's sums into `acts`, rows of the weight.
fn keep_tile(lane: u32, sums: ptr<function, TileSums>) {
    let at = lane / 8u * 4u * ROW_QUADS + lane % 8u;
    acts[at + 0u * ROW_QUADS + 0u] = (*sums)[0];
    acts[at + 1u * ROW_QUADS + 0u] = (*sums)[1];
    acts[at + 2u * ROW_QUADS + 0u] = (*sums)[2];
    acts[at + 3u * ROW_QUADS + 0u] = (*sums)[3];
    acts[at + 0u * ROW_QUADS + 8u] = (*sums)[4];
    acts[at + 1u * ROW_QUADS + 8u] = (*sums)[5];
    acts[at + 2u * ROW_QUADS + 8u] = (*sums)[6];
    acts[at + 3u * ROW_QUADS + 8u] = (*sums)[7];
    acts[at + 32u * ROW_QUADS + 0u] = (*sums)[8];
    acts[at + 33u * ROW_QUADS + 0u] = (*sums)[9];
    acts[at + 34u * ROW_QUADS + 0u] = (*sums)[10];
    acts[at + 35u * ROW_QUADS + 0u] = (*sums)[11];
    acts[at + 32u * ROW_QUADS + 8u] = (*sums)[12];
    acts[at + 33u * ROW_QUADS + 8u] = (*sums)[13];
    acts[at + 34u * ROW_QUADS + 8u] = (*sums)[14];
    acts[at + 35u * ROW_QUADS + 8u] = (*sums)[15];
}

fn quad_slopes(z: u32, v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(unit_slope(z, v.x), unit_slope(z, v.y), unit_slope(z, v.z), unit_slope(z, v.w));
}

// Adds a quad to what the lanes before have left in a row of `acts`.
fn add_share(turn: u32, row: u32, quad: u32, v: vec4<f32>) {
    let at = row * ROW_QUADS + quad;
    if (turn == 0u) {
        acts[at] = v;
    } else {
        acts[at] += v;
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let z = block.z;
    let is_critic = SEPARATE && z == 1u;
    let net = parts_of(z);
    // 0, which a driver cannot know: loops from here on are not unrolled, which would take it longer than it saves
    let nought = z / 2u;
    let offset = select(0u, ACTOR_PARAMS, is_critic);
    let params = a.params.at + s * a.params.stride + offset;
    let units = net.first.output;
    let top = net.last.input;
    // units below the outputs
    let base = select(0u, ROWS * ROW_QUADS, net.two);
    // a lane's quad of units, and the first of its rows, which are `apart`
    let quad = lane % SIDE_QUADS;
    const APART = THREADS / SIDE_QUADS;

    // gradients: of the weight between hidden layers a lane has 8 x 8, of the others its quad of units
    var grad = TileSums();
    var grad_first: array<vec4<f32>, d.obs>;
    var grad_last: array<vec4<f32>, OUT_WORDS>;
    var bias_first = vec4<f32>();
    var bias_top = vec4<f32>();
    // of a lane's rows
    var bias_out: array<vec4<f32>, OUT_QUADS>;
    var losses = LossSums();
    // what the lane's units add to outputs
    var to_out: array<vec4<f32>, OUT_WORDS>;
    for (var o = 0u; o < OUT_WORDS; o++) {
        if (o < net.outputs) { to_out[o] = quad_or_zero(params + net.last.weight + o * top, 4u * quad, top); }
    }
    load_narrow(params, net, lane);
    if (net.two && PARTS == 1u) { load_weight(params + net.middle.weight, net.middle, 0u, lane); }

    let begin = block.x * d.tile_rows;
    let end = min(begin + d.tile_rows, d.len);
    for (var at = begin; at < end; at += ROWS) {
        let count = min(end - at, ROWS);
        workgroupBarrier();
        gather(s, at, count, lane);
        workgroupBarrier();

        // forward
        var sums = share_of(biases[lane % 8u], biases[lane % 8u + 8u]);
        multiply_first(lane, &sums);
        store_units(z, nought, 0u, lane, &sums);
        workgroupBarrier();
        if (net.two) {
            sums = share_of(biases[SIDE_QUADS + lane % 8u], biases[SIDE_QUADS + lane % 8u + 8u]);
            for (var part = 0u; part < PARTS; part++) {
                let first = part * d.weight_rows;
                if (PARTS > 1u) {
                    load_weight(params + net.middle.weight, net.middle, part, lane);
                    workgroupBarrier();
                }
                multiply_part(first, min(max(units, first) - first, d.weight_rows), lane, &sums);
                if (PARTS > 1u) { workgroupBarrier(); }
            }
            store_units(z, nought, ROWS * ROW_QUADS, lane, &sums);
            workgroupBarrier();
        }
        head(params + net.last.bias, net, base, lane);

        // a lane per row; rows that are not there have no slopes
        if (lane < ROWS) {
            var slopes: array<vec4<f32>, OUT_QUADS>;
            if (lane < count) { slopes = losses_of(s, is_critic, row_of(s, at + lane), lane, &losses); }
            for (var q = 0u; q < OUT_QUADS; q++) {
                bias_out[q] += slopes[q];
                outputs[lane * OUT_QUADS + q] = slopes[q];
            }
        }
        workgroupBarrier();

        // units below the outputs: what the outputs' slopes mean for their weights, and for themselves
        for (var row = lane / SIDE_QUADS; row < ROWS; row += APART) {
            let v = acts[base + row * ROW_QUADS + quad];
            var above = vec4<f32>();
            for (var o = 0u; o < OUT_WORDS; o++) {
                let slope_out = vec4<f32>(outputs[row * OUT_QUADS + o / 4u][o % 4u]);
                grad_last[o] = fma(v, slope_out, grad_last[o]);
                above = fma(to_out[o], slope_out, above);
            }
            above *= quad_slopes(z, v);
            bias_top += above;
            acts[base + row * ROW_QUADS + quad] = above;
        }
        workgroupBarrier();
        if (net.two) {
            for (var row = 0u; row < ROWS; row++) {
                let left = row * ROW_QUADS + lane / 8u;
                let right = (ROWS + row) * ROW_QUADS + lane % 8u;
                add_outer(acts[left], acts[left + 8u], acts[right], acts[right + 8u], &grad);
            }
            workgroupBarrier();
            for (var part = 0u; part < PARTS; part++) {
                if (PARTS > 1u) {
                    load_weight(params + net.middle.weight, net.middle, part, lane);
                    workgroupBarrier();
                }
                multiply_back(z, part * d.weight_rows, top, lane);
                workgroupBarrier();
            }
        }
        // units above the observations
        for (var row = lane / SIDE_QUADS; row < ROWS; row += APART) {
            let of_units = acts[row * ROW_QUADS + quad];
            bias_first += of_units;
            for (var o = 0u; o < d.obs; o++) {
                grad_first[o] = fma(of_units, vec4<f32>(x[row * X_QUADS + o / 4u][o % 4u]), grad_first[o]);
            }
        }
    }

    // the tile's gradient, by way of workgroup memory, so that neighboring lanes write neighboring words
    let to = a.partial.at + s * a.partial.stride + block.x * PARAMS + offset;
    workgroupBarrier();
    if (net.two) {
        keep_tile(lane, &grad);
        workgroupBarrier();
        for (var row = 0u; row < units; row++) {
            let sum = acts[row * ROW_QUADS + lane / 4u][lane % 4u];
            if (lane < top) { put(to + net.middle.weight + row * top + lane, sum); }
        }
        workgroupBarrier();
    }
    // lanes of the same units add up one after another: rows of the first weight, its bias, rows of the last weight,
    // then the bias of the units below the outputs
    for (var turn = nought; turn < APART; turn++) {
        if (lane / SIDE_QUADS == turn) {
            for (var o = 0u; o < d.obs; o++) { add_share(turn, o, quad, grad_first[o]); }
            add_share(turn, d.obs, quad, bias_first);
            for (var o = 0u; o < OUT_WORDS; o++) { add_share(turn, d.obs + 1u + o, quad, grad_last[o]); }
            add_share(turn, d.obs + 1u + OUT_WORDS, quad, bias_top);
        }
        workgroupBarrier();
    }
    for (var row = nought; row < d.obs + 2u + OUT_WORDS; row++) {
        let o = row - d.obs - 1u;
        // the first bias lies behind the rows of its weight
        var word = net.first.weight + row * units + lane;
        var there = lane < units;
        if (row > d.obs) {
            word = select(net.middle.bias, net.last.weight + o * top, o < OUT_WORDS) + lane;
            there = lane < top && select(net.two, o < net.outputs, o < OUT_WORDS);
        }
        if (there) { put(to + word, acts[row * ROW_QUADS + lane / 4u][lane % 4u]); }
    }
    workgroupBarrier();

    // rows' sums: a lane per row had the slopes and the losses, now a lane has one number of all rows
    if (lane < ROWS) {
        for (var q = 0u; q < OUT_QUADS; q++) { acts[lane * ROW_QUADS + q] = bias_out[q]; }
        acts[lane * ROW_QUADS + OUT_QUADS] = vec4<f32>(losses[0], losses[1], losses[2], losses[3]);
        acts[lane * ROW_QUADS + OUT_QUADS + 1u] = vec4<f32>(losses[4], 0.0, 0.0, 0.0);
    }
    workgroupBarrier();
    if (lane < 4u * OUT_QUADS + SUMS_LOSSES) {
        var sum = 0.0;
        for (var row = nought; row < ROWS; row++) { sum += acts[row * ROW_QUADS + lane / 4u][lane % 4u]; }
        let column = lane - 4u * OUT_QUADS;
        if (lane < net.outputs + net.free) {
            put(to + net.last.bias + lane, sum);
        } else if (lane >= 4u * OUT_QUADS && owns(is_critic, column)) {
            put(a.partial_loss.at + s * a.partial_loss.stride + block.x * SUMS_LOSSES + column, sum);
        }
    }
}
