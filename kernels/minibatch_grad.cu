// Gradient of one minibatch for nets that fit one block: gather, forward, loss, backward. Twin of
// src/op/minibatch_grad.rs.
//
// One block per tile of rows, session and net: actor and critic are separate nets and share nothing, so they run side by
// side; each writes its own parameters' part of `partial` and its own columns of `partial_loss`. 128 lanes hold the
// net's parameters in shared memory and go through the tile in chunks of ROWS rows (32, 64 or 128 by the tile's height):
// activations never leave shared memory, slopes take their place on the way back, weight gradients are sums over the
// chunk's rows in registers, written once, or added to the earlier chunks' in L2.
//
// A row costs 3 multiply-adds per weight (2 in the first layer); 2x64 with 128 rows: 13 K fused multiply-adds and 5 K
// other instructions per lane and chunk, shared memory read at 16 words per 64 of them. Bound by the f32 units, then by
// shared memory; device memory sees each row once and the gradient once per tile. Every sum runs in an order that
// shapes alone decide: within a lane over inputs or rows, then a tree over lanes, then chunk by chunk.

#include "lib/core.cuh"
#include "lib/minibatch.cuh"
#include "lib/mlp.cuh"

// CHUNK is the number of rows, and part of the name
#define NAMED(rows) minibatch_grad_##rows
#define ENTRY(rows) NAMED(rows)

constexpr u32 ROWS = CHUNK, LANES = 128;

// One tile of one net.
__device__ __forceinline__ void tile_gradient(const MinibatchGradShape& d, const MinibatchGradArgs& a, u32 s,
                                              float* shared) {
    u32 lane = threadIdx.x, tile = blockIdx.x;
    Part part(d, blockIdx.z);
    const Net& net = part.is_critic ? d.critic : d.actor;
    const float* params = a.params.of(s) + part.offset;

    // shared memory: the losses' numbers, observations, outputs, their slopes, parameters, activations
    u32 x_row = narrow_row(d.obs), out_row = narrow_row(part.outputs + part.free);
    Numbers* numbers = reinterpret_cast<Numbers*>(shared);
    float* x = shared + sizeof(Numbers) / 4;
    float* out = x + ROWS * x_row;
    float* d_out = out + ROWS * out_row;
    float* weights = d_out + ROWS * out_row;
    float* acts = weights + net_words(net, x_row);
    load_net<LANES>(net, params, x_row, weights, lane);
    load_numbers(d, a, s, numbers, lane);

    LossSums sums = {};
    float* grad = a.partial.of(s) + u64(tile) * part.params + part.offset;
    u32 begin = tile * d.tile_rows, end = min(begin + d.tile_rows, d.len);
    for (u32 at = begin; at < end; at += ROWS) {
        const u32* index = a.index.of(s) + d.start + at;
        u32 rows = min(end - at, ROWS);
        gather_obs<ROWS, LANES>(d, a, s, index, rows, x, x_row, lane);
        if (lane < rows) prefetch_row(d, a, s, part, index[lane]);
        copies_done();
        __syncthreads();
        forward<ROWS, LANES, true>(net, weights, x, x_row, acts, out, out_row, lane, net.layers);

        // a lane per row; rows that are not there have no slopes
        for (u32 row = lane; row < ROWS; row += LANES) {
            float* slopes = d_out + row * out_row;
            if (row < rows) {
                row_losses(d, a, s, part, *numbers, params, index[row], out + row * out_row, slopes, out_row, sums);
            } else {
                for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
            }
        }
        __syncthreads();
        backward<ROWS, LANES>(net, weights, x, x_row, acts, d_out, out_row, part.free, grad, at > begin, lane);
        __syncthreads();
    }

    float* losses = a.partial_loss.of(s) + tile * Sums::LOSSES;
#pragma unroll
    for (u32 c = 0; c < Sums::LOSSES; c++) {
        float sum = block_sum<LANES>(sums.at[c], x, lane);
        if (lane == 0 && part.owns(c)) losses[c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(LANES, ROWS == 32 ? 4 : ROWS == 64 ? 3 : 2)
    ENTRY(CHUNK)(__grid_constant__ const MinibatchGradShape d, __grid_constant__ const Sessions sessions,
                __grid_constant__ const MinibatchGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    tile_gradient(d, a, s, shared);
}
