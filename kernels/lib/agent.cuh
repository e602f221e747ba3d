// The nets of an agent ahead, side by side, on a few rows: a phase computes one layer of actor and critic together, so
// a pass has as many barriers as the deeper net has layers. Twin of `forward` in src/op/lib/mlp.rs for few rows.
//
// Rows are the environments of a block. Activations are [units, ROW] with the rows of the batch along words, so that a
// lane takes four rows with one load; ROW is 4 modulo the 32 banks or 20, so eight units of four rows meet 32 banks.
// Weights are packed: hidden layers [input, output] then bias, the last [output, input] then bias, every side padded to
// four words with zeros, so no loop has a rest. Sums run over inputs in order within a lane and fuse (fmaf); a last
// layer's sum is cut in eight by the lanes and joined in a fixed tree.
#pragma once

#include "activation.cuh"
#include "ahead.cuh"

// Packed words of a layer.
__device__ __forceinline__ u32 packed_words(const Layer& y) { return (whole4(y.input) + 1) * whole4(y.output); }

// Words of the observations of a block.
template <u32 OBS>
__device__ __forceinline__ u32 seen_words(u32 rows) {
    return whole4(OBS) * unit_row(rows);
}

// Words of the activations of a net whose widest hidden layer has `wide` units: two layers, and the outputs.
__device__ __forceinline__ u32 buffer_words(u32 wide, u32 rows) { return 2 * wide * unit_row(rows); }
__device__ __forceinline__ u32 out_words(const Net& net, u32 rows) {
    return net.layers ? whole4(net.layer[net.layers - 1].output) * unit_row(rows) : 0;
}

// Writes what the nets see of row `e`.
template <u32 OBS>
__device__ __forceinline__ void see(const float (&obs)[OBS], float* seen, u32 e, u32 rows) {
#pragma unroll
    for (u32 i = 0; i < OBS; i++) seen[i * unit_row(rows) + e] = obs[i];
}

// Packed words of a net.
__device__ __forceinline__ u32 packed_words(const Net& net) {
    u32 words = 0;
#pragma unroll 1
    for (u32 l = 0; l < net.layers; l++) words += packed_words(net.layer[l]);
    return words;
}

// Packs a layer's parameters; `lane` counts `lanes` lanes from 0. No barrier.
__device__ __forceinline__ void pack_layer(Layer y, bool last, const float* params, float* packed, u32 lane,
                                           u32 lanes) {
    u32 rows = last ? y.output : y.input, cols = last ? y.input : y.output;
    u32 wide = whole4(cols), words = whole4(rows) * wide;
#pragma unroll 1
    for (u32 at = lane; at < words; at += lanes) {
        u32 row = at / wide, col = at - row * wide;
        packed[at] = row < rows && col < cols ? params[y.weight + row * cols + col] : 0.0f;
    }
#pragma unroll 1
    for (u32 at = lane; at < whole4(y.output); at += lanes) {
        packed[words + at] = at < y.output ? params[y.bias + at] : 0.0f;
    }
}

// Packs all layers of a net.
__device__ __forceinline__ void pack(const Net& net, const float* params, float* packed, u32 lane, u32 lanes) {
#pragma unroll 1
    for (u32 l = 0; l < net.layers; l++) {
        pack_layer(net.layer[l], l + 1 == net.layers, params, packed, lane, lanes);
        packed += packed_words(net.layer[l]);
    }
}

// Activates a lane's own sums where they lie: a second pass keeps the code of nine activations small.
struct InPlace {
    float* to;
    u32 row;
    u32 units;
    template <u32 KIND>
    __device__ __forceinline__ void run() const {
#pragma unroll 1
        for (u32 j = 0; j < units; j++) {
            float4* unit = reinterpret_cast<float4*>(to + j * row);
            float4 v = *unit;
            *unit = {activate<KIND>(v.x), activate<KIND>(v.y), activate<KIND>(v.z), activate<KIND>(v.w)};
        }
    }
};

// Sums of four rows of ROWS and UNITS units of a hidden layer.
template <u32 ROWS, u32 UNITS>
__device__ __forceinline__ void hidden_tile(const float* weights, u32 input, u32 wide, const float* from, float* to) {
    const u32 row = unit_row(ROWS);
    float sum[UNITS][4];
#pragma unroll
    for (u32 j = 0; j < UNITS; j++) {
        float bias = weights[input * wide + j];
#pragma unroll
        for (u32 i = 0; i < 4; i++) sum[j][i] = bias;
    }
#pragma unroll(UNITS == 4 ? 1 : 2)
    for (u32 k = 0; k < input; k += 4) {
#pragma unroll
        for (u32 step = 0; step < 4; step++) {
            float weight[UNITS];
            if (UNITS == 4) {
                float4 four = *reinterpret_cast<const float4*>(weights + step * wide);
                weight[0] = four.x, weight[1 % UNITS] = four.y, weight[2 % UNITS] = four.z, weight[3 % UNITS] = four.w;
            } else if (UNITS == 2) {
                float2 two = *reinterpret_cast<const float2*>(weights + step * wide);
                weight[0] = two.x, weight[1 % UNITS] = two.y;
            } else {
                weight[0] = weights[step * wide];
            }
            float4 x = *reinterpret_cast<const float4*>(from + step * row);
#pragma unroll
            for (u32 j = 0; j < UNITS; j++) {
                sum[j][0] = fmaf(x.x, weight[j], sum[j][0]);
                sum[j][1] = fmaf(x.y, weight[j], sum[j][1]);
                sum[j][2] = fmaf(x.z, weight[j], sum[j][2]);
                sum[j][3] = fmaf(x.w, weight[j], sum[j][3]);
            }
        }
        weights += 4 * wide;
        from += 4 * row;
    }
#pragma unroll
    for (u32 j = 0; j < UNITS; j++) {
        *reinterpret_cast<float4*>(to + j * row) = {sum[j][0], sum[j][1], sum[j][2], sum[j][3]};
    }
}

// Layer `l` of one or two nets where it is a hidden one. A lane takes four rows of as many units as keep all lanes of a
// block of the usual nets busy: one, two or four.
__device__ __forceinline__ void hidden(const Net& first, const Net& second, const Ahead& one, const Ahead& two, u32 l,
                                       u32 rows) {
    u32 quads = rows / 4, shift = 31 - __clz(int(quads)), row = unit_row(rows);
    u32 units = rows <= 8 ? 1 : rows / 8;
    u32 tiles_one = l + 1 < one.layers ? whole4(first.layer[l].output) / units * quads : 0;
    u32 tiles_two = l + 1 < two.layers ? whole4(second.layer[l].output) / units * quads : 0;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < tiles_one + tiles_two; i += blockDim.x) {
        bool other = i >= tiles_one;
        u32 tile = other ? i - tiles_one : i;
        // neighboring lanes have neighboring rows: `quads` is a power of two
        u32 at = (tile & (quads - 1)) * 4, unit = (tile >> shift) * units;
        u32 input = whole4(other ? second.layer[l].input : first.layer[l].input);
        u32 wide = whole4(other ? second.layer[l].output : first.layer[l].output);
        const float* weights = (other ? two.weights : one.weights) + unit;
        const float* from = (other ? two.from : one.from) + at;
        float* to = (other ? two.buffers + (l & 1) * two.wide * row : one.buffers + (l & 1) * one.wide * row);
        to += unit * row + at;
        switch (rows) {
            case 4: hidden_tile<4, 1>(weights, input, wide, from, to); break;
            case 8: hidden_tile<8, 1>(weights, input, wide, from, to); break;
            case 16: hidden_tile<16, 2>(weights, input, wide, from, to); break;
            default: hidden_tile<32, 4>(weights, input, wide, from, to);
        }
        with_activation(other ? second.activation : first.activation, InPlace{to, row, units});
    }
}

// The last layer of one or two nets, where `l` is the last: a warp takes four rows of a net, eight lanes to a row.
__device__ __forceinline__ void last(const Net& first, const Net& second, const Ahead& one, const Ahead& two, u32 l,
                                     u32 rows) {
    u32 quads = rows / 4, row = unit_row(rows), lane = threadIdx.x % 32;
    u32 tasks_one = l + 1 == one.layers ? quads : 0, tasks_two = l + 1 == two.layers ? quads : 0;
#pragma unroll 1
    for (u32 task = threadIdx.x / 32; task < tasks_one + tasks_two; task += blockDim.x / 32) {
        bool other = task >= tasks_one;
        u32 at = (other ? task - tasks_one : task) * 4 + lane % 4, part = lane / 4;
        u32 input = other ? second.layer[l].input : first.layer[l].input;
        u32 output = other ? second.layer[l].output : first.layer[l].output;
        u32 wide = whole4(input);
        const float* weights = other ? two.weights : one.weights;
        const float* bias = weights + whole4(output) * wide;
        const float* from = (other ? two.from : one.from) + at;
        float* out = (other ? two.out : one.out) + at;
#pragma unroll 1
        for (u32 o = 0; o < output; o += 4) {
            float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
            for (u32 k = part; k < wide; k += 8) {
                float x = from[k * row];
#pragma unroll
                for (u32 j = 0; j < 4; j++) sum[j] = fmaf(x, weights[(o + j) * wide + k], sum[j]);
            }
#pragma unroll
            for (u32 apart = 4; apart < 32; apart *= 2) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) sum[j] += __shfl_xor_sync(~0u, sum[j], apart);
            }
            float mine = part == 0 ? sum[0] : part == 1 ? sum[1] : part == 2 ? sum[2] : sum[3];
            if (part < 4) out[(o + part) * row] = mine + bias[o + part];
        }
    }
}

// Sends `rows` rows (4, 8, 16 or 32) through one or two nets. All lanes of the block call this together; the caller
// synchronizes before, the outputs are visible to the block after.
__device__ __forceinline__ void ahead(const Net& first, const Net& second, Ahead one, Ahead two, u32 rows) {
    u32 row = unit_row(rows), depth = max(one.layers, two.layers);
#pragma unroll 1
    for (u32 l = 0; l < depth; l++) {
        hidden(first, second, one, two, l, rows);
        last(first, second, one, two, l, rows);
        if (l < one.layers) one.weights += packed_words(first.layer[l]);
        if (l < two.layers) two.weights += packed_words(second.layer[l]);
        one.from = one.buffers + (l & 1) * one.wide * row;
        two.from = two.buffers + (l & 1) * two.wide * row;
        __syncthreads();
    }
}
