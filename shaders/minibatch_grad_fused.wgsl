// Gradient of one minibatch for nets with one or two narrow hidden layers: gather, forward, losses, backward in one launch.
// Twin of src/op/minibatch_grad.rs.
//
// One block of 64 lanes per tile of rows, session and net: actor and critic are separate nets and share nothing, so they
// run side by side; each writes its own parameters' part of `partial` and its own columns of `partial_loss`. A block goes
// through the tile in chunks of 32 rows whose activations stay in workgroup memory, where slopes take their place on the
// way back; the gradient stays in registers until the tile is done. The weight between hidden layers, 64 x 64, lies in
// workgroup memory where a block may have 48 KiB, else it comes in two halves; the narrow ones are read through caches.
//
// A row costs 3 multiply-adds per weight (2 in the first layer), of which a lane has 4 rows x 8 units, or 8 x 8 of the
// weight's gradient, and reads 12 or 16 words per 32 or 64 of them. Rows of units lie 4 words more than a multiple of 32
// apart: lanes that read neighboring rows meet different banks. Bound by the f32 units, then by workgroup memory; device
// memory sees each row once and the gradient once per tile. Every sum runs in an order that shapes alone decide.

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
var<workgroup> weight: array<vec4<f32>, WEIGHT_QUADS>;
var<workgroup> outputs: array<vec4<f32>, ROWS * OUT_QUADS>;
var<workgroup> slopes_out: array<vec4<f32>, ROWS * OUT_QUADS>;
var<workgroup> row_losses: array<f32, SUMS_LOSSES * ROWS>;

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

// Brings a part of the weight between hidden layers; a lane keeps to one column. No barrier.
fn load_weight(at: u32, y: Layer, part: u32, lane: u32) {
    for (var row = 0u; row < d.weight_rows; row++) {
        let i = part * d.weight_rows + row;
        var v = 0.0;
        if (i < y.input) { v = word_or_zero(at + i * y.output, lane, y.output); }
        weight[row * ROW_QUADS + lane / 4u][lane % 4u] = v;
    }
}

// Copies observations; rows from `count` on become zeros, and so do the words behind an observation.
fn gather(s: u32, begin: u32, count: u32, lane: u32) {
    for (var i = lane; i < ROWS * 4u * OBS_QUADS; i += THREADS) {
        let row = i / (4u * OBS_QUADS);
        let o = i % (4u * OBS_QUADS);
        var v = 0.0;
        if (row < count && o < d.obs) { v = observation(s, row_of(s, begin + row), o); }
        x[row * X_QUADS + o / 4u][o % 4u] = v;
    }
}

// sums += x weight for the lane's share of the first hidden layer.
fn multiply_first(at: u32, units: u32, lane: u32, sums: ptr<function, Share>) {
    let r = lane / 8u;
    let c = lane % 8u;
    for (var k = 0u; k < d.obs; k++) {
        let near = quad_or_zero(at + k * units, 4u * c, units);
        let far = quad_or_zero(at + k * units, 4u * c + 32u, units);
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
        let row = k * ROW_QUADS + lane % 8u;
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
        near = weight[row + 1u * ROW_QUADS];
        far = weight[row + 1u * ROW_QUADS + 8u];
        (*sums)[0] = fma(vec4<f32>(x0.y), near, (*sums)[0]);
        (*sums)[1] = fma(vec4<f32>(x0.y), far, (*sums)[1]);
        (*sums)[2] = fma(vec4<f32>(x1.y), near, (*sums)[2]);
        (*sums)[3] = fma(vec4<f32>(x1.y), far, (*sums)[3]);
        (*sums)[4] = fma(vec4<f32>(x2.y), near, (*sums)[4]);
        (*sums)[5] = fma(vec4<f32>(x2.y), far, (*sums)[5]);
        (*sums)[6] = fma(vec4<f32>(x3.y), near, (*sums)[6]);
        (*sums)[7] = fma(vec4<f32>(x3.y), far, (*sums)[7]);
        near = weight[row + 2u * ROW_QUADS];
        far = weight[row + 2u * ROW_QUADS + 8u];
        (*sums)[0] = fma(vec4<f32>(x0.z), near, (*sums)[0]);
        (*sums)[1] = fma(vec4<f32>(x0.z), far, (*sums)[1]);
        (*sums)[2] = fma(vec4<f32>(x1.z), near, (*sums)[2]);
        (*sums)[3] = fma(vec4<f32>(x1.z), far, (*sums)[3]);
        (*sums)[4] = fma(vec4<f32>(x2.z), near, (*sums)[4]);
        (*sums)[5] = fma(vec4<f32>(x2.z), far, (*sums)[5]);
        (*sums)[6] = fma(vec4<f32>(x3.z), near, (*sums)[6]);
        (*sums)[7] = fma(vec4<f32>(x3.z), far, (*sums)[7]);
        near = weight[row + 3u * ROW_QUADS];
        far = weight[row + 3u * ROW_QUADS + 8u];
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
fn store_units(z: u32, base: u32, lane: u32, sums: ptr<function, Share>) {
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
    for (var q = 0u; q < 8u; q++) {
        let place = at + q / 2u * 8u * ROW_QUADS + q % 2u * 8u;
        let v = acts[place];
        acts[place] = vec4<f32>(unit_of(z, v.x), unit_of(z, v.y), unit_of(z, v.z), unit_of(z, v.w));
    }
}

fn share_of(near: vec4<f32>, far: vec4<f32>) -> Share {
    return Share(near, far, near, far, near, far, near, far);
}

// Outputs of all rows: half of the lanes take even ones, the others odd ones.
fn head(params: u32, y: Layer, base: u32, lane: u32) {
    let row = lane % ROWS;
    for (var o = lane / ROWS; o < y.output; o += THREADS / ROWS) {
        var sum = get_f(params + y.bias + o);
        for (var q = 0u; q < (y.input + 3u) / 4u; q++) {
            let v = acts[base + row * ROW_QUADS + q];
            let w = quad_or_zero(params + y.weight + o * y.input, 4u * q, y.input);
            sum = fma(v.x, w.x, fma(v.y, w.y, fma(v.z, w.z, fma(v.w, w.w, sum))));
        }
        outputs[row * OUT_QUADS + o / 4u][o % 4u] = sum;
    }
}

// Losses of a lane's row, and the slopes at its outputs.
fn losses_of(s: u32, is_critic: bool, m: u32, row: u32, losses: ptr<function, LossSums>) {
    let source = row * OUT_QUADS;
    let n = numbers_of(s);
    if (is_critic) {
        slopes_out[source].x = value_row(s, m, n, outputs[source].x, losses);
        return;
    }
    var out: Outputs;
    var of_out: Outputs;
    for (var j = 0u; j < POLICY_OUTPUTS; j++) { out[j] = outputs[source + j / 4u][j % 4u]; }
    load_free(s, &out);
    actor_row(s, m, n, &out, &of_out, losses);
    for (var j = 0u; j < POLICY_WORDS; j++) { slopes_out[source + place(j) / 4u][place(j) % 4u] = of_out[j]; }
    if (SHARED_VALUE) {
        let value = outputs[source + POLICY_OUTPUTS / 4u][POLICY_OUTPUTS % 4u];
        slopes_out[source + POLICY_OUTPUTS / 4u][POLICY_OUTPUTS % 4u] = value_row(s, m, n, value, losses);
    }
}

// Products of a quad with four others, added to `sums`.
fn add_dots(v: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, sums: vec4<f32>) -> vec4<f32> {
    var next = fma(vec4<f32>(v.x), vec4<f32>(w0.x, w1.x, w2.x, w3.x), sums);
    next = fma(vec4<f32>(v.y), vec4<f32>(w0.y, w1.y, w2.y, w3.y), next);
    next = fma(vec4<f32>(v.z), vec4<f32>(w0.z, w1.z, w2.z, w3.z), next);
    return fma(vec4<f32>(v.w), vec4<f32>(w0.w, w1.w, w2.w, w3.w), next);
}

// Slopes below the weight that `weight` holds a part of: `units` numbers from column `first` on, in the place of their
// units, which lie at the start of `acts`; those above lie behind them.
fn multiply_back(z: u32, first: u32, depth: u32, lane: u32) {
    let r = lane / 8u;
    let c = lane % 8u;
    // four columns at a time, eight apart
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
        let to = first + j + c;
        scale(z, r + 0u, to, s0);
        scale(z, r + 8u, to, s1);
        scale(z, r + 16u, to, s2);
        scale(z, r + 24u, to, s3);
    }
}

// Replaces the units of row `row`, columns `to + 8 i`, by their slopes times those from above.
fn scale(z: u32, row: u32, to: u32, from_above: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        let col = to + 8u * i;
        let at = row * ROW_QUADS + col / 4u;
        acts[at][col % 4u] = unit_slope(z, acts[at][col % 4u]) * from_above[i];
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let z = block.z;
    let is_critic = SEPARATE && z == 1u;
    let net = parts_of(z);
    let offset = select(0u, ACTOR_PARAMS, is_critic);
    let params = a.params.at + s * a.params.stride + offset;
    let units = net.first.output;
    let top = net.last.input;
    // units below the outputs
    let base = select(0u, ROWS * ROW_QUADS, net.two);

    // gradients: of the weight between hidden layers a lane has 8 x 8, of the others a column
    var grad = TileSums();
    var grad_first: array<vec4<f32>, OBS_QUADS>;
    var grad_last: array<vec4<f32>, OUT_QUADS>;
    var bias_first = 0.0;
    var bias_top = 0.0;
    var bias_out = 0.0;
    var losses = LossSums();
    // what the lane's unit adds to outputs
    var to_out: array<vec4<f32>, OUT_QUADS>;
    for (var o = 0u; o < OUT_WORDS; o++) {
        if (o < net.outputs) { to_out[o / 4u][o % 4u] = word_or_zero(params + net.last.weight + o * top, lane, top); }
    }
    if (net.two && PARTS == 1u) { load_weight(params + net.middle.weight, net.middle, 0u, lane); }

    let begin = block.x * d.tile_rows;
    let end = min(begin + d.tile_rows, d.len);
    for (var at = begin; at < end; at += ROWS) {
        let count = min(end - at, ROWS);
        workgroupBarrier();
        gather(s, at, count, lane);
        workgroupBarrier();

        // forward
        let near = 4u * (lane % 8u);
        var sums = share_of(quad_or_zero(params + net.first.bias, near, units),
                            quad_or_zero(params + net.first.bias, near + 32u, units));
        multiply_first(params + net.first.weight, units, lane, &sums);
        store_units(z, 0u, lane, &sums);
        workgroupBarrier();
        if (net.two) {
            sums = share_of(quad_or_zero(params + net.middle.bias, near, top),
                            quad_or_zero(params + net.middle.bias, near + 32u, top));
            for (var part = 0u; part < PARTS; part++) {
                let first = part * d.weight_rows;
                if (PARTS > 1u) {
                    load_weight(params + net.middle.weight, net.middle, part, lane);
                    workgroupBarrier();
                }
                multiply_part(first, min(max(units, first) - first, d.weight_rows), lane, &sums);
                if (PARTS > 1u) { workgroupBarrier(); }
            }
            store_units(z, ROWS * ROW_QUADS, lane, &sums);
            workgroupBarrier();
        }
        head(params, net.last, base, lane);
        workgroupBarrier();

        // a lane per row; rows that are not there have no slopes
        if (lane < ROWS) {
            for (var q = 0u; q < OUT_QUADS; q++) { slopes_out[lane * OUT_QUADS + q] = vec4<f32>(); }
            if (lane < count) { losses_of(s, is_critic, row_of(s, at + lane), lane, &losses); }
        }
        workgroupBarrier();

        // a lane per unit below the outputs: what the outputs' slopes mean for its weights, and for itself
        if (lane < OUT_WORDS) {
            for (var row = 0u; row < ROWS; row++) { bias_out += slopes_out[row * OUT_QUADS + lane / 4u][lane % 4u]; }
        }
        for (var row = 0u; row < ROWS; row++) {
            let place = base + row * ROW_QUADS + lane / 4u;
            let unit = acts[place][lane % 4u];
            var above = 0.0;
            for (var q = 0u; q < OUT_QUADS; q++) {
                let of_out = slopes_out[row * OUT_QUADS + q];
                grad_last[q] = fma(vec4<f32>(unit), of_out, grad_last[q]);
                above = fma(of_out.x, to_out[q].x, fma(of_out.y, to_out[q].y, fma(of_out.z, to_out[q].z, fma(of_out.w, to_out[q].w, above))));
            }
            above *= unit_slope(z, unit);
            bias_top += above;
            acts[place][lane % 4u] = above;
        }
        if (net.two) {
            workgroupBarrier();
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
        // a lane per unit above the observations
        for (var row = 0u; row < ROWS; row++) {
            let of_unit = acts[row * ROW_QUADS + lane / 4u][lane % 4u];
            bias_first += of_unit;
            for (var q = 0u; q < OBS_QUADS; q++) {
                grad_first[q] = fma(vec4<f32>(of_unit), x[row * X_QUADS + q], grad_first[q]);
            }
        }
    }

    // the tile's gradient
    let to = a.partial.at + s * a.partial.stride + block.x * PARAMS + offset;
    if (lane < units) {
        for (var o = 0u; o < d.obs; o++) { put(to + net.first.weight + o * units + lane, grad_first[o / 4u][o % 4u]); }
        put(to + net.first.bias + lane, bias_first);
    }
    if (net.two) {
        put_tile(Target(to + net.middle.weight, top, units, top), lane, &grad);
        if (lane < top) { put(to + net.middle.bias + lane, bias_top); }
    }
    if (lane < top) {
        for (var o = 0u; o < OUT_WORDS; o++) {
            if (o < net.outputs) { put(to + net.last.weight + o * top + lane, grad_last[o / 4u][o % 4u]); }
        }
    }
    if (lane < net.outputs + net.free) { put(to + net.last.bias + lane, bias_out); }

    // its losses
    if (lane < ROWS) {
        for (var c = 0u; c < SUMS_LOSSES; c++) { row_losses[c * ROWS + lane] = losses[c]; }
    }
    workgroupBarrier();
    if (lane < SUMS_LOSSES && owns(is_critic, lane)) {
        var sum = 0.0;
        for (var row = 0u; row < ROWS; row++) { sum += row_losses[lane * ROWS + row]; }
        put(a.partial_loss.at + s * a.partial_loss.stride + block.x * SUMS_LOSSES + lane, sum);
    }
}
