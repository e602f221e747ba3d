// Gradient of one minibatch at `meta.precision: bf16`, for nets that fit one block: gather, forward, loss, backward, the
// products on the matrix units. Twin of src/op/minibatch_grad.rs.
//
// Grid and tiles as in minibatch_grad.cu: one block per tile of rows, session and net, which goes through the tile in
// chunks of ROWS rows (32, 64 or 128) with 2 x ROWS lanes, 16 rows to a warp. Weights, observations, activations and
// slopes are bfloat16 in shared memory, rounded where they are stored; sums, biases, outputs and losses are f32.
//
// 2x64 with 128 rows: about 130 products of 16 x 8 x 16 per warp and chunk. Bound by the activation functions, 20
// instructions for a tanh, then by the matrix units and shared memory. Every sum runs in an order that shapes alone
// decide: k by k in the matrix unit, chunk by chunk in `partial`.

#include "lib/core.cuh"
#include "lib/minibatch.cuh"
#include "lib/mlp_bf16.cuh"

// CHUNK is the number of rows, and part of the name
#define NAMED(rows) minibatch_grad_bf16_##rows
#define ENTRY(rows) NAMED(rows)

constexpr u32 ROWS = CHUNK, LANES = 2 * ROWS;

// Rounds the observations of a chunk; rows from `rows` on are zeros.
__device__ __forceinline__ void gather_half(const MinibatchGradShape& d, const MinibatchGradArgs& a, u32 s,
                                            const u32* index, u32 rows, u32* x, u32 x_row, u32 lane) {
    const float* obs = a.obs.of(s);
    const float* normalizer = a.normalizer.of(s);
    float low = a.hyper.of(s)[Hyper::OBS_CLIP_LOW], high = a.hyper.of(s)[Hyper::OBS_CLIP_HIGH];
    // neighboring lanes take neighboring pairs of a row, eight pairs or more
    u32 pairs = pad16(d.obs) / 2, across = pairs <= 8 ? 8 : pairs <= 16 ? 16 : 32;
    for (u32 row = lane / across; row < ROWS; row += LANES / across) {
        const float* from = obs + u64(row < rows ? index[row] : 0) * d.obs;
        for (u32 pair = lane % across; pair < pairs; pair += across) {
            float v[2] = {0.0f, 0.0f};
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                u32 o = 2 * pair + i;
                if (row < rows && o < d.obs) {
                    v[i] = from[o];
                    if (d.normalize_obs) {
                        v[i] = trig::clamp((v[i] - normalizer[o]) * normalizer[d.obs + o], low, high);
                    }
                }
            }
            x[row * x_row + pair] = bf16_pair(v[0], v[1]);
        }
    }
}

// One tile of one net.
__device__ __forceinline__ void tile_gradient(const MinibatchGradShape& d, const MinibatchGradArgs& a, u32 s,
                                              float* shared) {
    u32 lane = threadIdx.x, tile = blockIdx.x;
    Part part(d, blockIdx.z);
    const Net& net = part.is_critic ? d.critic : d.actor;
    const Layer& head = net.layer[net.layers - 1];
    const float* params = a.params.of(s) + part.offset;

    // shared memory: the net, then outputs and their slopes in f32; first the losses' numbers
    Numbers* numbers = reinterpret_cast<Numbers*>(shared);
    shared += sizeof(Numbers) / 4;
    load_numbers(d, a, s, numbers, lane);
    HalfNet<ROWS> half(net, d.obs, shared);
    u32 out_row = narrow_row(part.outputs + part.free);
    float* out = shared;
    float* d_out = out + ROWS * out_row;
    half.load(params, lane);

    LossSums sums = {};
    float* grad = a.partial.of(s) + u64(tile) * part.params + part.offset;
    u32 begin = tile * d.tile_rows, end = min(begin + d.tile_rows, d.len);
    for (u32 at = begin; at < end; at += ROWS) {
        const u32* index = a.index.of(s) + d.start + at;
        u32 rows = min(end - at, ROWS);
        gather_half(d, a, s, index, rows, half.x, half.x_row, lane);
        if (lane < rows) prefetch_row(d, a, s, part, index[lane]);
        __syncthreads();
        half.forward(out, out_row, lane);
        __syncthreads();

        // a lane per row; rows that are not there have no slopes
        if (lane < ROWS) {
            float* slopes = d_out + lane * out_row;
            if (lane < rows) {
                row_losses(d, a, s, part, *numbers, params, index[lane], out + lane * out_row, slopes, out_row, sums);
            } else {
                for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
            }
            for (u32 j = 0; j < pad16(part.outputs); j += 2) {
                float low = j < part.outputs ? slopes[j] : 0.0f, high = j + 1 < part.outputs ? slopes[j + 1] : 0.0f;
                half.d_out[lane * half.d_row + j / 2] = bf16_pair(low, high);
            }
        }
        __syncthreads();
        column_sums<ROWS, LANES>(d_out, out_row, part.outputs + part.free, grad + head.bias, at > begin, lane);
        half.backward(grad, at > begin, lane);
        __syncthreads();
    }

    float* losses = a.partial_loss.of(s) + tile * Sums::LOSSES;
#pragma unroll
    for (u32 c = 0; c < Sums::LOSSES; c++) {
        float sum = block_sum<LANES>(sums.at[c], out, lane);
        if (lane == 0 && part.owns(c)) losses[c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(LANES, ROWS == 32 ? 6 : ROWS == 64 ? 3 : 2)
    ENTRY(CHUNK)(__grid_constant__ const MinibatchGradShape d, __grid_constant__ const Sessions sessions,
                __grid_constant__ const MinibatchGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    tile_gradient(d, a, s, shared);
}
