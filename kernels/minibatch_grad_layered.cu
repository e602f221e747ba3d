// Gradient of one minibatch for nets that do not fit one block, layer by layer through scratch. Twin of
// src/op/minibatch_grad.rs.
//
// Kernels in order: gather; forward, once per hidden layer; outputs and losses; then for every layer from the last:
// gradient of its weights, and slopes at the units below it, in the place of their activations. Actor and critic are
// separate nets and run side by side (z of the grid). Blocks of 128 lanes make tiles of 64 x 64 numbers, sums over
// depth in order within a lane; the gradient's rows are cut into the tiles of `partial`, which is all that is summed
// later.
//
// Per row and weight 3 fused multiply-adds, read from shared memory at 12 words per 32 of them, or on the matrix units
// with operands rounded on their way there (BF16); activations pass through L2 or device memory once per kernel, in
// f32. Bound by shared memory, then by the f32 units; with BF16 by L2. Orders depend on shapes alone.

#include "lib/core.cuh"
#include "lib/layered.cuh"
#include "lib/layered_bf16.cuh"
#include "lib/minibatch.cuh"

#ifdef BF16
typedef layered::Half Product;
#define ENTRY(name) minibatch_grad_bf16_##name
#else
typedef layered::Single Product;
#define ENTRY(name) minibatch_grad_##name
#endif

// Parts of a session's scratch: observations; activations, those before the activation where slopes need them, and
// slopes at the outputs, of actor and critic; losses of every tile of rows.
struct Scratch {
    float* at;
    u32 rows;

    __device__ __forceinline__ Scratch(const MinibatchGradShape& d, const MinibatchGradArgs& a, u32 s) {
        at = a.scratch.of(s);
        rows = (d.len + layered::ROWS - 1) / layered::ROWS * layered::ROWS;
    }

    // words per row of a net's part
    __device__ __forceinline__ u32 words(const Net& net, u32 free) const {
        u32 sum = 0;
        for (u32 l = 0; l + 1 < net.layers; l++) sum += pad4(net.layer[l].output);
        return sum * (needs_input(net.activation) ? 2 : 1) + pad4(net.layer[net.layers - 1].output + free);
    }

    __device__ __forceinline__ float* of_net(const MinibatchGradShape& d, const Part& part) const {
        u32 skipped = pad4(d.obs);
        if (part.is_critic) skipped += words(d.actor, free_params(d.policy));
        return at + u64(rows) * skipped;
    }

    // activations of layer l, from 0; before the activation; slopes at the outputs
    __device__ __forceinline__ float* acts(float* of_net, const Net& net, u32 l) const {
        u32 skipped = 0;
        for (u32 i = 0; i < l; i++) skipped += pad4(net.layer[i].output);
        return of_net + u64(rows) * skipped;
    }

    __device__ __forceinline__ float* before(float* of_net, const Net& net, u32 l) const {
        if (!needs_input(net.activation)) return nullptr;
        return acts(acts(of_net, net, net.layers - 1), net, l);
    }

    __device__ __forceinline__ float* d_out(float* of_net, const Net& net) const {
        float* end = acts(of_net, net, net.layers - 1);
        return needs_input(net.activation) ? acts(end, net, net.layers - 1) : end;
    }

    __device__ __forceinline__ float* losses(const MinibatchGradShape& d) const {
        u32 skipped = pad4(d.obs) + words(d.actor, free_params(d.policy));
        if (d.critic.layers > 0) skipped += words(d.critic, 0);
        return at + u64(rows) * skipped;
    }
};

extern "C" __global__ void __launch_bounds__(128)
    ENTRY(gather)(__grid_constant__ const MinibatchGradShape d, __grid_constant__ const Sessions sessions,
                  __grid_constant__ const MinibatchGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    u32 row = blockIdx.x * layered::ROWS, x_row = pad4(d.obs);
    gather_obs<layered::ROWS, layered::LANES>(d, a, s, a.index.of(s) + d.start + row, min(d.len - row, layered::ROWS),
                                              a.scratch.of(s) + u64(row) * x_row, x_row, threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    ENTRY(forward)(__grid_constant__ const MinibatchGradShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const MinibatchGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Part part(d, blockIdx.z);
    const Net& net = part.is_critic ? d.critic : d.actor;
    Scratch scratch(d, a, s);
    // blocks of one tile of rows are neighbors; a narrower net has fewer of them
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), l = d.layer;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    if (l + 1 >= net.layers || at.col >= net.layer[l].output) return;
    float* of_net = scratch.of_net(d, part);
    const float* from = l == 0 ? scratch.at : scratch.acts(of_net, net, l - 1);
    layered::forward_tile<Product>(net.layer[l], net.activation, a.params.of(s) + part.offset, from,
                                   scratch.acts(of_net, net, l), scratch.before(of_net, net, l), at, shared,
                                   threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    ENTRY(losses)(__grid_constant__ const MinibatchGradShape d, __grid_constant__ const Sessions sessions,
                  __grid_constant__ const MinibatchGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Part part(d, blockIdx.z);
    const Net& net = part.is_critic ? d.critic : d.actor;
    const float* params = a.params.of(s) + part.offset;
    Scratch scratch(d, a, s);
    float* of_net = scratch.of_net(d, part);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS, last = net.layers - 1;
    u32 out_row = pad4(part.outputs + part.free);
    Numbers* numbers = reinterpret_cast<Numbers*>(shared);
    load_numbers(d, a, s, numbers, lane);
    float* out = shared + sizeof(Numbers) / 4;
    float* work = out + layered::ROWS * out_row;
    const float* from = last == 0 ? scratch.at : scratch.acts(of_net, net, last - 1);
    layered::head_rows<Product>(net.layer[last], params, from, row, out, out_row, work, lane);

    // a lane per row; rows that are not there have no slopes
    LossSums sums = {};
    if (lane < layered::ROWS) {
        float* slopes = scratch.d_out(of_net, net) + u64(row + lane) * out_row;
        if (row + lane < d.len) {
            u32 m = a.index.of(s)[d.start + row + lane];
            row_losses(d, a, s, part, *numbers, params, m, out + lane * out_row, slopes, out_row, sums);
        } else {
            for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
        }
    }
#pragma unroll
    for (u32 c = 0; c < Sums::LOSSES; c++) {
        float sum = block_sum<layered::LANES>(sums.at[c], work, lane);
        if (lane == 0 && part.owns(c)) scratch.losses(d)[blockIdx.x * Sums::LOSSES + c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    ENTRY(weights)(__grid_constant__ const MinibatchGradShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const MinibatchGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Part part(d, blockIdx.z);
    const Net& net = part.is_critic ? d.critic : d.actor;
    Scratch scratch(d, a, s);
    u32 tiles = (d.len + d.tile_rows - 1) / d.tile_rows, l = d.layer, lane = threadIdx.x;
    u32 blocks = gridDim.x / tiles, tile = blockIdx.x / blocks, block = blockIdx.x % blocks;
    u32 row = tile * d.tile_rows, rows = min(d.tile_rows, scratch.rows - row);

    // the tile's losses, from those of its rows; in the first pass, which one block of every tile is part of
    if (l + 1 == max(d.actor.layers, d.critic.layers) && block == 0 && !part.is_critic && lane < Sums::LOSSES) {
        float sum = 0.0f;
        for (u32 i = row / layered::ROWS; i < (row + rows) / layered::ROWS; i++) {
            sum += scratch.losses(d)[i * Sums::LOSSES + lane];
        }
        a.partial_loss.of(s)[tile * Sums::LOSSES + lane] = sum;
    }

    if (l >= net.layers) return;
    const Layer& y = net.layer[l];
    bool last = l + 1 == net.layers;
    u32 a_len = last ? y.output : y.input, b_len = last ? y.input : y.output;
    // columns of slopes whose sums are the gradient of the bias, and of free parameters behind it
    u32 sums = y.output + (last ? part.free : 0);
    u32 across = (b_len + Fused::WIDTH - 1) / Fused::WIDTH;
    layered::Tile at = {block / across * Fused::WIDTH, block % across * Fused::WIDTH};
    if (at.row >= (last ? sums : a_len)) return;
    float* of_net = scratch.of_net(d, part);
    const float* below = l == 0 ? scratch.at : scratch.acts(of_net, net, l - 1);
    const float* slopes = last ? scratch.d_out(of_net, net) : scratch.acts(of_net, net, l);
    u32 below_row = pad4(y.input), slopes_row = pad4(sums), at_sums = last ? at.row : at.col;
    float* grad = a.partial.of(s) + u64(tile) * part.params + part.offset;
    bool with_bias = (last ? at.col : at.row) == 0;
    layered::gradient_tile<Product>(last ? slopes : below, last ? slopes_row : below_row, a_len, last ? below : slopes,
                                    last ? below_row : slopes_row, b_len, grad + y.weight, row, rows, at,
                                    with_bias ? grad + y.bias + at_sums : nullptr, layered::within(sums, at_sums),
                                    last, shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    ENTRY(backward)(__grid_constant__ const MinibatchGradShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const MinibatchGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Part part(d, blockIdx.z);
    const Net& net = part.is_critic ? d.critic : d.actor;
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), l = d.layer;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    if (l >= net.layers || at.col >= net.layer[l].input) return;
    bool last = l + 1 == net.layers;
    float* of_net = scratch.of_net(d, part);
    float* below = scratch.acts(of_net, net, l - 1);
    const float* before = scratch.before(of_net, net, l - 1);
    const float* slopes = last ? scratch.d_out(of_net, net) : scratch.acts(of_net, net, l);
    u32 slopes_row = pad4(net.layer[l].output + (last ? part.free : 0));
    layered::backward_tile<Product>(net.layer[l], last, net.activation, a.params.of(s) + part.offset, slopes,
                                    slopes_row, before != nullptr ? before : below, below, at, shared, threadIdx.x);
}
