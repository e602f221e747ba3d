// Gradient of a batch of temporal-difference errors for Q nets that fit one block. Twin of src/op/td_grad.rs.
//
// One block of 128 lanes per tile of rows and session: the net's parameters, and the target net's where it is asked, lie
// in shared memory; rows go through in chunks of 32, both ends of each transition gathered together. The net sees the
// next states, then the target net does, then the net sees the states and keeps its activations for the way back. One
// loop over these passes keeps the code small. Batches of Q-learning are small (32 rows: one block), so what bounds the
// kernel is the latency of its passes, some 20 barriers; large batches are bound by the f32 units. A row costs up to 4
// multiply-adds per weight. Every sum runs in an order that shapes alone decide.

#include "lib/core.cuh"
#include "lib/mlp.cuh"
#include "lib/td.cuh"

constexpr u32 ROWS = 32, LANES = 128;

extern "C" __global__ void __launch_bounds__(LANES, 4)
    td_grad(__grid_constant__ const TdGradShape d, __grid_constant__ const Sessions sessions,
            __grid_constant__ const TdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    u32 lane = threadIdx.x, tile = blockIdx.x, words = d.net.layer[0].input;

    // shared memory: both ends of transitions, outputs, slopes or the target net's outputs, parameters, activations
    u32 x_row = narrow_row(words), out_row = narrow_row(d.net.layer[d.net.layers - 1].output);
    float* x = shared;
    float* next = x + ROWS * x_row;
    float* out = next + ROWS * x_row;
    float* d_out = out + ROWS * out_row;
    float* weights = d_out + ROWS * out_row;
    float* target = weights + net_words(d.net, x_row);
    float* acts = d.has_target ? target + net_words(d.net, x_row) : target;
    load_net<LANES>(d.net, a.params.of(s), x_row, weights, lane);
    if (d.has_target) load_net<LANES>(d.net, a.target.of(s), x_row, target, lane);

    float sum = 0.0f;
    float* grad = a.partial.of(s) + u64(tile) * d.net.params;
    Normalizing by = normalizing(d, a, s);
    u32 begin = tile * d.tile_rows, end = min(begin + d.tile_rows, d.batch);
    for (u32 at = begin; at < end; at += ROWS) {
        u32 rows = min(end - at, ROWS), i = d.start + at;
        gather_rows<ROWS, LANES>(a.next_obs.of(s), words, by, a.last.of(s) + i, rows, next, x_row, lane);
        gather_rows<ROWS, LANES>(a.obs.of(s), words, by, a.index.of(s) + i, rows, x, x_row, lane);
        copies_done();
        __syncthreads();
        float value = 0.0f;
#pragma unroll 1
        for (u32 pass = d.asks_itself ? 0 : 1; pass < 3; pass++) {
            if (pass == 1 && !d.has_target) continue;
            if (pass == 2) {
                if (lane < rows) {
                    value = next_value(d, a, s, i + lane, out + lane * out_row, d_out + lane * out_row);
                }
                // outputs are read before the next pass writes them
                __syncthreads();
            }
            forward<ROWS, LANES, true>(d.net, pass == 1 ? target : weights, pass == 2 ? x : next, x_row, acts,
                                       pass == 1 ? d_out : out, out_row, lane, d.net.layers);
        }
        // a lane per row; rows that are not there have no slopes
        if (lane < ROWS) {
            float* slopes = d_out + lane * out_row;
            if (lane < rows) {
                sum += td_loss(d, a, s, at + lane, i + lane, out + lane * out_row, value, slopes, out_row);
            } else {
                for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
            }
        }
        __syncthreads();
        backward<ROWS, LANES>(d.net, weights, x, x_row, acts, d_out, out_row, 0, grad, at > begin, lane);
        __syncthreads();
    }
    write_losses(a.partial_loss.of(s) + tile * Sums::LOSSES, block_sum<LANES>(sum, x, lane), lane);
}
