// Products of layered.cuh on the matrix units: operands are rounded to bfloat16 on their way into shared memory, sums
// are f32. Four warps take 16 rows of a product each, or a quarter of a weight's gradient.
#pragma once

#include "layered.cuh"
#include "mlp_bf16.cuh"

namespace layered {

struct Half {
    static constexpr u32 ROW = Fused::HALF_STRIDE / 2, TILE = ROWS * ROW, WORDS = 2 * TILE;
    static_assert(WORDS >= ROWS * Fused::STRIDE, "a tile of results takes the operands' place");
    // sixteen columns at a time; gradients: 2 x 4 tiles of C
    float sum[4][2][4];
    u32 lane, in_warp;

    __device__ __forceinline__ Half(u32 lane) : lane(lane), in_warp(lane % 32) { clear_outer(); }

    static __device__ __forceinline__ float operand(float x) { return low_bf16(bf16_pair(x, 0.0f)); }

    __device__ __forceinline__ void load(u32* to, const float* from, u32 from_row, u32 cols) const {
        u32 col = 4 * (lane % 16);
#pragma unroll
        for (u32 i = 0; i < ROWS / 8; i++) {
            u32 row = lane / 16 + 8 * i;
            float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
            if (col < cols) v = load4(from + u64(row) * from_row + col);
            u32* word = to + row * ROW + col / 2;
            word[0] = bf16_pair(v.x, v.y);
            word[1] = bf16_pair(v.z, v.w);
        }
    }
    __device__ __forceinline__ void load_left(float* shared, const float* from, u32 from_row, u32 cols) const {
        load(reinterpret_cast<u32*>(shared), from, from_row, cols);
    }
    __device__ __forceinline__ void load_right(float* shared, const float* from, u32 from_row, u32 cols) const {
        load(reinterpret_cast<u32*>(shared) + TILE, from, from_row, cols);
    }
    __device__ __forceinline__ void load_weight(float* shared, const float* from, u32 from_row, u32 rows,
                                                u32 cols) const {
        u32* to = reinterpret_cast<u32*>(shared) + TILE;
#pragma unroll 4
        for (u32 row = lane / 32; row < Fused::WIDTH; row += LANES / 32) {
            const float* at = from + row * from_row + 2 * in_warp;
            float low = row < rows && 2 * in_warp < cols ? at[0] : 0.0f;
            float high = row < rows && 2 * in_warp + 1 < cols ? at[1] : 0.0f;
            to[row * ROW + in_warp] = bf16_pair(low, high);
        }
    }

    __device__ __forceinline__ void multiply_weight(const float* shared, u32 depth, bool turned) {
        const u32* left = reinterpret_cast<const u32*>(shared);
        Rows16 rows(left, ROW, lane / 32 * 16, pad16(depth), in_warp);
        Right<true> turned_right(left + TILE, ROW, in_warp);
        Right<false> straight(left + TILE, ROW, in_warp);
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            if (turned) {
                rows.multiply(sum[n], turned_right, 16 * n);
            } else {
                rows.multiply(sum[n], straight, 16 * n);
            }
        }
    }

    // Calls `f(word of the tile, sum)` for all sums of the lane.
    template <class F>
    __device__ __forceinline__ void each(float* tile, const F& f) const {
        u32 first = (lane / 32 * 16 + in_warp / 4) * Fused::STRIDE + in_warp % 4 * 2;
#pragma unroll
        for (u32 i = 0; i < 32; i++) {
            f(tile[first + i % 4 / 2 * 8 * Fused::STRIDE + i / 4 * 8 + i % 2], sum[i / 8][i / 4 % 2][i % 4]);
        }
    }
    __device__ __forceinline__ void put(float* tile) const {
        each(tile, [](float& word, float sum) { word = sum; });
    }
    // a quad of slopes by each lane, then each its own sums; both factors and the product are rounded
    __device__ __forceinline__ void scale(u32 activation, float* tile, bool) const {
        float* mine = tile + lane / S::ACROSS * Fused::STRIDE + 4 * (lane % S::ACROSS);
        with_activation(activation, SlopeShare<S>{mine, mine, 1});
        __syncthreads();
        each(tile, [](float& word, float sum) { word = operand(sum * operand(word)); });
    }

    __device__ __forceinline__ void clear_outer() {
#pragma unroll
        for (u32 i = 0; i < 32; i++) sum[i / 8][i / 4 % 2][i % 4] = 0.0f;
    }
    // a warp's quarter: 32 rows, two tiles of C, by 32 columns, four of them
    __device__ __forceinline__ void add_outer(const float* shared) {
        const u32* left = reinterpret_cast<const u32*>(shared);
        u32 a = lane / 32 % 2 * 32, b = lane / 64 * 32;
        LeftTurned from_left(left, ROW, in_warp);
        Right<false> from_right(left + TILE, ROW, in_warp);
#pragma unroll 2
        for (u32 row = 0; row < ROWS; row += 16) {
            u32 left_a[2][4], right_b[4];
            from_left.load(left_a[0], a, row);
            from_left.load(left_a[1], a + 16, row);
#pragma unroll
            for (u32 n = 0; n < 2; n++) {
                from_right.load(right_b, row, b + 16 * n);
#pragma unroll
                for (u32 m = 0; m < 2; m++) {
                    mma_m16n8k16_bf16(sum[2 * m + n][0], left_a[m], right_b);
                    mma_m16n8k16_bf16(sum[2 * m + n][1], left_a[m], right_b + 2);
                }
            }
        }
    }
    __device__ __forceinline__ void write_outer(float* to, u32 a_len, u32 b_len, Tile at) const {
        u32 a = at.row + lane / 32 % 2 * 32 + in_warp / 4, b = at.col + lane / 64 * 32 + in_warp % 4 * 2;
#pragma unroll
        for (u32 i = 0; i < 32; i++) {
            u32 row = a + i / 16 * 16 + i % 4 / 2 * 8, col = b + i / 4 % 4 * 8 + i % 2;
            if (row < a_len && col < b_len) to[row * b_len + col] = sum[i / 8][i / 4 % 2][i % 4];
        }
    }
    // sums of slopes at the outputs are no products: nothing rounds them
    __device__ __forceinline__ void add_columns(const float* shared, const float* outputs, u32 row_words, u32 len,
                                                float* to, bool add) const {
        if (outputs != nullptr) {
            column_sums<ROWS, LANES>(outputs, row_words, len, to, add, lane);
        } else {
            column_sums_half<ROWS>(reinterpret_cast<const u32*>(shared) + TILE, ROW, len, to, add, lane);
        }
    }
};

}  // namespace layered
