// The nets of an agent ahead on matrix units: operands rounded to bfloat16, sums, biases and activations in f32. The
// functions are those of agent.cuh, which says how a pass goes; a warp computes tiles of 16 rows x 8 units.
//
// Activations are pairs of units, [rows, PAIRS]: PAIRS is 4 modulo 8, so the eight rows that the lanes of a fragment read
// meet 32 banks. Weights are packed as fragments, two words to a lane, then the bias in f32; hidden layers are padded to
// 16 units, the inputs of a tile, and outputs to 8, with zeros.
#pragma once

#include "activation.cuh"
#include "ahead.cuh"
#include "matrix.cuh"

// Tiles of 16 inputs; tiles of 8 units, of hidden layers in pairs.
__device__ __forceinline__ u32 depth_tiles(const Layer& y) { return (y.input + 15) / 16; }
__device__ __forceinline__ u32 unit_tiles(const Layer& y, bool last) {
    return last ? (y.output + 7) / 8 : (y.output + 15) / 16 * 2;
}

// Words from row to row of activations with that many units.
__device__ __forceinline__ u32 pair_row(u32 units) { return (units + 15) / 16 * 8 + 4; }

template <u32 OBS>
__device__ __forceinline__ u32 seen_words(u32 rows) {
    return rows * pair_row(OBS);
}

__device__ __forceinline__ u32 buffer_words(u32 wide, u32 rows) {
    return wide ? 2 * rows * pair_row(wide) : 0;
}
__device__ __forceinline__ u32 out_words(const Net& net, u32 rows) {
    return net.layers ? 8 * unit_tiles(net.layer[net.layers - 1], true) * unit_row(rows) : 0;
}

template <u32 OBS>
__device__ __forceinline__ void see(const float (&obs)[OBS], float* seen, u32 e, u32 rows) {
    u32* pairs = reinterpret_cast<u32*>(seen) + e * pair_row(OBS);
#pragma unroll
    for (u32 i = 0; i < OBS; i += 2) pairs[i / 2] = bf16_pair(obs[i], i + 1 < OBS ? obs[(i + 1) % OBS] : 0.0f);
}

// Packed words of a layer: 64 of every tile, then 8 biases per tile of units.
__device__ __forceinline__ u32 packed_words(const Layer& y, bool last) {
    return unit_tiles(y, last) * (64 * depth_tiles(y) + 8);
}

__device__ __forceinline__ u32 packed_words(const Net& net) {
    u32 words = 0;
#pragma unroll 1
    for (u32 l = 0; l < net.layers; l++) words += packed_words(net.layer[l], l + 1 == net.layers);
    return words;
}

__device__ __forceinline__ void pack(const Net& net, const float* params, float* packed, u32 lane, u32 lanes) {
#pragma unroll 1
    for (u32 l = 0; l < net.layers; l++) {
        Layer y = net.layer[l];
        bool last = l + 1 == net.layers;
        u32 deep = depth_tiles(y), tiles = unit_tiles(y, last), words = 64 * deep * tiles;
        // words from input to input and from unit to unit
        u32 by_input = last ? 1 : y.output, by_unit = last ? y.input : 1;
        const float* weight = params + y.weight;
#pragma unroll 1
        for (u32 at = lane; at < words; at += lanes) {
            u32 tile = at / 64, of = at % 64 / 2;
            u32 unit = tile / deep * 8 + of / 4, input = tile % deep * 16 + of % 4 * 2 + at % 2 * 8;
            bool inside = unit < y.output;
            float low = inside && input < y.input ? weight[input * by_input + unit * by_unit] : 0.0f;
            float high = inside && input + 1 < y.input ? weight[(input + 1) * by_input + unit * by_unit] : 0.0f;
            packed[at] = __uint_as_float(bf16_pair(low, high));
        }
#pragma unroll 1
        for (u32 at = lane; at < 8 * tiles; at += lanes) {
            packed[words + at] = at < y.output ? params[y.bias + at] : 0.0f;
        }
        packed += packed_words(y, last);
    }
}

// Activates a lane's share of a tile and stores it for the next layer.
struct StoreTile {
    float (&sum)[4];
    u32* to;
    u32 row;
    template <u32 KIND>
    __device__ __forceinline__ void run() const {
        to[0] = bf16_pair(activate<KIND>(sum[0]), activate<KIND>(sum[1]));
        to[8 * row] = bf16_pair(activate<KIND>(sum[2]), activate<KIND>(sum[3]));
    }
};

// Layer `l` of one or two nets: a warp takes tiles of 16 rows x 8 units.
__device__ __forceinline__ void layer(const Net& first, const Net& second, const Ahead& one, const Ahead& two, u32 l,
                                      u32 rows) {
    u32 lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
    u32 shift = 31 - __clz(int(rows / 16));
    u32 tasks_one = l < one.layers ? unit_tiles(first.layer[l], l + 1 == one.layers) << shift : 0;
    u32 tasks_two = l < two.layers ? unit_tiles(second.layer[l], l + 1 == two.layers) << shift : 0;
#pragma unroll 1
    for (u32 task = threadIdx.x / 32; task < tasks_one + tasks_two; task += blockDim.x / 32) {
        bool other = task >= tasks_one;
        u32 at = other ? task - tasks_one : task;
        u32 top = (at & (rows / 16 - 1)) * 16 + group, tile = at >> shift;
        bool last = l + 1 == (other ? two.layers : one.layers);
        u32 input = other ? second.layer[l].input : first.layer[l].input;
        u32 deep = (input + 15) / 16, row = pair_row(l == 0 ? input : other ? two.wide : one.wide);
        u32 tiles = other ? unit_tiles(second.layer[l], last) : unit_tiles(first.layer[l], last);
        const float* weights = other ? two.weights : one.weights;
        const float* bias = weights + 64 * deep * tiles + 8 * tile + 2 * pair;
        const u32* from = reinterpret_cast<const u32*>(other ? two.from : one.from) + top * row + pair;
        const float* fragment = weights + (64 * deep * tile + 2 * lane);

        float sum[4] = {bias[0], bias[1], bias[0], bias[1]};
#pragma unroll 4
        for (u32 k = 0; k < deep; k++) {
            u32 a[4] = {from[0], from[8 * row], from[4], from[8 * row + 4]};
            float2 words = *reinterpret_cast<const float2*>(fragment);
            u32 b[2] = {__float_as_uint(words.x), __float_as_uint(words.y)};
            mma_m16n8k16_bf16(sum, a, b);
            from += 8;
            fragment += 64;
        }
        if (last) {
            float* out = (other ? two.out : one.out) + (8 * tile + 2 * pair) * unit_row(rows) + top;
            out[0] = sum[0];
            out[unit_row(rows)] = sum[1];
            out[8] = sum[2];
            out[unit_row(rows) + 8] = sum[3];
        } else {
            u32 wide = pair_row(other ? two.wide : one.wide);
            u32* to = reinterpret_cast<u32*>(other ? two.buffers : one.buffers) + (l & 1) * rows * wide;
            with_activation(other ? second.activation : first.activation,
                            StoreTile{sum, to + top * wide + 4 * tile + pair, wide});
        }
    }
}

// Sends `rows` rows (16, 32 or 64) through one or two nets. All lanes of the block call this together; the caller
// synchronizes before, the outputs are visible to the block after.
__device__ __forceinline__ void ahead(const Net& first, const Net& second, Ahead one, Ahead two, u32 rows) {
    u32 depth = max(one.layers, two.layers);
#pragma unroll 1
    for (u32 l = 0; l < depth; l++) {
        layer(first, second, one, two, l, rows);
        if (l < one.layers) one.weights += packed_words(first.layer[l], l + 1 == one.layers);
        if (l < two.layers) two.weights += packed_words(second.layer[l], l + 1 == two.layers);
        one.from = one.buffers + (l & 1) * rows * pair_row(one.wide);
        two.from = two.buffers + (l & 1) * rows * pair_row(two.wide);
        __syncthreads();
    }
}
