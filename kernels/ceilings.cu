// What a device can do at most: words copied, multiply-adds, matrix products. No op: the figures that ops are compared
// with.

#include "lib/mma.cuh"

struct CeilingsShape {
    u32 words;
    u32 rounds;
};

struct CeilingsArgs {
    Read<float> from;  // [words]
    Write<float> to;   // [words]
    Update<float> scratch;
};

constexpr u32 THREADS = 256;
// float4s that a lane has under way at once
constexpr u32 EACH = 8;
// independent sums of a lane: two lanes' worth of a multiply-add's latency
constexpr u32 SUMS = 8;

// A tile copies 32 KiB: every warp reads and writes 512 bytes in a row. 8 bytes a word, no arithmetic: bound by memory
// alone. No order to keep.
extern "C" __global__ void __launch_bounds__(THREADS)
    ceiling_copy(__grid_constant__ const CeilingsShape d, __grid_constant__ const Sessions sessions,
                 __grid_constant__ const CeilingsArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const float4* from = reinterpret_cast<const float4*>(a.from.of(s));
    float4* to = reinterpret_cast<float4*>(a.to.of(s));

    // all loads before the first store, so that they wait for memory together
    u32 first = blockIdx.x * THREADS * EACH + threadIdx.x, quads = d.words / 4;
    float4 held[EACH];
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        if (first + i * THREADS < quads) held[i] = from[first + i * THREADS];
    }
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        if (first + i * THREADS < quads) to[first + i * THREADS] = held[i];
    }
}

// A lane has SUMS chains of `rounds` multiply-adds in registers, 2 FLOPs each: bound by the FMA units alone. No order to
// keep.
extern "C" __global__ void __launch_bounds__(THREADS)
    ceiling_fma(__grid_constant__ const CeilingsShape d, __grid_constant__ const Sessions sessions,
                __grid_constant__ const CeilingsArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    float factor = a.from.of(s)[0];
    float sum[SUMS];
#pragma unroll
    for (u32 i = 0; i < SUMS; i++) sum[i] = float(threadIdx.x + i);

    // unrolled, so that the loop's own instructions do not count
#pragma unroll 16
    for (u32 round = 0; round < d.rounds; round++) {
#pragma unroll
        for (u32 i = 0; i < SUMS; i++) sum[i] = fmaf(sum[i], factor, factor);
    }

    // stored by one lane alone; without it, the compiler would leave everything out
    float total = 0.0f;
#pragma unroll
    for (u32 i = 0; i < SUMS; i++) total += sum[i];
    if (blockIdx.x == 0 || total != total) a.to.of(s)[threadIdx.x] = total;
}

// A warp has SUMS chains of `rounds` products of bfloat16 tiles, 4,096 FLOPs each: bound by the matrix units as `mma.sync`
// uses them. No order to keep.
extern "C" __global__ void __launch_bounds__(THREADS)
    ceiling_mma(__grid_constant__ const CeilingsShape d, __grid_constant__ const Sessions sessions,
                __grid_constant__ const CeilingsArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    u32 word = __float_as_uint(a.from.of(s)[0]);
    u32 left[4] = {word, word, word, word}, right[2] = {word, word};
    float sum[SUMS][4];
#pragma unroll
    for (u32 i = 0; i < SUMS; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) sum[i][j] = float(threadIdx.x + i);
    }

#pragma unroll 4
    for (u32 round = 0; round < d.rounds; round++) {
#pragma unroll
        for (u32 i = 0; i < SUMS; i++) mma_m16n8k16_bf16(sum[i], left, right);
    }

    // as above
    float total = 0.0f;
#pragma unroll
    for (u32 i = 0; i < SUMS; i++) total += sum[i][0] + sum[i][1] + sum[i][2] + sum[i][3];
    if (blockIdx.x == 0 || total != total) a.to.of(s)[threadIdx.x] = total;
}
