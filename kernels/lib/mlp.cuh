// Multi-layer perceptrons inside fused kernels: a block keeps a net's parameters and the activations of ROWS rows in
// shared memory and goes through the net layer by layer. Twin of src/op/lib/mlp.rs.
//
// Fits nets whose hidden layers have at most Fused::WIDTH units; src/op/gpu/nets.rs decides and knows every size here.
// LANES lanes work on one net; each holds a register tile of the layer's outputs, ROWS x WIDTH / LANES of them. Rows of
// weights and activations lie Fused::STRIDE words apart (4 modulo the 32 banks), so that lanes that read neighboring
// rows, four words each, meet different banks. Sums over inputs run in order within one lane and fuse (fmaf).
#pragma once

#include "core.cuh"
#include "trig.cuh"

// Words from row to row of a narrow matrix: whole float4s, an odd number of them, so that lanes that read a row each
// meet different banks.
__device__ __forceinline__ u32 narrow_row(u32 words) { return 4 * ((words + 3) / 4 | 1); }

// The next multiple of four.
__device__ __forceinline__ u32 pad4(u32 words) { return words + 3 & ~3u; }

// Words from row to row of a layer's weight in shared memory, whose inputs lie `x_row` words apart where it is the
// first: hidden weights are [input, output], the last layer's is [output, input].
__device__ __forceinline__ u32 weight_row(const Net& net, u32 l, u32 x_row) {
    return l + 1 == net.layers && l == 0 ? x_row : Fused::STRIDE;
}

// Rows of a layer's weight in shared memory.
__device__ __forceinline__ u32 weight_rows(const Net& net, u32 l) {
    return l + 1 == net.layers ? net.layer[l].output + 1 & ~1u : pad4(net.layer[l].input);
}

// Words of a layer in shared memory: its weight, then its bias.
__device__ __forceinline__ u32 layer_words(const Net& net, u32 l, u32 x_row) {
    u32 bias = l + 1 == net.layers ? pad4(net.layer[l].output) : Fused::STRIDE;
    return weight_rows(net, l) * weight_row(net, l, x_row) + bias;
}

// Words of a whole net in shared memory.
__device__ __forceinline__ u32 net_words(const Net& net, u32 x_row) {
    u32 words = 0;
    for (u32 l = 0; l < net.layers; l++) words += layer_words(net, l, x_row);
    return words;
}

// Words of the activations that `forward` keeps: one matrix [ROWS, STRIDE] per hidden layer.
template <u32 ROWS>
__device__ __forceinline__ u32 acts_words(const Net& net) {
    return (net.layers - 1) * ROWS * Fused::STRIDE;
}

// Copies a net's parameters into shared memory, padding with zeros. `lane` counts LANES lanes from 0. No barrier: the
// caller synchronizes before the first `forward`.
template <u32 LANES>
__device__ void load_net(const Net& net, const float* params, u32 x_row, float* weights, u32 lane);

// Sends ROWS rows through a net. `x` holds rows of `x_row = narrow_row(observation)` words, padding finite; `acts` keeps
// the activations of every hidden layer, [ROWS, STRIDE] each; `out` gets rows of `out_row` words, of which the first
// net.layer[last].output count. Several nets may go at once, each with LANES lanes of its own (`lane` counts within
// them): all lanes of the block must call this together, with `depth` the largest number of layers among the nets.
// The caller synchronizes before; all outputs are visible to the block after.
template <u32 ROWS, u32 LANES>
__device__ void forward(const Net& net, const float* weights, const float* x, u32 x_row, float* acts, float* out,
                        u32 out_row, u32 lane, u32 depth);
