// Sums, moments and counts over the lanes of a block. Twin of src/op/lib/sums.rs in meaning, not in order: the order
// here is a butterfly over the lanes of a warp, then over the warps, and depends on the size of the block alone.
#pragma once

#include "core.cuh"

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// Sum over the lanes of a warp; every lane has it.
__device__ __forceinline__ double warp_sum(double x) {
    for (u32 apart = WARP / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(ALL_LANES, x, apart);
    return x;
}

// Numbers that `block_sums` takes at most.
constexpr u32 SUMS = 4;

// Where warps meet; no template, so that all sums of a kernel share it.
__device__ __forceinline__ double* sum_parts() {
    __shared__ double parts[SUMS * WARP];
    return parts;
}

// Replaces each of K numbers by its sum over the lanes of the block. All lanes must come here.
template <u32 K>
__device__ __forceinline__ void block_sums(double (&x)[K]) {
    static_assert(K <= SUMS, "there is room for so many");
    double* parts = sum_parts();
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
#pragma unroll
    for (u32 k = 0; k < K; k++) {
        x[k] = warp_sum(x[k]);
        if (lane == 0) parts[k * WARP + warp] = x[k];
    }
    __syncthreads();
    // every warp adds up the parts for itself: cheaper than handing the sum around
#pragma unroll
    for (u32 k = 0; k < K; k++) x[k] = warp_sum(lane < warps ? parts[k * WARP + lane] : 0.0);
    // the parts are free again
    __syncthreads();
}

// Number of values, their mean and sum of squared deviations.
struct Moments3 {
    double count;
    double mean;
    double m2;
};

// Joins the moments of two sets (Chan et al. 1979).
__device__ __forceinline__ Moments3 merge(Moments3 a, Moments3 b) {
    double count = a.count + b.count;
    if (count == 0.0) return a;
    double delta = b.mean - a.mean;
    return {count, a.mean + delta * (b.count / count), a.m2 + b.m2 + delta * delta * (a.count * b.count / count)};
}

// Moments of `count` values from the sums of their distances to a pivot and of the squares of those. Exact enough where
// the pivot is one of the values, or near them; no pass over the values for the mean alone.
__device__ __forceinline__ Moments3 moments_about(double pivot, double count, double sum, double squares) {
    if (count == 0.0) return {0.0, 0.0, 0.0};
    double off = sum / count, m2 = squares - sum * off;
    return {count, pivot + off, m2 < 0.0 ? 0.0 : m2};
}

// Joins the moments of a warp's lanes in a tree; lane 0 has the result.
__device__ __forceinline__ Moments3 warp_merge(Moments3 x) {
#pragma unroll 1
    for (u32 apart = WARP / 2; apart > 0; apart /= 2) {
        Moments3 other = {__shfl_down_sync(ALL_LANES, x.count, apart), __shfl_down_sync(ALL_LANES, x.mean, apart),
                          __shfl_down_sync(ALL_LANES, x.m2, apart)};
        x = merge(x, other);
    }
    return x;
}

// Joins the moments of a block's lanes; lane 0 of the block has the result. All lanes must come here.
__device__ __forceinline__ Moments3 block_merge(Moments3 x) {
    __shared__ Moments3 parts[WARP];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    x = warp_merge(x);
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    if (warp == 0) x = warp_merge(lane < warps ? parts[lane] : Moments3{0.0, 0.0, 0.0});
    __syncthreads();
    return x;
}

// Sum of `x` over the lanes before this one, and over all lanes of the block. All lanes must come here.
__device__ __forceinline__ u32 block_scan(u32 x, u32& total) {
    __shared__ u32 parts[WARP];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP, own = x;
    for (u32 apart = 1; apart < WARP; apart *= 2) {
        u32 before = __shfl_up_sync(ALL_LANES, x, apart);
        if (lane >= apart) x += before;
    }
    if (lane == WARP - 1) parts[warp] = x;
    __syncthreads();
    u32 ahead = lane < warps ? parts[lane] : 0;
    for (u32 apart = 1; apart < WARP; apart *= 2) {
        u32 before = __shfl_up_sync(ALL_LANES, ahead, apart);
        if (lane >= apart) ahead += before;
    }
    total = __shfl_sync(ALL_LANES, ahead, WARP - 1);
    u32 base = __shfl_sync(ALL_LANES, ahead, warp == 0 ? 0 : warp - 1);
    __syncthreads();
    return x - own + (warp == 0 ? 0 : base);
}

// Whether a float is a number and not infinite.
__device__ __forceinline__ bool is_finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }
