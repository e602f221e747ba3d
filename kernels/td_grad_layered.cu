// Gradient of a batch of temporal-difference errors for Q nets that do not fit one block, layer by layer through scratch.
// Twin of src/op/td_grad.rs; minibatch_grad_layered.cu says what its kernels are bound by.
//
// Kernels in order: gather; forward, once per hidden layer; outputs and losses; then for every layer from the last:
// gradient of its weights, and slopes at the units below it, in the place of their activations. The passes of a batch run
// side by side (z of the grid): the net on the states, the net on the next states, the target net on the next states.
// Orders depend on shapes alone.

#include "lib/core.cuh"
#include "lib/layered.cuh"
#include "lib/td.cuh"

typedef layered::Single Product;

// Parts of a session's scratch: states, next states; of each pass the activations, those before the activation where
// slopes need them, and slopes at the outputs; the loss of every block of rows.
struct Scratch {
    float* at;
    u32 rows;
    u32 passes;

    __device__ __forceinline__ Scratch(const TdGradShape& d, const TdGradArgs& a, u32 s) {
        at = a.scratch.of(s);
        rows = (d.batch + layered::ROWS - 1) / layered::ROWS * layered::ROWS;
        passes = 1 + (d.asks_itself ? 1 : 0) + (d.has_target ? 1 : 0);
    }

    __device__ __forceinline__ u32 units(const Net& net, u32 layers) const {
        u32 sum = 0;
        for (u32 l = 0; l < layers; l++) sum += pad4(net.layer[l].output);
        return sum;
    }

    // states, or next states
    __device__ __forceinline__ float* seen(const TdGradShape& d, bool next) const {
        return at + (next ? u64(rows) * pad4(d.net.layer[0].input) : 0);
    }

    __device__ __forceinline__ float* of_pass(const TdGradShape& d, u32 pass) const {
        u32 hidden = units(d.net, d.net.layers - 1) * (needs_input(d.net.activation) ? 2 : 1);
        u32 words = hidden + pad4(d.net.layer[d.net.layers - 1].output);
        return at + u64(rows) * (2 * pad4(d.net.layer[0].input) + pass * words);
    }

    // activations of layer l, from 0; before the activation; slopes at the outputs
    __device__ __forceinline__ float* acts(const TdGradShape& d, u32 pass, u32 l) const {
        return of_pass(d, pass) + u64(rows) * units(d.net, l);
    }
    __device__ __forceinline__ float* before(const TdGradShape& d, u32 l) const {
        if (!needs_input(d.net.activation)) return nullptr;
        return acts(d, 0, d.net.layers - 1) + u64(rows) * units(d.net, l);
    }
    __device__ __forceinline__ float* d_out(const TdGradShape& d) const {
        u32 hidden = units(d.net, d.net.layers - 1) * (needs_input(d.net.activation) ? 2 : 1);
        return of_pass(d, 0) + u64(rows) * hidden;
    }

    __device__ __forceinline__ float* losses(const TdGradShape& d) const { return of_pass(d, passes); }
};

// Parameters of a pass: of the net itself in the first one, and in the next where it looks ahead.
__device__ __forceinline__ const float* params_of(const TdGradShape& d, const TdGradArgs& a, u32 s, u32 pass) {
    return pass == 0 || (pass == 1 && d.asks_itself) ? a.params.of(s) : a.target.of(s);
}

extern "C" __global__ void __launch_bounds__(128)
    td_grad_gather(__grid_constant__ const TdGradShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const TdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    bool next = blockIdx.z == 1;
    u32 row = blockIdx.x * layered::ROWS, words = d.net.layer[0].input, x_row = pad4(words);
    const u32* index = (next ? a.last.of(s) : a.index.of(s)) + d.start + row;
    gather_rows<layered::ROWS, layered::LANES>(next ? a.next_obs.of(s) : a.obs.of(s), words, normalizing(d, a, s), index,
                                               min(d.batch - row, layered::ROWS),
                                               Scratch(d, a, s).seen(d, next) + u64(row) * x_row, x_row, threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    td_grad_forward(__grid_constant__ const TdGradShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const TdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    // blocks of one tile of rows are neighbors
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), l = d.layer, pass = blockIdx.z;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    const float* from = l == 0 ? scratch.seen(d, pass > 0) : scratch.acts(d, pass, l - 1);
    layered::forward_tile<Product>(d.net.layer[l], d.net.activation, params_of(d, a, s, pass), from,
                                   scratch.acts(d, pass, l), pass == 0 ? scratch.before(d, l) : nullptr, at, shared,
                                   threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    td_grad_losses(__grid_constant__ const TdGradShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const TdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS, last = d.net.layers - 1;
    u32 out_row = pad4(d.net.layer[last].output), words = layered::ROWS * out_row;
    float* work = shared + scratch.passes * words;
#pragma unroll 1
    for (u32 pass = 0; pass < scratch.passes; pass++) {
        const float* from = last == 0 ? scratch.seen(d, pass > 0) : scratch.acts(d, pass, last - 1);
        layered::head_rows<Product>(d.net.layer[last], params_of(d, a, s, pass), from, row, shared + pass * words,
                                    out_row, work, lane);
    }

    // a lane per row; rows that are not there have no slopes
    float sum = 0.0f;
    if (lane < layered::ROWS) {
        float* slopes = scratch.d_out(d) + u64(row + lane) * out_row;
        const float* out = shared + lane * out_row;
        if (row + lane < d.batch) {
            u32 i = d.start + row + lane;
            float value = next_value(d, a, s, i, out + words, out + (scratch.passes - 1) * words);
            sum = td_loss(d, a, s, row + lane, i, out, value, slopes, out_row);
        } else {
            for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
        }
    }
    sum = block_sum<layered::LANES>(sum, work, lane);
    if (lane == 0) scratch.losses(d)[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(128, 4)
    td_grad_weights(__grid_constant__ const TdGradShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const TdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 tiles = (d.batch + d.tile_rows - 1) / d.tile_rows, l = d.layer, lane = threadIdx.x;
    u32 blocks = gridDim.x / tiles, tile = blockIdx.x / blocks, block = blockIdx.x % blocks;
    u32 row = tile * d.tile_rows, rows = min(d.tile_rows, scratch.rows - row);
    bool last = l + 1 == d.net.layers;

    // the tile's losses, from those of its rows; in the first pass, which one block of every tile is part of
    if (last && block == 0) {
        float sum = 0.0f;
        for (u32 i = row / layered::ROWS; i < (row + rows) / layered::ROWS; i++) sum += scratch.losses(d)[i];
        write_losses(a.partial_loss.of(s) + tile * Sums::LOSSES, sum, lane);
    }

    const Layer& y = d.net.layer[l];
    u32 a_len = last ? y.output : y.input, b_len = last ? y.input : y.output;
    u32 across = (b_len + Fused::WIDTH - 1) / Fused::WIDTH;
    layered::Tile at = {block / across * Fused::WIDTH, block % across * Fused::WIDTH};
    const float* below = l == 0 ? scratch.seen(d, false) : scratch.acts(d, 0, l - 1);
    const float* slopes = last ? scratch.d_out(d) : scratch.acts(d, 0, l);
    // the columns of slopes are the gradient of the bias
    u32 below_row = pad4(y.input), slopes_row = pad4(y.output), at_sums = last ? at.row : at.col;
    float* grad = a.partial.of(s) + u64(tile) * d.net.params;
    bool with_bias = (last ? at.col : at.row) == 0;
    layered::gradient_tile<Product>(last ? slopes : below, last ? slopes_row : below_row, a_len, last ? below : slopes,
                                    last ? below_row : slopes_row, b_len, grad + y.weight, row, rows, at,
                                    with_bias ? grad + y.bias + at_sums : nullptr, layered::within(y.output, at_sums),
                                    last, shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    td_grad_backward(__grid_constant__ const TdGradShape d, __grid_constant__ const Sessions sessions,
                     __grid_constant__ const TdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), l = d.layer;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    bool last = l + 1 == d.net.layers;
    float* below = scratch.acts(d, 0, l - 1);
    const float* before = scratch.before(d, l - 1);
    layered::backward_tile<Product>(d.net.layer[l], last, d.net.activation, a.params.of(s),
                                    last ? scratch.d_out(d) : scratch.acts(d, 0, l), pad4(d.net.layer[l].output),
                                    before != nullptr ? before : below, below, at, shared, threadIdx.x);
}
