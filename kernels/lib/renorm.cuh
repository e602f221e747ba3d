// Hidden layers with Batch Renormalization behind them, column by column of a batch in scratch. Twin of
// src/op/lib/renorm.rs. A layer's parameters are weight, bias, scale, shift; the offsets of weight and bias are in `Net`.
#pragma once

#include "activation.cuh"
#include "core.cuh"
#include "trig.cuh"

namespace renorm {

__device__ __forceinline__ u32 scale(const Layer& y) { return y.bias + y.output; }
__device__ __forceinline__ u32 shift(const Layer& y) { return y.bias + 2 * y.output; }

// Units of the hidden layers before layer l, and of all.
__device__ __forceinline__ u32 units_before(const Net& net, u32 l) {
    u32 sum = 0;
    for (u32 i = 0; i < l; i++) sum += net.layer[i].output;
    return sum;
}
__device__ __forceinline__ u32 units(const Net& net) { return units_before(net, net.layers - 1); }

// A block has COLUMNS columns and PARTS lanes to each: neighboring lanes have neighboring columns.
constexpr u32 COLUMNS = 32, PARTS = 8, LANES = COLUMNS * PARTS;

// Replaces each lane's sum over its rows by that of its column, part by part. `parts` has LANES words.
__device__ __forceinline__ float column_sum(float x, float* parts) {
    u32 column = threadIdx.x % COLUMNS;
    __syncthreads();
    parts[threadIdx.x] = x;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) sum += parts[part * COLUMNS + column];
    return sum;
}

// A lane's rows of a column: `live` of `rows` hold something, the others become zeros.
struct Column {
    float* z;
    float* acts;
    // null where slopes do not need it
    float* before;
    u32 row_words;
    u32 live;
    u32 rows;
    float mean;
    float inv_std;
    float gain;
    float base;

    // z = (z - mean) inv_std, acts = f(gain z + base)
    template <u32 KIND>
    __device__ __forceinline__ void run() const {
#pragma unroll 1
        for (u32 row = threadIdx.x / COLUMNS; row < rows; row += PARTS) {
            u64 at = u64(row) * row_words;
            bool there = row < live;
            float x = there ? (z[at] - mean) * inv_std : 0.0f, value = gain * x + base;
            z[at] = x;
            if (before != nullptr) before[at] = there ? value : 0.0f;
            acts[at] = there ? activate<KIND>(value) : 0.0f;
        }
    }
};

}  // namespace renorm
