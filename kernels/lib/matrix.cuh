// Matrix units: a warp multiplies a 16 x 16 by a 16 x 8 tile of bfloat16 numbers and adds in f32.
//
// Fragments are those of the PTX ISA. With g = lane / 4 and p = 2 (lane % 4), a lane holds of A the pairs that begin at
// (g, p), (g + 8, p), (g, p + 8), (g + 8, p + 8); of B the pairs down column g that begin at rows p and p + 8; of D
// (g, p), (g, p + 1), (g + 8, p), (g + 8, p + 1). On the CPU the simulator of the tests multiplies.
#pragma once

#include "core.cuh"

// Two numbers rounded to bfloat16, to nearest even, the first in the low half.
__device__ __forceinline__ u32 bf16_pair(float low, float high) {
#ifdef CUDA_CPU_SIM
    u32 words[2] = {__float_as_uint(low), __float_as_uint(high)};
    for (u32& word : words) {
        bool nan = (word & 0x7FFFFFFFu) > 0x7F800000u;
        word = nan ? 0x7FFFu : (word + 0x7FFFu + ((word >> 16) & 1)) >> 16;
    }
    return words[0] | words[1] << 16;
#else
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

#ifndef CUDA_CPU_SIM
// d += a b; all lanes of the warp together.
__device__ __forceinline__ void mma_m16n8k16_bf16(float* d, const u32* a, const u32* b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
