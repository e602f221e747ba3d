// Fragments of products on the matrix units (matrix.cuh), from matrices of bfloat16 in shared memory, rows of pairs. The
// tests' simulator has an `ldmatrix` of its own.
#pragma once

#include "matrix.cuh"

#ifndef CUDA_CPU_SIM
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

// The two numbers of a pair.
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
