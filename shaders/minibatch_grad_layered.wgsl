// Gradient of one minibatch for any nets, layer by layer through scratch. Twin of src/op/minibatch_grad.rs.
//
// Kernels in order: gather; forward, once per hidden layer; outputs and losses; then for every layer from the last:
// gradient of its weights, and slopes at the units below it, in the place of their activations. Actor and critic are
// separate nets and run side by side (z of the grid). Blocks of 64 lanes make tiles of 64 x 64 numbers, sums over depth
// in order within a lane; the gradient's rows are cut into the tiles of `partial`, which is all that is summed later.
//
// Per row and weight 3 fused multiply-adds, read from workgroup memory at 16 words per 64 of them; activations pass
// through caches or device memory once per kernel. Bound by the f32 units and workgroup memory. Orders depend on shapes
// alone.

#import lib/activation
#import lib/core
#import lib/matrix
#import lib/minibatch

struct Launch {
    start: u32,
    minibatch: u32,
    // tiles side by side; of a gradient, tiles of all of it
    across: u32,
    // bit 0, 1: this layer of the actor, of the critic, is its last; bit 2: this launch adds up the losses of tiles
    flags: u32,
    // of a layer of the actor, then of the critic: see `Side`
    actor_input: u32,
    actor_output: u32,
    actor_weight: u32,
    actor_below: u32,
    actor_here: u32,
    actor_before: u32,
    critic_input: u32,
    critic_output: u32,
    critic_weight: u32,
    critic_below: u32,
    critic_here: u32,
    critic_before: u32,
}

// A layer of one net, and where its matrices lie in a session's scratch: words per row of the minibatch before them.
struct Side {
    // no outputs where the net has no such layer
    input: u32,
    output: u32,
    // from the first of all parameters
    weight: u32,
    // inputs, rows of `input` words
    below: u32,
    // outputs or their slopes, rows of `out_row` words
    here: u32,
    // units before the activation, of outputs on the way forward and of inputs on the way back
    before: u32,
    // whether this is the net's output layer, whose weight is [output, input]; the others' are [input, output]
    last: bool,
    // outputs, and parameters of the policy behind them
    out_row: u32,
    bias: u32,
}

fn side_of(z: u32) -> Side {
    let critic = z == 1u;
    var side: Side;
    side.input = select(launch.actor_input, launch.critic_input, critic);
    side.output = select(launch.actor_output, launch.critic_output, critic);
    side.weight = select(launch.actor_weight, launch.critic_weight, critic);
    side.below = select(launch.actor_below, launch.critic_below, critic);
    side.here = select(launch.actor_here, launch.critic_here, critic);
    side.before = select(launch.actor_before, launch.critic_before, critic);
    side.last = (launch.flags >> z & 1u) == 1u;
    side.out_row = side.output + select(0u, FREE, side.last && !critic);
    side.bias = side.weight + side.input * side.output;
    return side;
}

var<workgroup> lane_sums: array<f32, MATRIX_LANES>;

// First word of what lies in scratch behind `skipped` words per row.
fn scratch_of(s: u32, skipped: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + d.len * skipped;
}

fn params_of(s: u32) -> u32 {
    return a.params.at + s * a.params.stride;
}

// Words that a lane gathers.
const GATHERED = 16u;

@compute @workgroup_size(THREADS)
fn minibatch_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let to = scratch_of(s, 0u);
    for (var i = 0u; i < GATHERED; i++) {
        let word = (block.x * GATHERED + i) * THREADS + lane;
        if (word < d.len * d.obs) { put(to + word, observation(s, row_of(s, word / d.obs), word % d.obs)); }
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_forward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(block.z);
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    if (col >= side.output) { return; }
    var sums = TileSums();
    let left = Matrix(scratch_of(s, side.below) + row * side.input, side.input, 1u, d.len - row, side.input);
    let right = Matrix(params_of(s) + side.weight + col, 1u, side.output, side.output - col, side.input);
    multiply(left, right, lane, &sums);

    // a lane per column
    let unit = col + lane;
    for (var half = 0u; half < 2u; half++) {
        keep_half(half, lane, &sums);
        let first = row + half * HALF_SIDE;
        for (var i = 0u; i < min(max(d.len, first) - first, HALF_SIDE); i++) {
            if (unit < side.output) {
                let x = kept(i, lane) + get_f(params_of(s) + side.bias + unit);
                let word = (first + i) * side.output + unit;
                if (needs_input(activation_of(block.z))) { put(scratch_of(s, side.before) + word, x); }
                put(scratch_of(s, side.here) + word, unit_of(block.z, x));
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(block.z);
    let is_critic = block.z == 1u;
    let row = block.x * SIDE;
    let out_row = side.out_row;
    let here = scratch_of(s, side.here) + row * out_row;
    for (var col = 0u; col < side.output; col += SIDE) {
        var sums = TileSums();
        let left = Matrix(scratch_of(s, side.below) + row * side.input, side.input, 1u, d.len - row, side.input);
        let weight = params_of(s) + side.weight + col * side.input;
        multiply(left, Matrix(weight, side.input, 1u, side.output - col, side.input), lane, &sums);
        for (var half = 0u; half < 2u; half++) {
            keep_half(half, lane, &sums);
            let first = row + half * HALF_SIDE;
            for (var i = 0u; i < min(max(d.len, first) - first, HALF_SIDE); i++) {
                let word = (half * HALF_SIDE + i) * out_row + col + lane;
                if (col + lane < side.output) { put(here + word, kept(i, lane)); }
            }
        }
    }
    storageBarrier();

    // a lane per row
    if (row + lane >= d.len) { return; }
    let mine = here + lane * out_row;
    let bias = params_of(s) + side.bias;
    let m = row_of(s, row + lane);
    let n = numbers_of(s);
    var losses = LossSums();
    if (is_critic) {
        put(mine, value_row(s, m, n, get_f(mine) + get_f(bias), &losses));
    } else {
        var out: Outputs;
        var slopes: Outputs;
        for (var j = 0u; j < POLICY_OUTPUTS; j++) { out[j] = get_f(mine + j) + get_f(bias + j); }
        load_free(s, &out);
        actor_row(s, m, n, &out, &slopes, &losses);
        if (SHARED_VALUE) {
            let value = get_f(mine + POLICY_OUTPUTS) + get_f(bias + POLICY_OUTPUTS);
            put(mine + POLICY_OUTPUTS, value_row(s, m, n, value, &losses));
        }
        for (var j = 0u; j < POLICY_WORDS; j++) { put(mine + place(j), slopes[j]); }
    }
    for (var c = 0u; c < SUMS_LOSSES; c++) {
        if (owns(is_critic, c)) { put(scratch_of(s, d.losses) + c * d.len + row + lane, losses[c]); }
    }
}

// Losses of a tile of rows, by one block.
fn add_losses(s: u32, tile: u32, lane: u32) {
    let row = tile * d.tile_rows;
    let end = min(row + d.tile_rows, d.len);
    for (var c = 0u; c < SUMS_LOSSES; c++) {
        let source = scratch_of(s, d.losses) + c * d.len;
        var sum = 0.0;
        for (var i = row + lane; i < end; i += MATRIX_LANES) { sum += get_f(source + i); }
        lane_sums[lane] = sum;
        workgroupBarrier();
        if (lane == 0u) {
            for (var i = 1u; i < MATRIX_LANES; i++) { sum += lane_sums[i]; }
            put(a.partial_loss.at + s * a.partial_loss.stride + tile * SUMS_LOSSES + c, sum);
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(block.z);
    let tile = block.x / launch.across;
    let place = block.x % launch.across;
    if ((launch.flags & 4u) != 0u && block.z == 0u && place == 0u) { add_losses(s, tile, lane); }
    if (side.output == 0u) { return; }

    // the weight as it is stored: rows are inputs, of the last layer outputs
    let out_row = side.out_row;
    let last = side.last;
    let cols = select(side.output, side.input, last);
    let across = (cols + SIDE - 1u) / SIDE;
    let row = place / across * SIDE;
    let col = place % across * SIDE;
    if (row >= select(side.input, out_row, last)) { return; }
    let begin = tile * d.tile_rows;
    let count = min(d.tile_rows, d.len - begin);
    let below = scratch_of(s, side.below) + begin * side.input;
    let slopes = scratch_of(s, side.here) + begin * out_row;
    let grad = a.partial.at + s * a.partial.stride + tile * PARAMS;

    // free parameters have rows of slopes, but no weights
    let rows = max(select(side.input, side.output, last), row) - row;
    var left = Matrix(below + row, 1u, side.input, rows, count);
    var right = Matrix(slopes + col, 1u, out_row, cols - col, count);
    if (last) {
        left = Matrix(slopes + row, 1u, out_row, rows, count);
        right = Matrix(below + col, 1u, side.input, cols - col, count);
    }
    var sums = TileSums();
    multiply(left, right, lane, &sums);
    for (var half = 0u; half < 2u; half++) {
        keep_half(half, lane, &sums);
        let first = half * HALF_SIDE;
        for (var i = 0u; i < min(max(rows, first) - first, HALF_SIDE); i++) {
            if (col + lane < cols) { put(grad + side.weight + (row + first + i) * cols + col + lane, kept(i, lane)); }
        }
    }

    // a lane per slope's column: the gradient of the bias, and of free parameters behind it
    let first = select(col, row, last) + lane;
    if (select(row, col, last) == 0u && first < out_row) {
        var sum = 0.0;
        for (var i = 0u; i < count; i++) { sum += get_f(slopes + i * out_row + first); }
        put(grad + side.bias + first, sum);
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_backward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(block.z);
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    if (side.output == 0u || col >= side.input) { return; }
    let out_row = side.out_row;
    let weight = params_of(s) + side.weight;
    let left = Matrix(scratch_of(s, side.here) + row * out_row, out_row, 1u, d.len - row, side.output);
    var right = Matrix(weight + col * side.output, side.output, 1u, side.input - col, side.output);
    if (side.last) { right = Matrix(weight + col, 1u, side.input, side.input - col, side.output); }
    var sums = TileSums();
    multiply(left, right, lane, &sums);

    // slopes of the activation function times those from above, a lane per column
    let known = scratch_of(s, select(side.below, side.before, needs_input(activation_of(block.z))));
    for (var half = 0u; half < 2u; half++) {
        keep_half(half, lane, &sums);
        let first = row + half * HALF_SIDE;
        for (var i = 0u; i < min(max(d.len, first) - first, HALF_SIDE); i++) {
            if (col + lane < side.input) {
                let word = (first + i) * side.input + col + lane;
                put(scratch_of(s, side.below) + word, unit_slope(block.z, get_f(known + word)) * kept(i, lane));
            }
        }
    }
}
