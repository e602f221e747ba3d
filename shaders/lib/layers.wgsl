// One layer of a net on all rows of a batch, through the arena: forward, gradient of its weights, slopes at its inputs.
// A block of 64 lanes makes a tile of 64 x 64 numbers (lib/matrix.wgsl), sums over depth in order within a lane.
//
// The op has `unit_of(z, x)`, `unit_slope(z, y)` and `activation_of(z)`: what net `z` of the grid does with its units.

#import lib/activation
#import lib/core
#import lib/matrix

// A layer of one net, and the words of the arena where its matrices begin.
struct Side {
    // no outputs where the net has no such layer
    input: u32,
    output: u32,
    weight: u32,
    bias: u32,
    // inputs, rows of `input` words
    below: u32,
    // outputs or their slopes, rows of `out_row` words
    here: u32,
    // units before the activation, of outputs on the way forward and of inputs on the way back
    before: u32,
    // whether this is the net's output layer, whose weight is [output, input]; the others' are [input, output]
    last: bool,
    // outputs, and what lies behind them
    out_row: u32,
    // whether biases move nothing: they have no gradient
    centred: bool,
}

// A layer of `weight` [output, input] on rows of `below`, as the last of a net, with `out_row` words to a row of
// outputs.
fn last_side(input: u32, output: u32, weight: u32, below: u32, here: u32, out_row: u32) -> Side {
    var side: Side;
    side.input = input;
    side.output = output;
    side.weight = weight;
    side.bias = weight + input * output;
    side.below = below;
    side.here = here;
    side.last = true;
    side.out_row = out_row;
    return side;
}

// Units of a hidden layer: the tile from (row, col) on, of a batch of `rows`.
fn layer_forward(z: u32, side: Side, rows: u32, row: u32, col: u32, lane: u32) {
    if (col >= side.output) { return; }
    var sums = TileSums();
    let left = Matrix(side.below + row * side.input, side.input, 1u, rows - row, side.input);
    let right = Matrix(side.weight + col, 1u, side.output, side.output - col, side.input);
    multiply(left, right, lane, &sums);

    // a lane per column
    let unit = col + lane;
    for (var half = 0u; half < 2u; half++) {
        keep_half(half, lane, &sums);
        let first = row + half * HALF_SIDE;
        for (var i = 0u; i < min(max(rows, first) - first, HALF_SIDE); i++) {
            if (unit < side.output) {
                let x = kept(i, lane) + get_f(side.bias + unit);
                let word = (first + i) * side.output + unit;
                if (needs_input(activation_of(z))) { put(side.before + word, x); }
                put(side.here + word, unit_of(z, x));
            }
        }
    }
}

// Outputs without their bias: the tile from (row, col) on.
fn layer_tile(side: Side, rows: u32, row: u32, col: u32, lane: u32) {
    if (col >= side.output) { return; }
    var sums = TileSums();
    let left = Matrix(side.below + row * side.input, side.input, 1u, rows - row, side.input);
    let weight = side.weight + col * side.input;
    multiply(left, Matrix(weight, side.input, 1u, side.output - col, side.input), lane, &sums);
    for (var half = 0u; half < 2u; half++) {
        keep_half(half, lane, &sums);
        let first = row + half * HALF_SIDE;
        for (var i = 0u; i < min(max(rows, first) - first, HALF_SIDE); i++) {
            let word = side.here + (first + i) * side.out_row + col + lane;
            if (col + lane < side.output) { put(word, kept(i, lane)); }
        }
    }
}

// All outputs of the rows from `row` on, without their bias.
fn layer_outputs(side: Side, rows: u32, row: u32, lane: u32) {
    for (var col = 0u; col < side.output; col += SIDE) { layer_tile(side, rows, row, col, lane); }
}

// Gradient of the weights of a layer, of `count` rows from `begin` on: the tile `place`, from word `grad` on, where the
// layer's weight has its own.
fn layer_weights(side: Side, begin: u32, count: u32, place: u32, grad: u32, lane: u32) {
    // the weight as it is stored: rows are inputs, of the last layer outputs
    let out_row = side.out_row;
    let last = side.last;
    let cols = select(side.output, side.input, last);
    let across = (cols + SIDE - 1u) / SIDE;
    let row = place / across * SIDE;
    let col = place % across * SIDE;
    if (row >= select(side.input, out_row, last)) { return; }
    let below = side.below + begin * side.input;
    let slopes = side.here + begin * out_row;

    // what lies behind the outputs has rows of slopes, but no weights
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
            if (col + lane < cols) { put(grad + (row + first + i) * cols + col + lane, kept(i, lane)); }
        }
    }

    // a lane per slope's column: the gradient of the bias, and of parameters behind it
    let first = select(col, row, last) + lane;
    if (select(row, col, last) == 0u && first < out_row) {
        var sum = 0.0;
        if (!side.centred) {
            for (var i = 0u; i < count; i++) { sum += get_f(slopes + i * out_row + first); }
        }
        put(grad + side.bias - side.weight + first, sum);
    }
}

// Slopes at the units below a layer, in their place: the tile from (row, col) on.
fn layer_backward(z: u32, side: Side, rows: u32, row: u32, col: u32, lane: u32) {
    if (side.output == 0u || col >= side.input) { return; }
    let out_row = side.out_row;
    let left = Matrix(side.here + row * out_row, out_row, 1u, rows - row, side.output);
    var right = Matrix(side.weight + col * side.output, side.output, 1u, side.input - col, side.output);
    if (side.last) { right = Matrix(side.weight + col, 1u, side.input, side.input - col, side.output); }
    var sums = TileSums();
    multiply(left, right, lane, &sums);

    // slopes of the activation function times those from above, a lane per column
    let known = select(side.below, side.before, needs_input(activation_of(z)));
    for (var half = 0u; half < 2u; half++) {
        keep_half(half, lane, &sums);
        let first = row + half * HALF_SIDE;
        for (var i = 0u; i < min(max(rows, first) - first, HALF_SIDE); i++) {
            if (col + lane < side.input) {
                let word = (first + i) * side.input + col + lane;
                put(side.below + word, unit_slope(z, get_f(known + word)) * kept(i, lane));
            }
        }
    }
}

var<workgroup> lane_sums: array<f32, MATRIX_LANES>;

// Sum of the words from `begin` to `end`, by one block; lane 0 has it.
fn sum_of_words(begin: u32, end: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = begin + lane; i < end; i += MATRIX_LANES) { sum += get_f(i); }
    lane_sums[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
        for (var i = 1u; i < MATRIX_LANES; i++) { sum += lane_sums[i]; }
    }
    workgroupBarrier();
    return sum;
}

// Adds up the losses of `count` rows from word `losses` on, by one block: the row of `partial_loss` at word `to`, whose
// other columns are 0.
fn add_value_losses(to: u32, losses: u32, count: u32, lane: u32) {
    let sum = sum_of_words(losses, losses + count, lane);
    // lane 0 has the sum
    if (lane < SUMS_LOSSES) { put(to + (lane + SUMS_VALUE) % SUMS_LOSSES, select(0.0, sum, lane == 0u)); }
}
