// The orders of rows in all epochs and the normalisation of each minibatch. Twin of src/op/shuffle.rs.
//
// `shuffle_index` has a lane for every four places of a minibatch: each place goes alone through a Feistel network (12
// rounds of some 8 integer operations; on average less than two walks until it lands inside), writes its row and
// gathers that row's advantage: 4 bytes written and 4 gathered per row, bound by integer arithmetic. The moments of the
// gathered numbers come from registers in two passes, as pairs of floats, in a tree of lanes.
//
// A minibatch of up to 1,024 rows is one block, which writes its normalisation too. A larger one is cut into chunks of
// 1,024 rows, a block of 256 lanes each, and where there are moments `shuffle_moments` joins them, a block per
// minibatch, in a tree over chunks. Epochs are the parts of the grid. Blocks and order are functions of the minibatch's
// size.

#import lib/core
#import lib/order
#import lib/sums

struct Shape {
    m: u32,
    minibatch: u32,
    normalize: u32,
    ordered: bool,
    // bits of a place
    bits: u32,
    // rows of a block, and blocks of a minibatch
    chunk: u32,
    chunks: u32,
    // of an epoch
    minibatches: u32,
}

struct Args {
    seed: ReadU,         // [2]
    clock: ReadU,        // [4]
    advantage: ReadF,    // [m]
    percentiles: ReadF,  // [4]
    index: WriteU,       // [epochs, m]
    moments: WriteF,     // [epochs, minibatches, 2]
    scratch: UpdateF,
}

// Places of a lane.
const EACH = 4u;

// Rows of a minibatch; the last one may be smaller.
fn rows_of(minibatch: u32) -> u32 {
    return min(d.m - minibatch * d.minibatch, d.minibatch);
}

@compute @workgroup_size(THREADS)
fn shuffle_index(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let advantage = a.advantage.at + s * a.advantage.stride;
    let epoch = block.z;
    let minibatch = block.x / d.chunks;
    let chunk = block.x % d.chunks;
    let rows = rows_of(minibatch);
    // the last minibatch may have fewer chunks
    let here = select(0u, min(rows - chunk * d.chunk, d.chunk), chunk * d.chunk < rows);
    let first = minibatch * d.minibatch + chunk * d.chunk;
    let index = a.index.at + s * a.index.stride + epoch * d.m;
    let keys = keys_of(s, epoch);

    // every place alone
    var x: array<f32, EACH>;
    var sum = wide(0.0);
    for (var j = 0u; j < EACH; j++) {
        let at = j * THREADS + lane;
        if (at < here) {
            var row = first + at;
            if (!d.ordered) { row = row_at(row, d.m, keys); }
            put_u(index + first + at, row);
            if (STANDARDIZED) {
                x[j] = get_f(advantage + row);
                sum = wide_add_f32(sum, x[j]);
            }
        }
    }

    // the moments of what was gathered
    var mean = wide(0.0);
    var squares = wide(0.0);
    if (STANDARDIZED) {
        if (here > 0u) {
            mean = wide_div(block_sums(vec4<f32>(sum, 0.0, 0.0), lane).xy, wide_of_u32(here));
        }
        for (var j = 0u; j < EACH; j++) {
            if (j * THREADS + lane < here) {
                squares = wide_add(squares, wide_square(wide_add_f32(-mean, x[j])));
            }
        }
        squares = block_sums(vec4<f32>(squares, 0.0, 0.0), lane).xy;
    }
    if (lane == 0u) { leave_moments(s, epoch, minibatch, chunk, rows, mean, squares); }
}

@compute @workgroup_size(THREADS)
fn shuffle_moments(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    join_chunks(sessions[1u + block.y], block.z, block.x, rows_of(block.x), d.chunk, lane);
}
