// The orders of rows in all epochs and the normalisation of each minibatch. Twin of src/op/shuffle.rs.
//
// `shuffle_index` has a lane for every four places of a minibatch: each place goes alone through a Feistel network (12
// rounds of some 8 integer operations; on average less than two walks until it lands inside), writes its row and gathers
// that row's advantage: 4 bytes written and 4 gathered per row, bound by integer arithmetic. The moments of the gathered
// numbers come from registers in two passes, f64, lane by lane in a butterfly.
//
// A minibatch of up to 4,096 rows is one block, which writes its normalisation too. A larger one is cut into chunks of
// 1,024 rows, a block of 256 lanes each, and where there are moments `shuffle_moments` joins them, a block of 256 lanes
// per minibatch, in a tree over chunks. Blocks and order are functions of the minibatch's size.

#include "lib/core.cuh"
#include "lib/order.cuh"
#include "lib/sums.cuh"

struct ShuffleShape {
    u32 m;
    u32 minibatch;
    u32 epochs;
    u32 normalize;
    u32 ordered;
    // bits of a place
    u32 bits;
    // rows of a block, and blocks of a minibatch
    u32 chunk;
    u32 chunks;
    // of an epoch
    u32 minibatches;
};

struct ShuffleArgs {
    Read<u32> seed;           // [2]
    Read<u32> clock;          // [4]
    Read<float> advantage;    // [m]
    Read<float> percentiles;  // [4]
    Write<u32> index;         // [epochs, m]
    Write<float> moments;     // [epochs, minibatches, 2]
    Update<float> scratch;
};

constexpr u32 THREADS = 1024;
constexpr u32 JOIN_THREADS = 256;
constexpr u32 EACH = 4;

// Mean and squares of a chunk, in scratch.
struct ChunkMoments {
    double mean;
    double m2;
};

// Rows of a minibatch; the last one may be smaller.
__device__ __forceinline__ u32 rows_of(const ShuffleShape& d, u32 minibatch) {
    u32 left = d.m - minibatch * d.minibatch;
    return left < d.minibatch ? left : d.minibatch;
}

// Writes shift and factor of a minibatch, counted through all epochs. One lane.
__device__ void write_moments(const ShuffleShape& d, const ShuffleArgs& a, u32 s, u32 minibatch, double mean, double m2) {
    write_normalization(d.normalize, rows_of(d, minibatch % d.minibatches), mean, m2, a.percentiles.of(s),
                        a.moments.of(s) + 2 * minibatch);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    shuffle_index(__grid_constant__ const ShuffleShape d, __grid_constant__ const Sessions sessions,
                  __grid_constant__ const ShuffleArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const float* advantage = a.advantage.of(s);
    u32 chunk = blockIdx.x % d.chunks, through = blockIdx.x / d.chunks;
    u32 epoch = through / d.minibatches, minibatch = through % d.minibatches, rows = rows_of(d, minibatch);
    u32 first = chunk * d.chunk, here = first < rows ? (rows - first < d.chunk ? rows - first : d.chunk) : 0;
    u32* index = a.index.of(s) + epoch * d.m;
    bool standardize = d.normalize == Normalizes::STANDARDIZE;
    Words keys = keys_of(epoch, a.seed.of(s), a.clock.of(s));

    // every place alone
    float x[EACH] = {};
    double sum[1] = {0.0};
#pragma unroll
    for (u32 j = 0; j < EACH; j++) {
        u32 at = j * blockDim.x + threadIdx.x;
        if (at >= here) continue;
        u32 place = minibatch * d.minibatch + first + at;
        u32 row = d.ordered ? place : row_at(place, d.m, d.bits, keys);
        index[place] = row;
        if (standardize) {
            x[j] = advantage[row];
            sum[0] += double(x[j]);
        }
    }

    // the moments of what was gathered
    double mean = 0.0, squares[1] = {0.0};
    if (standardize) {
        block_sums(sum);
        mean = sum[0] / double(here);
#pragma unroll
        for (u32 j = 0; j < EACH; j++) {
            double off = double(x[j]) - mean;
            if (j * blockDim.x + threadIdx.x < here) squares[0] += off * off;
        }
        block_sums(squares);
    }
    if (threadIdx.x != 0) return;
    if (d.chunks == 1 || !standardize) {
        if (chunk == 0) write_moments(d, a, s, through, mean, squares[0]);
    } else {
        reinterpret_cast<ChunkMoments*>(a.scratch.of(s))[blockIdx.x] = {mean, squares[0]};
    }
}

extern "C" __global__ void __launch_bounds__(JOIN_THREADS)
    shuffle_moments(__grid_constant__ const ShuffleShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const ShuffleArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const ChunkMoments* chunks = reinterpret_cast<const ChunkMoments*>(a.scratch.of(s)) + blockIdx.x * d.chunks;
    u32 rows = rows_of(d, blockIdx.x % d.minibatches);
    Moments3 all = {0.0, 0.0, 0.0};
    for (u32 chunk = threadIdx.x; chunk * d.chunk < rows && chunk < d.chunks; chunk += JOIN_THREADS) {
        u32 left = rows - chunk * d.chunk;
        all = merge(all, {double(left < d.chunk ? left : d.chunk), chunks[chunk].mean, chunks[chunk].m2});
    }
    all = block_merge(all);
    if (threadIdx.x == 0) write_moments(d, a, s, blockIdx.x, all.mean, all.m2);
}
