// The orders of environments in all epochs and the normalization of each minibatch of whole sequences. Twin of
// src/op/sequence_order.rs.
//
// A block per minibatch of every epoch, up to 1,024 lanes. Each place goes alone through the Feistel network (12 rounds
// of some 8 integer operations) and writes its environment; then, where advantages are standardized, lanes go through
// the minibatch's rows twice, for the mean and for the squares, neighboring lanes at neighboring environments: 4 bytes
// gathered per row and pass, the second time from the caches. Bound by the latency of those reads. Sums are f64, rows of
// a lane in order, then a butterfly; the number of lanes is a function of the minibatch's size.

#include "lib/core.cuh"
#include "lib/order.cuh"
#include "lib/sums.cuh"

struct SequenceOrderShape {
    u32 t;
    u32 n;
    // sequences
    u32 minibatch;
    u32 epochs;
    u32 normalize;
    u32 ordered;
    // bits of a place
    u32 bits;
    // of an epoch
    u32 minibatches;
};

struct SequenceOrderArgs {
    Read<u32> seed;           // [2]
    Read<u32> clock;          // [4]
    Read<float> advantage;    // [T, N]
    Read<float> percentiles;  // [4]
    Write<u32> index;         // [epochs, N]
    Write<float> moments;     // [epochs, minibatches, 2]
    Update<float> scratch;
};

constexpr u32 THREADS = 1024;

extern "C" __global__ void __launch_bounds__(THREADS)
    sequence_order(__grid_constant__ const SequenceOrderShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const SequenceOrderArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    u32 epoch = blockIdx.x / d.minibatches, first = blockIdx.x % d.minibatches * d.minibatch;
    u32 envs = min(d.n - first, d.minibatch), rows = d.t * envs;
    u32* index = a.index.of(s) + epoch * d.n + first;
    Words keys = keys_of(epoch, a.seed.of(s), a.clock.of(s));
    for (u32 i = threadIdx.x; i < envs; i += blockDim.x) {
        index[i] = d.ordered ? first + i : row_at(first + i, d.n, d.bits, keys);
    }

    // the moments of all steps of these environments
    double mean = 0.0, squares[1] = {0.0};
    if (d.normalize == Normalizes::STANDARDIZE) {
        const float* advantage = a.advantage.of(s);
        // what other lanes have written
        __syncthreads();
        double sum[1] = {0.0};
        for (u32 i = threadIdx.x; i < rows; i += blockDim.x) {
            sum[0] += double(advantage[i / envs * d.n + index[i % envs]]);
        }
        block_sums(sum);
        mean = sum[0] / double(rows);
        for (u32 i = threadIdx.x; i < rows; i += blockDim.x) {
            double off = double(advantage[i / envs * d.n + index[i % envs]]) - mean;
            squares[0] += off * off;
        }
        block_sums(squares);
    }
    if (threadIdx.x == 0) {
        write_normalization(d.normalize, rows, mean, squares[0], a.percentiles.of(s),
                            a.moments.of(s) + 2 * blockIdx.x);
    }
}
