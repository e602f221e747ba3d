// Fragments of products on the matrix units (matrix.cuh), from matrices of bfloat16 in shared memory, rows of pairs. The
// tests' simulator has an `ldmatrix` of its own.
#pragma once

#include "matrix.cuh"

// Where a lane reads matrices of bfloat16 in shared memory. An address there has 32 bits: made of a pointer once, it moves
// by additions, and a constant one is part of the instruction that loads.
#ifdef CUDA_CPU_SIM
typedef const u32* Place;

__device__ __forceinline__ Place place(const u32* at) { return at; }
#else
struct Place {
    u32 bytes;
    __device__ __forceinline__ Place operator+(u32 words) const { return {bytes + 4 * words}; }
};

__device__ __forceinline__ Place place(const u32* at) {
    Place found;
    asm("{ .reg .u64 p; cvta.to.shared.u64 p, %1; cvt.u32.u64 %0, p; }" : "=r"(found.bytes) : "l"(at));
    return found;
}

// Loads 8 x 8 matrices of bfloat16 from shared memory: lane l names row l % 8 of matrix l / 8, 16 aligned bytes.
template <u32 MATRICES, bool TRANSPOSED = false>
__device__ __forceinline__ void ldmatrix(u32* words, Place row) {
    if (MATRICES == 4 && !TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(row.bytes) : "memory");
    } else if (MATRICES == 4) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(row.bytes) : "memory");
    } else {
        static_assert(MATRICES == 4 || (MATRICES == 2 && TRANSPOSED), "the ones that kernels use");
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(words[0]), "=r"(words[1]) : "r"(row.bytes) : "memory");
    }
}
#endif

// The two numbers of a pair.
__device__ __forceinline__ float low_bf16(u32 word) { return __uint_as_float(word << 16); }

__device__ __forceinline__ float high_bf16(u32 word) { return __uint_as_float(word & 0xFFFF0000u); }

// Words from row to row of a matrix of bfloat16 in shared memory: whole sixteens of columns in an odd number of 16-byte
// pieces, so that the eight rows of an 8 x 8 matrix meet different banks.
__device__ __forceinline__ u32 half_row(u32 columns) { return 4 * ((columns + 15) / 16 * 2 | 1); }

// A of a matrix [row, k].
struct Left {
    Place at;
    u32 row_words;
    __device__ __forceinline__ Left(const u32* matrix, u32 row_words, u32 lane)
        : at(place(matrix + lane % 16 * row_words + lane / 16 * 4)), row_words(row_words) {}
    // rows `row`.. and depths `k`..
    __device__ __forceinline__ void load(u32 (&a)[4], u32 row, u32 k) const {
        ldmatrix<4>(a, at + (row * row_words + k / 2));
    }
};

// A of a matrix [k, row].
struct LeftTurned {
    Place at;
    u32 row_words;
    __device__ __forceinline__ LeftTurned(const u32* matrix, u32 row_words, u32 lane)
        : at(place(matrix + (lane / 16 * 8 + lane % 8) * row_words + lane / 8 % 2 * 4)), row_words(row_words) {}
    __device__ __forceinline__ void load(u32 (&a)[4], u32 row, u32 k) const {
        ldmatrix<4, true>(a, at + (k * row_words + row / 2));
    }
};

// B of a matrix [k, col]; of [col, k] where TURNED.
template <bool TURNED>
struct Right {
    Place at;
    u32 row_words;
    __device__ __forceinline__ Right(const u32* matrix, u32 row_words, u32 lane)
        : at(place(TURNED ? matrix + (lane / 16 * 8 + lane % 8) * row_words + lane / 8 % 2 * 4
                          : matrix + lane % 16 * row_words + lane / 16 * 4)),
          row_words(row_words) {}
    // two tiles of columns, `col`.. and `col` + 8.., and depths `k`..
    __device__ __forceinline__ void load(u32 (&b)[4], u32 k, u32 col) const {
        ldmatrix<4, !TURNED>(b, at + (TURNED ? col * row_words + k / 2 : k * row_words + col / 2));
    }
    // one tile of columns
    __device__ __forceinline__ void load_one(u32 (&b)[4], u32 k, u32 col) const {
        static_assert(!TURNED, "nobody needs the other");
        ldmatrix<2, true>(b, at + (k * row_words + col / 2));
    }
};
