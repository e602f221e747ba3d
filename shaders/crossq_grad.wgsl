// Gradient of CrossQ's two critics on a batch, layer by layer through the arena. Twin of src/op/crossq_grad.rs.
//
// Kernels in order: gather; the actor ahead at the next observations (lib/soft.wgsl); its actions; then both critics
// side by side (z of the grid) on the joint batch, rows and behind them their successors: per hidden layer the sums, and
// moments with normalization and activation; outputs; targets and losses; then for every layer from the last, gradient
// of its weights, slopes at the units below it, and the way of those back through the moments, which gives the gradients
// of scale and shift.
//
// Blocks of 64 lanes make tiles of 64 x 64 numbers (lib/layers.wgsl), blocks of 256 the moments of 16 columns, which
// they read three times, from the cache (lib/renorm.wgsl). Some 15 short launches one behind the other are bound by
// their latency, which sessions in the grid share. Orders depend on shapes alone.

#import lib/activation
#import lib/core
#import lib/distance
#import lib/layers
#import lib/renorm
#import lib/soft
#import lib/trig

struct Shape {
    actor: Net,
    // with the offsets of a normalized net
    critic: Net,
    policy: Policy,
    batch: u32,
    joint: bool,
    tile_rows: u32,
    actor_words: u32,
    critic_words: u32,
    actor_at: u32,
    critics_at: u32,
    actor_before: u32,
    critics_before: u32,
    // words per row of scratch before the numbers that rows have beside their layers
    rest: u32,
    // of both critics: before the normalized sums, and before `r`, `d` and `scale r / std` of every unit
    sums_at: u32,
    stats_at: u32,
    // hidden units of a critic
    units: u32,
    learned: bool,
    normalize_obs: bool,
    distance: u32,
    beta: f32,
    symlog: bool,
    momentum: f32,
    eps: f32,
    warmup: u32,
    r_max: f32,
    d_max: f32,
}

struct Args {
    index: ReadU,         // [samples]
    last: ReadU,          // [samples]
    returns: ReadF,       // [samples]
    discount: ReadF,      // [samples]
    weight: ReadF,        // [samples]
    obs: ReadF,           // [R, O]
    next_obs: ReadF,      // [R, O]
    action: ReadF,        // [R, A]
    normalizer: ReadF,    // [2, O]
    hyper: ReadF,         // [LEN + groups * GROUP_LEN]
    schedule: ReadF,      // [LEN + groups]
    seed: ReadU,          // [2]
    clock: ReadU,         // [4]
    params: ReadF,        // [P]
    partial: WriteF,      // [1, 2 critics]
    partial_loss: WriteF, // [1, LOSSES]
    error: WriteF,        // [B]
    norm: UpdateF,        // [2, norms]
    batches: UpdateU,     // [1]
    scratch: UpdateF,
}

// Numbers of a row in scratch behind `d.rest`: the log-probability of its next action, its loss.
const LOG_PROB = 0u;
const LOSS = 1u;

// Rows of the joint batch.
const ROWS = 2u * d.batch;

fn critic_params(s: u32, z: u32) -> u32 {
    return params_of(s) + d.actor.params + 1u + z * d.critic.params;
}

// The row of the ring that is row `i` of the batch.
fn row_of(s: u32, i: u32) -> u32 {
    return get_u(a.index.at + s * a.index.stride + launch.start + i);
}

// Units of the layers before this launch's, which are critics'.
fn units_before() -> u32 {
    return launch.here / 2u;
}

// Normalized sums of the layer, of critic `z`: rows of its units.
fn sums_of(s: u32, z: u32) -> u32 {
    return scratch_of(s, d.sums_at + 2u * z * d.units + launch.here);
}

// Corrections of unit `o` of the layer.
fn stats_of(s: u32, z: u32, o: u32) -> u32 {
    return scratch_of(s, d.stats_at) + 3u * (z * d.units + units_before() + o);
}

// Words that a lane gathers.
const GATHERED = 16u;

// Rows with what was done (z = 0); their successors, as the actor sees them too (z = 1), whose action comes later.
@compute @workgroup_size(THREADS)
fn crossq_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let after = block.z == 1u;
    let obs = select(a.obs.at + s * a.obs.stride, a.next_obs.at + s * a.next_obs.stride, after);
    let to = critic_input(s, 0u) + select(0u, d.batch * WIDTH, after);
    for (var i = 0u; i < GATHERED; i++) {
        let word = (block.x * GATHERED + i) * THREADS + lane;
        if (word < d.batch * WIDTH) {
            let row = word / WIDTH;
            let o = word % WIDTH;
            if (o < OBS) {
                var m = row_of(s, row);
                if (after) { m = get_u(a.last.at + s * a.last.stride + launch.start + row); }
                let x = seen_word(s, obs, m, o);
                put(to + word, x);
                if (after) { put(scratch_of(s, 0u) + row * OBS + o, x); }
            } else if (!after) {
                let action = a.action.at + s * a.action.stride + row_of(s, row) * POLICY_ACTION;
                put(to + word, get_f(action + o - OBS));
            }
        }
    }
}

// What the actor does at the successors, a lane per row: actions behind them, or log-probabilities of all actions in the
// place of its outputs.
@compute @workgroup_size(THREADS)
fn crossq_grad_act(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    var out: Outputs;
    load_actor(s, row, &out);
    if (DISCRETE) {
        let sums = log_sum_exp(&out);
        for (var j = 0u; j < POLICY_WORDS; j++) { put(actor_outputs(s, row) + j, out[j] - sums.x - sums.y); }
    } else {
        var action: Action;
        var offset: Action;
        let log_prob = sample_squashed(s, PURPOSE_NEXT_ACTION, row, &out, &action, &offset);
        let to = critic_input(s, 0u) + (d.batch + row) * WIDTH + OBS;
        for (var j = 0u; j < POLICY_ACTION; j++) { put(to + j, action[j]); }
        put(scratch_of(s, d.rest + LOG_PROB) + row, log_prob);
    }
}

// Of every column of the block: gain and base, with which normalized sums become values before the activation.
var<workgroup> gains: array<f32, COLUMNS>;
var<workgroup> bases: array<f32, COLUMNS>;
var<workgroup> inv_stds: array<f32, COLUMNS>;

// Corrections of unit `o` with these moments in the batch; moves its running moments.
fn correct(s: u32, z: u32, o: u32, column: u32, mean: f32, variance: f32) {
    let batches = get_u(a.batches.at + s * a.batches.stride);
    let done = select(f32(batches) / f32(max(d.warmup, 1u)), 1.0, batches >= d.warmup);
    let r_max = 1.0 + done * (d.r_max - 1.0);
    let d_max = done * d.d_max;
    let norm = a.norm.at + s * a.norm.stride + 2u * z * d.units + units_before() + o;
    let old_mean = get_f(norm);
    let old_variance = get_f(norm + d.units);
    let deviation = sqrt(variance + d.eps);
    let running = sqrt(old_variance + d.eps);
    let r = hold(deviation / running, 1.0 / r_max, r_max);
    let off = hold((mean - old_mean) / running, -d_max, d_max);
    let bias = critic_params(s, z) + launch.weight + launch.input * launch.output;
    let scale = get_f(scale_of(bias, launch.output) + o);
    inv_stds[column] = 1.0 / deviation;
    gains[column] = scale * r;
    bases[column] = scale * off + get_f(shift_of(bias, launch.output) + o);
    let stats = stats_of(s, z, o);
    put(stats, r);
    put(stats + 1u, off);
    put(stats + 2u, scale * r / deviation);
    put(norm, old_mean + d.momentum * (mean - old_mean));
    put(norm + d.units, old_variance + d.momentum * (variance - old_variance));
}

// Moments of 16 units of a hidden layer over the joint batch, corrections, running moments, activations.
@compute @workgroup_size(THREADS)
fn crossq_grad_normalize(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(s, block.z);
    let column = lane % COLUMNS;
    let part = lane / COLUMNS;
    let o = block.x * COLUMNS + column;
    let inside = o < side.output;
    let rows = select(0u, ROWS, inside);

    var sum = 0.0;
    for (var row = part; row < rows; row += PARTS) { sum += get_f(side.here + row * side.output + o); }
    let mean = column_sum(sum, lane) * (1.0 / f32(ROWS));
    sum = 0.0;
    for (var row = part; row < rows; row += PARTS) {
        let off = get_f(side.here + row * side.output + o) - mean;
        sum += off * off;
    }
    let variance = column_sum(sum, lane) * (1.0 / f32(ROWS));

    if (inside && part == 0u) { correct(s, block.z, o, column, mean, variance); }
    workgroupBarrier();
    let inv_std = inv_stds[column];
    let gain = gains[column];
    let base = bases[column];
    let sums = sums_of(s, block.z);
    for (var row = part; row < rows; row += PARTS) {
        let word = row * side.output + o;
        let x = (get_f(side.here + word) - mean) * inv_std;
        let value = gain * x + base;
        put(sums + word, x);
        if (needs_input(d.critic.activation)) { put(side.before + word, value); }
        put(side.here + word, activate(d.critic.activation, value));
    }
}

// What both critics say to what the actor would do next, and what its entropy costs.
fn next_value(s: u32, row: u32) -> f32 {
    let after = d.batch + row;
    let alpha = alpha_of(s);
    if (!DISCRETE) {
        let least = min(value_of(s, 0u, after, 0u), value_of(s, 1u, after, 0u));
        return least - alpha * get_f(scratch_of(s, d.rest + LOG_PROB) + row);
    }
    let log_probs = actor_outputs(s, row);
    var sum = 0.0;
    for (var j = 0u; j < POLICY_WORDS; j++) {
        let log_p = get_f(log_probs + j);
        sum += exp_of(log_p) * (0.5 * (value_of(s, 0u, after, j) + value_of(s, 1u, after, j)) - alpha * log_p);
    }
    return sum;
}

// Loss of a value, and its slope.
fn value_loss(q: f32, goal: f32) -> vec2<f32> {
    if (d.symlog) { return symlog_distance(q, goal); }
    return distance_of(q - goal);
}

// A lane per row: its target, the losses of both critics, and their slopes in the place of their values; the values of
// its successor have none.
@compute @workgroup_size(THREADS)
fn crossq_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    let i = launch.start + row;
    let discount = get_f(a.discount.at + s * a.discount.stride + i);
    let goal = get_f(a.returns.at + s * a.returns.stride + i) + discount * next_value(s, row);
    let weight = get_f(a.weight.at + s * a.weight.stride + i);
    var done = 0u;
    if (DISCRETE) { done = u32(get_f(a.action.at + s * a.action.stride + row_of(s, row))); }
    let first = value_of(s, 0u, row, done);
    let second = value_of(s, 1u, row, done);
    put(a.error.at + s * a.error.stride + row, abs(min(first, second) - goal));
    let one = value_loss(first, goal);
    let two = value_loss(second, goal);
    put(scratch_of(s, d.rest + LOSS) + row, weight * one.x + weight * two.x);
    let share = weight * (1.0 / f32(d.batch));
    for (var j = 0u; j < CRITIC_OUTPUT.output; j++) {
        put(critic_outputs(s, 0u, row) + j, select(0.0, one.y * share, j == done));
        put(critic_outputs(s, 1u, row) + j, select(0.0, two.y * share, j == done));
        put(critic_outputs(s, 0u, d.batch + row) + j, 0.0);
        put(critic_outputs(s, 1u, d.batch + row) + j, 0.0);
    }
}

@compute @workgroup_size(THREADS)
fn crossq_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    // losses in the first of these launches, when no moments are left to correct
    if ((launch.flags & 2u) != 0u && block.z == 0u && block.x == 0u) {
        let losses = scratch_of(s, d.rest + LOSS);
        let sum = sum_of_words(losses, losses + d.batch, lane);
        if (lane < SUMS_LOSSES) {
            // lane 0 has the sum
            let to = a.partial_loss.at + s * a.partial_loss.stride;
            put(to + (lane + SUMS_VALUE) % SUMS_LOSSES, select(0.0, sum, lane == 0u));
        }
        let batches = a.batches.at + s * a.batches.stride;
        if (lane == 0u) { put_u(batches, get_u(batches) + 1u); }
    }
    let grad = a.partial.at + s * a.partial.stride + block.z * d.critic.params + launch.weight;
    let side = side_of(s, block.z);
    // successors have no slopes at the outputs
    layer_weights(side, 0u, select(ROWS, d.batch, side.last), block.x, grad, lane);
}

// Slopes of 16 units of a hidden layer, back through the moments that every row moves.
@compute @workgroup_size(THREADS)
fn crossq_grad_centre(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(s, block.z);
    let sums = sums_of(s, block.z);
    let part = lane / COLUMNS;
    let o = block.x * COLUMNS + lane % COLUMNS;
    let inside = o < side.output;
    let rows = select(0u, ROWS, inside);

    var sum = 0.0;
    var along = 0.0;
    for (var row = part; row < rows; row += PARTS) {
        let slope = get_f(side.here + row * side.output + o);
        sum += slope;
        along += slope * get_f(sums + row * side.output + o);
    }
    sum = column_sum(sum, lane);
    along = column_sum(along, lane);
    if (!inside) { return; }
    let stats = stats_of(s, block.z, o);
    if (part == 0u) {
        let layer = a.partial.at + s * a.partial.stride + block.z * d.critic.params + launch.weight;
        let bias = layer + launch.input * launch.output;
        put(shift_of(bias, launch.output) + o, sum);
        put(scale_of(bias, launch.output) + o, get_f(stats) * along + get_f(stats + 1u) * sum);
    }
    let factor = get_f(stats + 2u);
    sum *= 1.0 / f32(ROWS);
    along *= 1.0 / f32(ROWS);
    for (var row = part; row < rows; row += PARTS) {
        let word = row * side.output + o;
        put(side.here + word, factor * (get_f(side.here + word) - sum - get_f(sums + word) * along));
    }
}
