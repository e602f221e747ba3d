// Orders of places, and the normalization of a minibatch's advantages. The op has `d.bits`, `d.normalize`,
// `d.minibatches` of an epoch, `d.chunks` of a minibatch, and the arguments `seed`, `clock`, `percentiles`, `moments`.
// A chunk leaves its mean and squares in scratch where a minibatch has several.

#import lib/core
#import lib/rng
#import lib/sums

// Bits of the lower half of a place, and masks of both.
const LOW_BITS = d.bits / 2u;
const LOW_MASK = (1u << LOW_BITS) - 1u;
const HIGH_MASK = (1u << (d.bits - LOW_BITS)) - 1u;

const DEVIATION_ROOM = Wide(STANDARDIZE_EPSILON, STANDARDIZE_EPSILON_LOW);
const STANDARDIZED = d.normalize == NORMALIZES_STANDARDIZE;

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

// The row of 0..n at a place of an epoch's order.
fn row_at(place: u32, n: u32, keys: vec4<u32>) -> u32 {
    var row = feistel(place, keys);
    while (row >= n) {
        row = feistel(row, keys);
    }
    return row;
}

fn keys_of(s: u32, epoch: u32) -> vec4<u32> {
    let seed = a.seed.at + s * a.seed.stride;
    let iteration = get_u(a.clock.at + s * a.clock.stride + CLOCK_ITER);
    return philox(vec4<u32>(epoch, iteration, PURPOSE_SHUFFLE, 0u), vec2<u32>(get_u(seed), get_u(seed + 1u)));
}

// Writes shift and factor of a minibatch of so many rows. One lane.
fn write_moments(s: u32, epoch: u32, minibatch: u32, rows: u32, mean: Wide, m2: Wide) {
    let moments = a.moments.at + s * a.moments.stride + 2u * (epoch * d.minibatches + minibatch);
    if (STANDARDIZED && rows > 1u) {
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

// Where the chunks of a minibatch leave what they found.
fn chunks_of(s: u32, epoch: u32, minibatch: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + 4u * (epoch * d.minibatches + minibatch) * d.chunks;
}

// Mean and squares of chunk `chunk` of a minibatch of `rows` rows: written where it is the only one, else left to
// `join_chunks`. One lane.
fn leave_moments(s: u32, epoch: u32, minibatch: u32, chunk: u32, rows: u32, mean: Wide, squares: Wide) {
    if (d.chunks == 1u || !STANDARDIZED) {
        if (chunk == 0u) { write_moments(s, epoch, minibatch, rows, mean, squares); }
    } else {
        put4(chunks_of(s, epoch, minibatch) + 4u * chunk, vec4<f32>(mean, squares));
    }
}

// Joins the moments of the chunks of a minibatch of `rows` rows, `each` rows but for the last one. All lanes of a
// block.
fn join_chunks(s: u32, epoch: u32, minibatch: u32, rows: u32, each: u32, lane: u32) {
    let chunks = chunks_of(s, epoch, minibatch);
    var all = no_moments();
    for (var chunk = lane; chunk < d.chunks && chunk * each < rows; chunk += THREADS) {
        let found = get4(chunks + 4u * chunk);
        all = merge(all, Moments(wide_of_u32(min(rows - chunk * each, each)), found.xy, found.zw));
    }
    all = block_merge(all, lane);
    if (lane == 0u) { write_moments(s, epoch, minibatch, rows, all.mean, all.m2); }
}
