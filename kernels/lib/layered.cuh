// Layers of nets that do not fit one block: products of matrices in global memory, tile by tile through shared memory.
// Twin of src/op/lib/mlp.rs, layer by layer.
//
// A block of LANES lanes makes one tile of ROWS rows and Fused::WIDTH columns. Matrices of activations are f32, have
// rows of `pad4` words, padded with numbers that meet zeros, and whole tiles of rows; parameters lie as they are stored.
// How a block multiplies is P: Single below, or Half of layered_bf16.cuh. P::WORDS words of shared memory hold the
// operands of a product, and then its result as a tile in f32.
#pragma once

#include "mlp.cuh"

namespace layered {

constexpr u32 ROWS = 64, LANES = 128;
typedef Share<ROWS, LANES> S;
static_assert(ROWS == Fused::WIDTH, "tiles are square");

// Where a block's tile lies in a matrix.
struct Tile {
    u32 row;
    u32 col;
};

// Columns of a matrix of `width` columns that a tile at `col` has.
__device__ __forceinline__ u32 within(u32 width, u32 col) { return min(width - col, Fused::WIDTH); }

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

// Writes a tile of activations, `cols` columns of it.
__device__ __forceinline__ void store_tile(float* to, u32 to_row, const float* from, u32 cols, u32 lane) {
    u32 col = 4 * (lane % 16);
    if (col >= cols) return;
    for (u32 row = lane / 16; row < ROWS; row += LANES / 16) {
        store4(to + u64(row) * to_row + col, load4(from + row * Fused::STRIDE + col));
    }
}

// Products in f32. A lane has the tile's share of mlp.cuh.
struct Single {
    static constexpr u32 TILE = ROWS * Fused::STRIDE, WORDS = 2 * TILE;
    float sum[S::TALL][S::COLS];
    Outer<LANES, 8> outer;
    u32 lane, row, c;

    __device__ __forceinline__ Single(u32 lane) : outer(Fused::WIDTH / 8, lane), lane(lane) {
        row = lane / S::ACROSS;
        c = lane % S::ACROSS;
#pragma unroll
        for (u32 i = 0; i < S::TALL * S::COLS; i++) sum[i / S::COLS][i % S::COLS] = 0.0f;
    }

    // Numbers as products see them.
    static __device__ __forceinline__ float operand(float x) { return x; }

    // Starts the copy of an operand: `cols` columns of a tile of activations; `rows` x `cols` of one of parameters.
    __device__ __forceinline__ void load_left(float* shared, const float* from, u32 from_row, u32 cols) const {
        load_tile(shared, from, from_row, cols, lane);
    }
    __device__ __forceinline__ void load_right(float* shared, const float* from, u32 from_row, u32 cols) const {
        load_tile(shared + TILE, from, from_row, cols, lane);
    }
    __device__ __forceinline__ void load_weight(float* shared, const float* from, u32 from_row, u32 rows,
                                                u32 cols) const {
        for (u32 r = lane / 32; r < Fused::WIDTH; r += LANES / 32) {
#pragma unroll
            for (u32 col = lane % 32; col < Fused::WIDTH; col += 32) {
                float* word = shared + TILE + r * Fused::STRIDE + col;
                if (r < rows && col < cols) {
                    copy_word(word, from + r * from_row + col);
                } else {
                    *word = 0.0f;
                }
            }
        }
    }

    // sum += left right over `depth`; the weight is [depth, columns], or [columns, depth] where turned.
    __device__ __forceinline__ void multiply_weight(const float* shared, u32 depth, bool turned) {
        const float* left = shared + row * Fused::STRIDE;
        if (turned) {
            multiply_back<S>(sum, left, shared + TILE + c * Fused::STRIDE, pad4(depth));
        } else {
            multiply<S>(sum, left, Fused::STRIDE, shared + TILE + 4 * c, pad4(depth));
        }
    }

    // Writes the result of products that were not turned.
    __device__ __forceinline__ void put(float* tile) const {
        float* mine = tile + row * Fused::STRIDE + 4 * c;
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) {
            store4(mine + i * S::DOWN * Fused::STRIDE, {sum[i][0], sum[i][1], sum[i][2], sum[i][3]});
        }
    }
    // Turns what slopes of the activation function are made of into these slopes times the result.
    __device__ __forceinline__ void scale(u32 activation, float* tile, bool turned) const {
        float* mine = tile + row * Fused::STRIDE + (turned ? c : 4 * c);
        u32 next = turned ? S::ACROSS : 1;
        with_activation(activation, SlopeShare<S>{mine, mine, next});
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll
            for (u32 j = 0; j < S::COLS; j++) mine[i * S::DOWN * Fused::STRIDE + j * next] *= sum[i][j];
        }
    }

    // Adds the products of the rows of a left and a right tile.
    __device__ __forceinline__ void clear_outer() { outer.clear(); }
    __device__ __forceinline__ void add_outer(const float* shared) {
        const float* right = shared + TILE + 4 * outer.quad;
        outer.add<ROWS>(shared + 8 * outer.tile, Fused::STRIDE, 4, right, right + Fused::WIDTH / 2, Fused::STRIDE);
    }
    __device__ __forceinline__ void write_outer(float* to, u32 a_len, u32 b_len, Tile at) {
        u32 a = at.row + 8 * outer.tile;
        outer.write(to + a * b_len + at.col, b_len, a < a_len ? a_len - a : 0, b_len - at.col, 4 * outer.quad,
                    4 * outer.quad + Fused::WIDTH / 2, false);
    }
    // Sums of the right tile's columns; where `outputs` is not null, of the left one's, which were read from there.
    __device__ __forceinline__ void add_columns(const float* shared, const float* outputs, u32, u32 len, float* to,
                                                bool add) const {
        column_sums<ROWS, LANES>(outputs != nullptr ? shared : shared + TILE, Fused::STRIDE, len, to, add, lane);
    }
};

// A tile of a hidden layer's units: to[row, col] = activation(from weight + bias), and the same before the activation
// into `before` where it is not null.
template <class P>
__device__ __forceinline__ void forward_tile(const Layer& y, u32 activation, const float* params, const float* from,
                                             float* to, float* before, Tile at, float* shared, u32 lane) {
    u32 from_row = pad4(y.input), to_row = pad4(y.output), cols = within(y.output, at.col);
    P product(lane);
    for (u32 k = 0; k < y.input; k += Fused::WIDTH) {
        __syncthreads();
        product.load_left(shared, from + u64(at.row) * from_row + k, from_row, within(from_row, k));
        product.load_weight(shared, params + y.weight + k * y.output + at.col, y.output, within(y.input, k), cols);
        copies_done();
        __syncthreads();
        product.multiply_weight(shared, within(y.input, k), false);
    }
    __syncthreads();
    product.put(shared);
    __syncthreads();
    // each lane adds the bias to words of its own, then applies the function
    u32 quad = 4 * (lane % S::ACROSS);
    float* mine = shared + lane / S::ACROSS * Fused::STRIDE + quad;
    float bias[4];
#pragma unroll
    for (u32 j = 0; j < 4; j++) bias[j] = quad + j < cols ? params[y.bias + at.col + quad + j] : 0.0f;
#pragma unroll
    for (u32 i = 0; i < S::TALL; i++) {
        float* word = mine + i * S::DOWN * Fused::STRIDE;
        float4 v = load4(word);
        store4(word, {v.x + bias[0], v.y + bias[1], v.z + bias[2], v.w + bias[3]});
    }
    if (before != nullptr) {
        __syncthreads();
        store_tile(before + u64(at.row) * to_row + at.col, to_row, shared, pad4(cols), lane);
        __syncthreads();
    }
    with_activation(activation, ActivateShare<S>{mine});
    __syncthreads();
    store_tile(to + u64(at.row) * to_row + at.col, to_row, shared, pad4(cols), lane);
}

// A tile of a linear layer whose weight is [output, input]: to[row, col] = from weight^T + bias.
template <class P>
__device__ __forceinline__ void linear_tile(const Layer& y, const float* params, const float* from, float* to, Tile at,
                                            float* shared, u32 lane) {
    u32 from_row = pad4(y.input), to_row = pad4(y.output), cols = within(y.output, at.col);
    P product(lane);
    for (u32 k = 0; k < y.input; k += Fused::WIDTH) {
        u32 depth = within(y.input, k);
        __syncthreads();
        product.load_left(shared, from + u64(at.row) * from_row + k, from_row, within(from_row, k));
        product.load_weight(shared, params + y.weight + (at.col * y.input + k), y.input, cols, depth);
        copies_done();
        __syncthreads();
        product.multiply_weight(shared, depth, true);
    }
    __syncthreads();
    float* mine = shared + product.row * Fused::STRIDE + product.c;
#pragma unroll
    for (u32 j = 0; j < S::COLS; j++) {
        u32 col = product.c + j * S::ACROSS;
        float bias = col < cols ? params[y.bias + at.col + col] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) {
            mine[i * S::DOWN * Fused::STRIDE + j * S::ACROSS] = product.sum[i][j] + bias;
        }
    }
    __syncthreads();
    store_tile(to + u64(at.row) * to_row + at.col, to_row, shared, pad4(cols), lane);
}

// Outputs of ROWS rows from `row` on into shared memory, rows of `out_row` words. `shared`: a tile, then
// `pad4(y.output)` rows of weights and their bias. Outputs are few, so lanes multiply in f32 whatever P.
template <class P>
__device__ __forceinline__ void head_rows(const Layer& y, const float* params, const float* from, u32 row, float* out,
                                          u32 out_row, float* shared, u32 lane) {
    u32 from_row = pad4(y.input), outputs = pad4(y.output);
    float* left = shared;
    float* right = shared + ROWS * Fused::STRIDE;
    float* bias = right + outputs * Fused::STRIDE;
    for (u32 o = lane; o < outputs; o += LANES) bias[o] = o < y.output ? params[y.bias + o] : 0.0f;
    for (u32 k = 0; k < y.input; k += Fused::WIDTH) {
        __syncthreads();
        u32 quad = 4 * (lane % 16), cols = within(from_row, k);
        for (u32 r = lane / 16; r < ROWS; r += LANES / 16) {
            float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
            if (quad < cols) v = load4(from + u64(row + r) * from_row + k + quad);
            float4 rounded = {P::operand(v.x), P::operand(v.y), P::operand(v.z), P::operand(v.w)};
            store4(left + r * Fused::STRIDE + quad, rounded);
        }
        for (u32 o = lane / 32; o < outputs; o += LANES / 32) {
            for (u32 col = lane % 32; col < Fused::WIDTH; col += 32) {
                bool there = o < y.output && k + col < y.input;
                right[o * Fused::STRIDE + col] = there ? P::operand(params[y.weight + o * y.input + k + col]) : 0.0f;
            }
        }
        __syncthreads();
        head<ROWS, LANES>(y.output, cols, right, Fused::STRIDE, bias, left, Fused::STRIDE, out, out_row, k > 0, lane);
    }
    __syncthreads();
}

// A tile of the slopes at the units below a layer: to[row, col] = slope(from) (d weight^T). `from` and `to` are
// matrices of the units below, or one; `last`: the weight is [output, input].
template <class P>
__device__ __forceinline__ void backward_tile(const Layer& y, bool last, u32 activation, const float* params,
                                              const float* d, u32 d_row, const float* from, float* to, Tile at,
                                              float* shared, u32 lane) {
    u32 to_row = pad4(y.input), cols = within(y.input, at.col);
    P product(lane);
    for (u32 k = 0; k < y.output; k += Fused::WIDTH) {
        u32 depth = within(y.output, k);
        __syncthreads();
        product.load_left(shared, d + u64(at.row) * d_row + k, d_row, within(d_row, k));
        const float* weight = params + y.weight;
        if (last) {
            product.load_weight(shared, weight + k * y.input + at.col, y.input, depth, cols);
        } else {
            product.load_weight(shared, weight + at.col * y.output + k, y.output, cols, depth);
        }
        copies_done();
        __syncthreads();
        product.multiply_weight(shared, depth, !last);
    }
    // slopes of the activation function, in place, then times those from above
    __syncthreads();
    load_tile(shared, from + u64(at.row) * to_row + at.col, to_row, within(to_row, at.col), lane);
    copies_done();
    __syncthreads();
    product.scale(activation, shared, !last);
    __syncthreads();
    store_tile(to + u64(at.row) * to_row + at.col, to_row, shared, pad4(cols), lane);
}

// A tile of a weight's gradient, sums over `rows` rows (whole tiles) from `row` on of left[row, at.row + a]
// right[row, at.col + b], into `to[a_len, b_len]`. Where `bias` is not null it gets the sums of the columns of slopes:
// of the right tile, or with `bias_of_left` of the left one, which are then those at the outputs.
template <class P>
__device__ __forceinline__ void gradient_tile(const float* left_from, u32 left_row, u32 a_len, const float* right_from,
                                              u32 right_row, u32 b_len, float* to, u32 row, u32 rows, Tile at,
                                              float* bias, u32 bias_len, bool bias_of_left, float* shared, u32 lane) {
    P product(lane);
    product.clear_outer();
    for (u32 done = 0; done < rows; done += ROWS) {
        __syncthreads();
        product.load_left(shared, left_from + u64(row + done) * left_row + at.row, left_row, within(left_row, at.row));
        product.load_right(shared, right_from + u64(row + done) * right_row + at.col, right_row,
                           within(right_row, at.col));
        copies_done();
        __syncthreads();
        product.add_outer(shared);
        if (bias != nullptr) {
            const float* outputs = bias_of_left ? left_from + u64(row + done) * left_row + at.row : nullptr;
            product.add_columns(shared, outputs, left_row, bias_len, bias, done > 0);
        }
    }
    product.write_outer(to, a_len, b_len, at);
}

}  // namespace layered
