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
#import lib/rng
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
// Bits of the lower half of a place, and masks of both.
const LOW_BITS = d.bits / 2u;
const LOW_MASK = (1u << LOW_BITS) - 1u;
const HIGH_MASK = (1u << (d.bits - LOW_BITS)) - 1u;

const DEVIATION_ROOM = Wide(STANDARDIZE_EPSILON, STANDARDIZE_EPSILON_LOW);

fn hash(x: u32, key: u32) -> u32 {
    let first = (x ^ key) * FEISTEL_FIRST_FACTOR;
    let second = ((first ^ (first >> 13u)) + key) * FEISTEL_SECOND_FACTOR;
    return second ^ (second >> 16u);
}

// A keyed bijection of 0..2^bits; four rounds at a time, for there are four keys.
fn feistel(x: u32, keys: vec4<u32>) -> u32 {
    var low = x & LOW_MASK;
    var high = x >> LOW_BITS;
    for (var round = 0u; round < FEISTEL_ROUNDS; round += 4u) {
        let own = keys + (vec4<u32>(round) + vec4<u32>(0u, 1u, 2u, 3u)) * FEISTEL_KEY_STEP;
        high ^= hash(low, own.x) & HIGH_MASK;
        low ^= hash(high, own.y) & LOW_MASK;
        high ^= hash(low, own.z) & HIGH_MASK;
        low ^= hash(high, own.w) & LOW_MASK;
    }
    return (high << LOW_BITS) | low;
}

// Rows of a minibatch; the last one may be smaller.
fn rows_of(minibatch: u32) -> u32 {
    return min(d.m - minibatch * d.minibatch, d.minibatch);
}

// Writes shift and factor of a minibatch. One lane.
fn write_moments(s: u32, epoch: u32, minibatch: u32, mean: Wide, m2: Wide) {
    let moments = a.moments.at + s * a.moments.stride + 2u * (epoch * d.minibatches + minibatch);
    let rows = rows_of(minibatch);
    if (d.normalize == NORMALIZES_STANDARDIZE && rows > 1u) {
        let deviation = wide_sqrt(wide_div(m2, wide_of_u32(rows - 1u)));
        put(moments, narrow(mean));
        put(moments + 1u, narrow(wide_div(wide(1.0), wide_add(deviation, DEVIATION_ROOM))));
        return;
    }
    put(moments, 0.0);
    if (d.normalize == NORMALIZES_PERCENTILE) {
        let percentiles = a.percentiles.at + s * a.percentiles.stride;
        let range = get_f(percentiles + MOMENTS_HIGH) - get_f(percentiles + MOMENTS_LOW);
        put(moments + 1u, 1.0 / max(range, 1.0));
    } else {
        put(moments + 1u, 1.0);
    }
}

@compute @workgroup_size(THREADS)
fn shuffle_index(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let seed = a.seed.at + s * a.seed.stride;
    let iteration = get_u(a.clock.at + s * a.clock.stride + CLOCK_ITER);
    let advantage = a.advantage.at + s * a.advantage.stride;
    let epoch = block.z;
    let minibatch = block.x / d.chunks;
    let chunk = block.x % d.chunks;
    let rows = rows_of(minibatch);
    // the last minibatch may have fewer chunks
    let here = select(0u, min(rows - chunk * d.chunk, d.chunk), chunk * d.chunk < rows);
    let first = minibatch * d.minibatch + chunk * d.chunk;
    let index = a.index.at + s * a.index.stride + epoch * d.m;
    let keys = philox(vec4<u32>(epoch, iteration, PURPOSE_SHUFFLE, 0u), vec2<u32>(get_u(seed), get_u(seed + 1u)));

    // every place alone
    var x: array<f32, EACH>;
    var sum = wide(0.0);
    for (var j = 0u; j < EACH; j++) {
        let at = j * THREADS + lane;
        if (at < here) {
            var row = first + at;
            if (!d.ordered) {
                row = feistel(row, keys);
                while (row >= d.m) {
                    row = feistel(row, keys);
                }
            }
            put_u(index + first + at, row);
            if (d.normalize == NORMALIZES_STANDARDIZE) {
                x[j] = get_f(advantage + row);
                sum = wide_add_f32(sum, x[j]);
            }
        }
    }

    // the moments of what was gathered
    var mean = wide(0.0);
    var squares = wide(0.0);
    if (d.normalize == NORMALIZES_STANDARDIZE) {
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
    if (lane == 0u) {
        if (d.chunks == 1u || d.normalize != NORMALIZES_STANDARDIZE) {
            if (chunk == 0u) {
                write_moments(s, epoch, minibatch, mean, squares);
            }
        } else {
            let scratch = a.scratch.at + s * a.scratch.stride;
            put4(scratch + 4u * ((epoch * d.minibatches + minibatch) * d.chunks + chunk), vec4<f32>(mean, squares));
        }
    }
}

@compute @workgroup_size(THREADS)
fn shuffle_moments(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let chunks = a.scratch.at + s * a.scratch.stride + 4u * (block.z * d.minibatches + block.x) * d.chunks;
    let rows = rows_of(block.x);
    var all = no_moments();
    for (var chunk = lane; chunk < d.chunks && chunk * d.chunk < rows; chunk += THREADS) {
        let found = get4(chunks + 4u * chunk);
        all = merge(all, Moments(wide_of_u32(min(rows - chunk * d.chunk, d.chunk)), found.xy, found.zw));
    }
    all = block_merge(all, lane);
    if (lane == 0u) {
        write_moments(s, block.z, block.x, all.mean, all.m2);
    }
}
