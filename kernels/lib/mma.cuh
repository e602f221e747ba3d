// Matrix units: warp-wide products of bfloat16 tiles with sums in f32, and what feeds them. The tests' simulator has
// `mma_m16n8k16_bf16` and `ldmatrix` of its own, with the same fragments.
//
// Fragments (PTX ISA): lane l stands at g = l / 4, p = 2 (l % 4). Of C (16 x 8) it holds (g, p), (g, p + 1), (g + 8, p),
// (g + 8, p + 1); of A (16 x 16) pairs along k at (g, p), (g + 8, p), (g, p + 8), (g + 8, p + 8); of B (16 x 8) pairs
// along k at (p, g), (p + 8, g).
#pragma once

#include "core.cuh"

#ifndef CUDA_CPU_SIM
// d += a b: a is 16 x 16 by rows, b is 16 x 8 by columns, both bfloat16 in pairs.
__device__ __forceinline__ void mma_m16n8k16_bf16(float* d, const u32* a, const u32* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads 8 x 8 matrices of bfloat16 from shared memory: lane l names row l % 8 of matrix l / 8, 16 aligned bytes.
template <u32 MATRICES, bool TRANSPOSED = false>
__device__ __forceinline__ void ldmatrix(u32* words, const void* row) {
    u32 at;
    asm("{ .reg .u64 p; cvta.to.shared.u64 p, %1; cvt.u32.u64 %0, p; }" : "=r"(at) : "l"(row));
    if (MATRICES == 4 && !TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(at) : "memory");
    } else if (MATRICES == 4) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(at) : "memory");
    } else {
        static_assert(MATRICES == 4 || (MATRICES == 2 && TRANSPOSED), "the ones that kernels use");
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(words[0]), "=r"(words[1]) : "r"(at) : "memory");
    }
}
#endif

// Two numbers as bfloat16, rounded to nearest even, `low` in the low half.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
#ifdef CUDA_CPU_SIM
    u32 halves[2] = {__float_as_uint(low), __float_as_uint(high)};
    for (u32& half : halves) {
        bool number = (half & 0x7FFFFFFFu) <= 0x7F800000u;
        half = number ? (half + 0x7FFFu + (half >> 16 & 1)) >> 16 : 0x7FFFu;
    }
    return halves[1] << 16 | halves[0];
#else
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#endif
}

__device__ __forceinline__ float low_bf16(u32 word) { return __uint_as_float(word << 16); }

__device__ __forceinline__ float high_bf16(u32 word) { return __uint_as_float(word & 0xFFFF0000u); }

// Words from row to row of a matrix of bfloat16 in shared memory: whole sixteens of columns in an odd number of 16-byte
// pieces, so that the eight rows of an 8 x 8 matrix meet different banks.
__device__ __forceinline__ u32 half_row(u32 columns) { return 4 * ((columns + 15) / 16 * 2 | 1); }

// A of rows `row`.. and depths `k`.. of a matrix [row, k].
__device__ __forceinline__ void load_a(u32 (&a)[4], const u32* matrix, u32 row_words, u32 row, u32 k, u32 lane) {
    ldmatrix<4>(a, matrix + (row + lane % 16) * row_words + (k + lane / 16 * 8) / 2);
}

// A of rows `row`.. and depths `k`.. of a matrix [k, row].
__device__ __forceinline__ void load_a_turned(u32 (&a)[4], const u32* matrix, u32 row_words, u32 row, u32 k, u32 lane) {
    u32 depth = k + lane / 16 * 8 + lane % 8, col = row + lane / 8 % 2 * 8;
    ldmatrix<4, true>(a, matrix + depth * row_words + col / 2);
}

// B of two tiles of columns, `col`.. and `col` + 8.., and depths `k`.. of a matrix [k, col]; of [col, k] where TURNED.
template <bool TURNED>
__device__ __forceinline__ void load_b(u32 (&b)[4], const u32* matrix, u32 row_words, u32 k, u32 col, u32 lane) {
    if (TURNED) {
        u32 row = col + lane / 16 * 8 + lane % 8;
        ldmatrix<4>(b, matrix + row * row_words + (k + lane / 8 % 2 * 8) / 2);
    } else {
        ldmatrix<4, true>(b, matrix + (k + lane % 16) * row_words + (col + lane / 16 * 8) / 2);
    }
}
