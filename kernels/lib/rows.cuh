// Rows of a batch: gathered into matrices, and sums over the lanes that hold them.
#pragma once

#include "mlp.cuh"
#include "trig.cuh"

// What observations go through before a net sees them: shift and scale of every word, then a clip; or nothing.
struct Normalizing {
    u32 on;
    const float* normalizer;
    float low;
    float high;
};

// Copies `words` words of ROWS rows, normalized where asked; rows from `rows` on become zeros, and so do the words behind
// an observation. Neighboring lanes take neighboring words of a row.
template <u32 ROWS, u32 LANES>
__device__ __forceinline__ void gather_rows(const float* matrix, u32 words, const Normalizing& by, const u32* index,
                                            u32 rows, float* x, u32 x_row, u32 lane) {
    u32 across = 4;
    while (across < 32 && across < x_row) across *= 2;
    for (u32 row = lane / across; row < ROWS; row += LANES / across) {
        const float* from = matrix + u64(row < rows ? index[row] : 0) * words;
        for (u32 o = lane % across; o < x_row; o += across) {
            float v = 0.0f;
            if (row < rows && o < words) {
                v = from[o];
                if (by.on) v = trig::clamp((v - by.normalizer[o]) * by.normalizer[words + o], by.low, by.high);
            }
            x[row * x_row + o] = v;
        }
    }
}

// Sum over the block of one number per lane: within warps as a tree, then warp by warp. `warps` is LANES / 32 words of
// shared memory that no one else uses any more.
template <u32 LANES>
__device__ __forceinline__ float block_sum(float x, float* warps, u32 lane) {
#pragma unroll
    for (u32 apart = 16; apart > 0; apart /= 2) x += __shfl_xor_sync(~0u, x, apart);
    __syncthreads();
    if (lane % 32 == 0) warps[lane / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < LANES / 32; warp++) sum += warps[warp];
    return sum;
}
