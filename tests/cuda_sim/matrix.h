// Matrix units: warp-wide products of small tiles with the fragment layouts of the PTX ISA. Part of cuda_cpu.h.
#pragma once

namespace cusim {

// The two bfloat16 numbers in a word, low half first, as they are in f32.
inline float bf16_low(unsigned word) { return cast_bits<float>(word << 16); }
inline float bf16_high(unsigned word) { return cast_bits<float>(word & 0xFFFF0000u); }

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
struct MatrixProduct {
    const unsigned* a;  // 4 words
    const unsigned* b;  // 2 words
    float* d;           // 4 words, the sum so far and the result
};

inline void resolve_matrix_product(Thread* const* threads, unsigned count) {
    if (count != WARP) return complain("mma needs all 32 lanes");
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < WARP; lane++) {
        const MatrixProduct& mine = operands_of<MatrixProduct>(threads[lane]);
        unsigned group = lane / 4, pair = lane % 4 * 2;
        // words of A: rows group and group + 8 of the left half, then of the right half
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = group + i % 2 * 8, column = pair + i / 2 * 8;
            a[row][column] = bf16_low(mine.a[i]);
            a[row][column + 1] = bf16_high(mine.a[i]);
        }
        // words of B: rows pair, pair + 1 of the upper half, then of the lower half
        for (unsigned i = 0; i < 2; i++) {
            b[pair + i * 8][group] = bf16_low(mine.b[i]);
            b[pair + i * 8 + 1][group] = bf16_high(mine.b[i]);
        }
    }
    for (unsigned lane = 0; lane < WARP; lane++) {
        float* d = operands_of<MatrixProduct>(threads[lane]).d;
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            // products of bfloat16 are exact; their sum is taken in f64 by rising k, then joined and rounded once
            double sum = 0.0;
            for (unsigned k = 0; k < 16; k++) sum += double(a[row][k]) * double(b[k][column]);
            d[i] = float(double(d[i]) + sum);
        }
    }
}

constexpr Collective MATRIX_PRODUCT = {"mma.m16n8k16.bf16", false, resolve_matrix_product};

// ldmatrix.sync.aligned.m8n8.x{1,2,4}{,.trans}.shared.b16: lane l names row l % 8 of matrix l / 8
struct MatrixLoad {
    const void* row;
    unsigned matrices;
    bool transposed;
    unsigned* words;
};

inline void resolve_matrix_load(Thread* const* threads, unsigned count) {
    if (count != WARP) return complain("ldmatrix needs all 32 lanes");
    for (unsigned lane = 0; lane < WARP; lane++) {
        const MatrixLoad& mine = operands_of<MatrixLoad>(threads[lane]);
        for (unsigned m = 0; m < mine.matrices; m++) {
            auto number = [&](unsigned row, unsigned column) {
                const char* at = static_cast<const char*>(operands_of<MatrixLoad>(threads[m * 8 + row]).row);
                if ((unsigned long long)at % 16 != 0) complain("a row of ldmatrix is not aligned to 16 bytes");
                unsigned short number;
                __builtin_memcpy(&number, at + 2 * column, sizeof number);
                return unsigned(number);
            };
            unsigned group = lane / 4, pair = lane % 4 * 2;
            mine.words[m] = mine.transposed ? number(pair, group) | number(pair + 1, group) << 16
                                            : number(group, pair) | number(group, pair + 1) << 16;
        }
    }
}

constexpr Collective MATRIX_LOAD = {"ldmatrix", false, resolve_matrix_load};

}  // namespace cusim

// d += a b: a is 16 x 16 by rows, b is 16 x 8 by columns, both bfloat16 in pairs
static inline void mma_m16n8k16_bf16(float* d, const unsigned* a, const unsigned* b, CUSIM_SITE) {
    cusim::MatrixProduct operands = {a, b, d};
    cusim::meet(cusim::MATRIX_PRODUCT, ~0u, &operands, file, line);
}

template <unsigned MATRICES, bool TRANSPOSED = false>
static inline void ldmatrix(unsigned* words, const void* row, CUSIM_SITE) {
    static_assert(MATRICES == 1 || MATRICES == 2 || MATRICES == 4, "1, 2 or 4 matrices");
    cusim::MatrixLoad operands = {row, MATRICES, TRANSPOSED, words};
    cusim::meet(cusim::MATRIX_LOAD, ~0u, &operands, file, line);
}
