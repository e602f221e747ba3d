// The orders of environments in all epochs and the normalization of each minibatch of whole sequences. Twin of
// src/op/sequence_order.rs.
//
// A block has a chunk of a minibatch's environments, some 4,096 rows. Lanes send their places through the Feistel
// network (12 rounds of some 8 integer operations), write the environments and keep them in workgroup memory; then,
// where advantages are standardized, they go through the rows of all steps twice, for the mean and for the squares,
// neighboring lanes at neighboring environments: 4 bytes gathered per row and pass, the second time from the caches,
// summed as pairs of floats. Bound by the latency of those reads.
//
// A minibatch of one chunk writes its normalization too; of several, `sequence_order_moments` joins them, a block per
// minibatch. Epochs are the parts of the grid. Blocks and order are functions of the sizes; lanes meet in a tree.

#import lib/core
#import lib/order
#import lib/sums

struct Shape {
    t: u32,
    n: u32,
    // sequences
    minibatch: u32,
    normalize: u32,
    ordered: bool,
    // bits of a place
    bits: u32,
    // environments of a block, and blocks of a minibatch
    chunk: u32,
    chunks: u32,
    // of an epoch
    minibatches: u32,
}

struct Args {
    seed: ReadU,         // [2]
    clock: ReadU,        // [4]
    advantage: ReadF,    // [T, N]
    percentiles: ReadF,  // [4]
    index: WriteU,       // [epochs, N]
    moments: WriteF,     // [epochs, minibatches, 2]
    scratch: UpdateF,
}

// Environments of the block.
var<workgroup> envs: array<u32, d.chunk>;

// Sequences of a minibatch; the last one may have fewer.
fn sequences_of(minibatch: u32) -> u32 {
    return min(d.n - minibatch * d.minibatch, d.minibatch);
}

@compute @workgroup_size(THREADS)
fn sequence_order_index(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let epoch = block.z;
    let minibatch = block.x / d.chunks;
    let chunk = block.x % d.chunks;
    let sequences = sequences_of(minibatch);
    // the last minibatch may have fewer chunks
    let here = select(0u, min(sequences - chunk * d.chunk, d.chunk), chunk * d.chunk < sequences);
    let first = minibatch * d.minibatch + chunk * d.chunk;
    let index = a.index.at + s * a.index.stride + epoch * d.n;
    let keys = keys_of(s, epoch);
    for (var i = lane; i < here; i += THREADS) {
        var env = first + i;
        if (!d.ordered) { env = row_at(env, d.n, keys); }
        put_u(index + first + i, env);
        envs[i] = env;
    }

    var mean = wide(0.0);
    var squares = wide(0.0);
    if (STANDARDIZED) {
        workgroupBarrier();
        let rows = here * d.t;
        let advantage = a.advantage.at + s * a.advantage.stride;
        var sum = wide(0.0);
        for (var i = lane; i < rows; i += THREADS) {
            sum = wide_add_f32(sum, get_f(advantage + i / here * d.n + envs[i % here]));
        }
        sum = block_sums(vec4<f32>(sum, 0.0, 0.0), lane).xy;
        if (here > 0u) { mean = wide_div(sum, wide_of_u32(rows)); }
        for (var i = lane; i < rows; i += THREADS) {
            let x = get_f(advantage + i / here * d.n + envs[i % here]);
            squares = wide_add(squares, wide_square(wide_add_f32(-mean, x)));
        }
        squares = block_sums(vec4<f32>(squares, 0.0, 0.0), lane).xy;
    }
    if (lane == 0u) { leave_moments(s, epoch, minibatch, chunk, sequences * d.t, mean, squares); }
}

@compute @workgroup_size(THREADS)
fn sequence_order_moments(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let rows = sequences_of(block.x) * d.t;
    join_chunks(sessions[1u + block.y], block.z, block.x, rows, d.chunk * d.t, lane);
}
