// Layers of nets that do not fit one block: products of matrices in global memory, tile by tile through shared memory.
// Twin of src/op/lib/mlp.rs, layer by layer. Forward, backward and gradients take the register tiles of mlp.cuh.
//
// A block of LANES lanes makes one tile of ROWS rows and Fused::WIDTH columns. Matrices of activations have rows of
// `pad4` words, padded with numbers that meet zeros, and whole tiles of rows; parameters lie as they are stored.
#pragma once

#include "mlp.cuh"

namespace layered {

constexpr u32 ROWS = 64, LANES = 128, TILE = ROWS * Fused::STRIDE;
typedef Share<ROWS, LANES> S;
static_assert(ROWS == Fused::WIDTH, "tiles are square");

// Starts a copy of four words from global to shared memory.
__device__ __forceinline__ void copy_quad(float* to, const float* from) {
#ifdef CUDA_CPU_SIM
    store4(to, load4(from));
#else
    u64 at;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(at) : "l"(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"l"(at), "l"(from) : "memory");
#endif
}

// Starts the copy of a tile of activations, `cols` columns of it (a multiple of 4), the others zeros.
__device__ __forceinline__ void load_tile(float* to, const float* from, u32 from_row, u32 cols, u32 lane) {
    u32 col = 4 * (lane % 16);
    for (u32 row = lane / 16; row < ROWS; row += LANES / 16) {
        float* word = to + row * Fused::STRIDE + col;
        if (col < cols) {
            copy_quad(word, from + u64(row) * from_row + col);
        } else {
            store4(word, {0.0f, 0.0f, 0.0f, 0.0f});
        }
    }
}

// Starts the copy of a tile of parameters, `rows` x `cols` of it, the others zeros.
__device__ __forceinline__ void load_weight(float* to, const float* from, u32 from_row, u32 rows, u32 cols, u32 lane) {
    for (u32 row = lane / 32; row < Fused::WIDTH; row += LANES / 32) {
#pragma unroll
        for (u32 col = lane % 32; col < Fused::WIDTH; col += 32) {
            float* word = to + row * Fused::STRIDE + col;
            if (row < rows && col < cols) {
                copy_word(word, from + row * from_row + col);
            } else {
                *word = 0.0f;
            }
        }
    }
}

// Writes a tile of activations, `cols` columns of it.
__device__ __forceinline__ void store_tile(float* to, u32 to_row, const float* from, u32 cols, u32 lane) {
    u32 col = 4 * (lane % 16);
    if (col >= cols) return;
    for (u32 row = lane / 16; row < ROWS; row += LANES / 16) {
        store4(to + u64(row) * to_row + col, load4(from + row * Fused::STRIDE + col));
    }
}

// Where a block's tile lies, and where a matrix's rows are.
struct Tile {
    u32 row;
    u32 col;
};

// Columns of a matrix of `width` columns that a tile at `col` has.
__device__ __forceinline__ u32 within(u32 width, u32 col) { return min(width - col, Fused::WIDTH); }

// A tile of a hidden layer's units: to[row, col] = activation(from weight + bias), and the same before the activation
// into `before` where it is not null. `shared`: two tiles.
__device__ __forceinline__ void forward_tile(const Layer& y, u32 activation, const float* params, const float* from,
                                             float* to, float* before, Tile at, float* shared, u32 lane) {
    u32 row = lane / S::ACROSS, quad = 4 * (lane % S::ACROSS), mine = row * Fused::STRIDE + quad;
    u32 from_row = pad4(y.input), to_row = pad4(y.output), cols = within(y.output, at.col);
    float* left = shared;
    float* right = shared + TILE;
    float sum[S::TALL][S::COLS];
#pragma unroll
    for (u32 j = 0; j < S::COLS; j++) {
        float bias = quad + j < cols ? params[y.bias + at.col + quad + j] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) sum[i][j] = bias;
    }
    for (u32 k = 0; k < y.input; k += Fused::WIDTH) {
        __syncthreads();
        load_tile(left, from + u64(at.row) * from_row + k, from_row, within(from_row, k), lane);
        load_weight(right, params + y.weight + k * y.output + at.col, y.output, within(y.input, k), cols, lane);
        copies_done();
        __syncthreads();
        multiply<S>(sum, left + row * Fused::STRIDE, Fused::STRIDE, right + quad, within(from_row, k));
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < S::TALL; i++) {
        store4(left + mine + i * S::DOWN * Fused::STRIDE, {sum[i][0], sum[i][1], sum[i][2], sum[i][3]});
    }
    if (before != nullptr) {
        __syncthreads();
        store_tile(before + u64(at.row) * to_row + at.col, to_row, left, pad4(cols), lane);
        __syncthreads();
    }
    with_activation(activation, ActivateShare<S>{left + mine});
    __syncthreads();
    store_tile(to + u64(at.row) * to_row + at.col, to_row, left, pad4(cols), lane);
}

// Outputs of ROWS rows from `row` on into shared memory, rows of `out_row` words. `shared`: a tile, then
// `pad4(y.output)` rows of weights and their bias.
__device__ __forceinline__ void head_rows(const Layer& y, const float* params, const float* from, u32 row, float* out,
                                          u32 out_row, float* shared, u32 lane) {
    u32 from_row = pad4(y.input), outputs = pad4(y.output);
    float* left = shared;
    float* right = shared + TILE;
    float* bias = right + outputs * Fused::STRIDE;
    for (u32 o = lane; o < outputs; o += LANES) bias[o] = o < y.output ? params[y.bias + o] : 0.0f;
    for (u32 k = 0; k < y.input; k += Fused::WIDTH) {
        __syncthreads();
        load_tile(left, from + u64(row) * from_row + k, from_row, within(from_row, k), lane);
        // outputs are few: a warp per row of weights
        for (u32 o = lane / 32; o < outputs; o += LANES / 32) {
            for (u32 col = lane % 32; col < Fused::WIDTH; col += 32) {
                bool there = o < y.output && k + col < y.input;
                right[o * Fused::STRIDE + col] = there ? params[y.weight + o * y.input + k + col] : 0.0f;
            }
        }
        copies_done();
        __syncthreads();
        head<ROWS, LANES>(y.output, within(from_row, k), right, Fused::STRIDE, bias, left, Fused::STRIDE, out, out_row,
                          k > 0, lane);
    }
    __syncthreads();
}

// A tile of the slopes at the units below a layer: to[row, col] = slope(from) (d weight^T). `from` and `to` are matrices
// of the units below, or one; `last`: the weight is [output, input]. `shared`: two tiles.
__device__ __forceinline__ void backward_tile(const Layer& y, bool last, u32 activation, const float* params,
                                              const float* d, u32 d_row, const float* from, float* to, Tile at,
                                              float* shared, u32 lane) {
    u32 row = lane / S::ACROSS, c = lane % S::ACROSS, to_row = pad4(y.input), cols = within(y.input, at.col);
    float* left = shared;
    float* right = shared + TILE;
    float sum[S::TALL][S::COLS];
#pragma unroll
    for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll
        for (u32 j = 0; j < S::COLS; j++) sum[i][j] = 0.0f;
    }
    for (u32 k = 0; k < y.output; k += Fused::WIDTH) {
        u32 depth = within(y.output, k);
        __syncthreads();
        load_tile(left, d + u64(at.row) * d_row + k, d_row, within(d_row, k), lane);
        const float* weight = params + y.weight;
        if (last) {
            load_weight(right, weight + k * y.input + at.col, y.input, depth, cols, lane);
        } else {
            load_weight(right, weight + at.col * y.output + k, y.output, cols, depth, lane);
        }
        copies_done();
        __syncthreads();
        if (last) {
            multiply<S>(sum, left + row * Fused::STRIDE, Fused::STRIDE, right + 4 * c, pad4(depth));
        } else {
            multiply_back<S>(sum, left + row * Fused::STRIDE, right + c * Fused::STRIDE, pad4(depth));
        }
    }
    // slopes of the activation function, in place, then times those from above
    __syncthreads();
    load_tile(left, from + u64(at.row) * to_row + at.col, to_row, within(to_row, at.col), lane);
    copies_done();
    __syncthreads();
    u32 first = last ? 4 * c : c, next = last ? 1 : S::ACROSS;
    float* mine = left + row * Fused::STRIDE + first;
    with_activation(activation, SlopeShare<S>{mine, mine, next});
#pragma unroll
    for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll
        for (u32 j = 0; j < S::COLS; j++) mine[i * S::DOWN * Fused::STRIDE + j * next] *= sum[i][j];
    }
    __syncthreads();
    store_tile(to + u64(at.row) * to_row + at.col, to_row, left, pad4(cols), lane);
}

// A tile of a weight's gradient, sums over `rows` rows (whole tiles) from `row` on of left[row, at.row + a]
// right[row, at.col + b], into `to[a_len, b_len]`. Sums of the columns of `right` go to `bias` where it is not null;
// with `bias_of_left` those of `left`, of which there are `bias_len`. `shared`: two tiles.
__device__ __forceinline__ void gradient_tile(const float* left_from, u32 left_row, u32 a_len, const float* right_from,
                                              u32 right_row, u32 b_len, float* to, u32 row, u32 rows, Tile at,
                                              float* bias, u32 bias_len, bool bias_of_left, float* shared, u32 lane) {
    float* left = shared;
    float* right = shared + TILE;
    Outer<LANES, 8> outer(Fused::WIDTH / 8, lane);
    outer.clear();
    u32 near = 4 * outer.quad, far = near + Fused::WIDTH / 2;
    for (u32 done = 0; done < rows; done += ROWS) {
        __syncthreads();
        load_tile(left, left_from + u64(row + done) * left_row + at.row, left_row, within(left_row, at.row), lane);
        load_tile(right, right_from + u64(row + done) * right_row + at.col, right_row, within(right_row, at.col), lane);
        copies_done();
        __syncthreads();
        outer.add<ROWS>(left + 8 * outer.tile, Fused::STRIDE, 4, right + near, right + far, Fused::STRIDE);
        if (bias != nullptr) {
            column_sums<ROWS, LANES>(bias_of_left ? left : right, Fused::STRIDE, bias_len, bias, done > 0, lane);
        }
    }
    u32 a = at.row + 8 * outer.tile;
    outer.write(to + a * b_len + at.col, b_len, a < a_len ? a_len - a : 0, b_len - at.col, near, far, false);
}

}  // namespace layered
