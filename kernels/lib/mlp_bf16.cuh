// Multi-layer perceptrons inside fused kernels, their products on the matrix units: as mlp.cuh, with operands rounded to
// bfloat16 and sums in f32. Twin of src/op/lib/mlp.rs at `Precision::Bf16`.
//
// A warp takes 16 rows through all layers, so nothing but gradients of weights meets other warps. Rounded: observations,
// weights, activations, slopes of activation functions (kept from the way forward) and slopes of the loss, each once,
// where it is stored. Biases, sums, activations' functions and outputs are f32. Hidden layers have at most Fused::WIDTH
// units, observations and outputs too.
#pragma once

#include "activation.cuh"
#include "mlp.cuh"
#include "mma.cuh"

__device__ __forceinline__ u32 pad16(u32 words) { return (words + 15) & ~15u; }

// A fused net in shared memory: matrices of bfloat16, row lengths in words.
template <u32 ROWS>
struct HalfNet {
    static constexpr u32 LANES = 2 * ROWS, WARPS = LANES / 32, ROW = Fused::HALF_STRIDE / 2, MATRIX = ROWS * ROW;
    // words of a layer's slopes: four for every lane and sixteen columns
    static constexpr u32 SLOPES = LANES * 16;

    const Net& net;
    u32 x_row, d_row;
    // observations, slopes at the outputs, weights by layer, activations by layer, slopes of activations by layer
    u32* x;
    u32* d_out;
    u32* weights;
    u32* acts;
    u32* slopes;
    float* biases;

    __device__ __forceinline__ HalfNet(const Net& net, u32 obs, float*& shared) : net(net) {
        u32* at = reinterpret_cast<u32*>(shared);
        u32 hidden = net.layers - 1;
        x_row = half_row(obs);
        d_row = half_row(net.layer[hidden].output);
        x = at;
        d_out = x + ROWS * x_row;
        weights = d_out + ROWS * d_row;
        acts = weight_at(net.layers);
        slopes = acts + hidden * MATRIX;
        biases = reinterpret_cast<float*>(slopes + hidden * SLOPES);
        shared = biases + hidden * Fused::WIDTH + pad16(net.layer[hidden].output);
    }

    // rows and row length of a layer's weight
    __device__ __forceinline__ u32 weight_row(u32 l) const { return l == 0 && net.layers == 1 ? x_row : ROW; }
    __device__ __forceinline__ u32 weight_rows(u32 l) const {
        return l + 1 == net.layers ? pad16(net.layer[l].output) : l == 0 ? pad16(net.layer[l].input) : Fused::WIDTH;
    }
    __device__ __forceinline__ u32* weight_at(u32 l) const {
        u32* at = weights;
        for (u32 i = 0; i < l; i++) at += weight_rows(i) * weight_row(i);
        return at;
    }

    // Copies and rounds the parameters, padded with zeros. No barrier.
    __device__ __forceinline__ void load(const float* params, u32 lane) const {
        for (u32 l = 0; l < net.layers; l++) {
            const Layer& y = net.layer[l];
            bool last = l + 1 == net.layers;
            u32 rows = last ? y.output : y.input, cols = last ? y.input : y.output;
            u32 row_words = weight_row(l), all_rows = weight_rows(l);
            u32* to = weight_at(l);
            for (u32 row = lane / 32; row < all_rows; row += WARPS) {
                for (u32 pair = lane % 32; pair < row_words; pair += 32) {
                    const float* from = params + y.weight + row * cols + 2 * pair;
                    float low = row < rows && 2 * pair < cols ? from[0] : 0.0f;
                    float high = row < rows && 2 * pair + 1 < cols ? from[1] : 0.0f;
                    to[row * row_words + pair] = bf16_pair(low, high);
                }
            }
            u32 bias = last ? pad16(y.output) : Fused::WIDTH;
            for (u32 o = lane; o < bias; o += LANES) {
                biases[l * Fused::WIDTH + o] = o < y.output ? params[y.bias + o] : 0.0f;
            }
        }
    }

    __device__ __forceinline__ void forward(float* out, u32 out_row, u32 lane) const;
    __device__ __forceinline__ void backward(float* grad, bool add, u32 lane) const;
};

// The 16 rows of A that a warp multiplies, at most Fused::WIDTH deep.
struct Rows16 {
    u32 a[Fused::WIDTH / 16][4];
    u32 depth;

    __device__ __forceinline__ Rows16(const u32* matrix, u32 row_words, u32 row, u32 depth, u32 lane) : depth(depth) {
        Left left(matrix, row_words, lane);
#pragma unroll
        for (u32 k = 0; k < Fused::WIDTH; k += 16) {
            if (k < depth) left.load(a[k / 16], row, k);
        }
    }

    // sum += A B, sixteen columns from `col` on
    template <bool TURNED>
    __device__ __forceinline__ void multiply(float (&sum)[2][4], const Right<TURNED>& right, u32 col) const {
#pragma unroll
        for (u32 k = 0; k < Fused::WIDTH; k += 16) {
            if (k < depth) {
                u32 b[4];
                right.load(b, k, col);
                mma_m16n8k16_bf16(sum[0], a[k / 16], b);
                mma_m16n8k16_bf16(sum[1], a[k / 16], b + 2);
            }
        }
    }
};

// Activations of two tiles of C, in place, and their slopes, rounded and packed.
struct ActivateHalf {
    float (&y)[2][4];
    u32 (&slopes)[4];
    template <u32 KIND>
    __device__ __forceinline__ void run() const {
        float s[2][4];
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float x = y[i / 4][i % 4], value = activate<KIND>(x);
            s[i / 4][i % 4] = slope<KIND>(needs_input(KIND) ? x : value);
            y[i / 4][i % 4] = value;
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) slopes[i] = bf16_pair(s[i / 2][i % 2 * 2], s[i / 2][i % 2 * 2 + 1]);
    }
};

// Two tiles of C as a matrix's rows `row`.. and columns `col`.., rounded.
__device__ __forceinline__ void store_c(u32* matrix, u32 row_words, u32 row, u32 col, const float (&c)[2][4], u32 lane) {
    u32* at = matrix + (row + lane / 4) * row_words + col / 2 + lane % 4;
    at[0] = bf16_pair(c[0][0], c[0][1]);
    at[4] = bf16_pair(c[1][0], c[1][1]);
    at[8 * row_words] = bf16_pair(c[0][2], c[0][3]);
    at[8 * row_words + 4] = bf16_pair(c[1][2], c[1][3]);
}

// Outputs of all rows, f32; each warp its own rows, no barrier but among the lanes of a warp.
template <u32 ROWS>
__device__ __forceinline__ void HalfNet<ROWS>::forward(float* out, u32 out_row, u32 lane) const {
    u32 row = lane / 32 * 16, in_warp = lane % 32, last = net.layers - 1;
    const u32* from = x;
    u32 from_row = x_row;
    for (u32 l = 0; l < last; l++) {
        const Layer& y = net.layer[l];
        const u32* weight = weight_at(l);
        u32* to = acts + l * MATRIX;
        Rows16 rows(from, from_row, row, pad16(y.input), in_warp);
        Right<false> right(weight, ROW, in_warp);
#pragma unroll 1
        for (u32 col = 0; col < pad16(y.output); col += 16) {
            const float* bias = biases + l * Fused::WIDTH + col + in_warp % 4 * 2;
            float sum[2][4] = {{bias[0], bias[1], bias[0], bias[1]}, {bias[8], bias[9], bias[8], bias[9]}};
            rows.multiply(sum, right, col);
            u32 s[4];
            with_activation(net.activation, ActivateHalf{sum, s});
            store_c(to, ROW, row, col, sum, in_warp);
            u32* kept = slopes + l * SLOPES + (col / 16 * LANES + lane) * 4;
#pragma unroll
            for (u32 i = 0; i < 4; i++) kept[i] = s[i];
        }
        __syncwarp();
        from = to;
        from_row = ROW;
    }
    const Layer& y = net.layer[last];
    const u32* weight = weight_at(last);
    Rows16 rows(from, from_row, row, pad16(y.input), in_warp);
    Right<true> right(weight, weight_row(last), in_warp);
#pragma unroll 1
    for (u32 col = 0; col < y.output; col += 16) {
        const float* bias = biases + last * Fused::WIDTH + col + in_warp % 4 * 2;
        float sum[2][4] = {{bias[0], bias[1], bias[0], bias[1]}, {bias[8], bias[9], bias[8], bias[9]}};
        rows.multiply(sum, right, col);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            u32 o = col + i / 4 * 8 + in_warp % 4 * 2 + i % 2;
            if (o < y.output) out[(row + in_warp / 4 + i % 4 / 2 * 8) * out_row + o] = sum[i / 4][i % 4];
        }
    }
}

// to[a, b] (+)= sum over rows of left[row, a] right[row, b]: TILES tiles of C at once, warp by warp.
template <u32 ROWS, u32 TILES>
__device__ __forceinline__ void outer_half(const u32* left, u32 left_row, u32 a_len, const u32* right, u32 right_row,
                                           u32 b_len, float* to, bool add, u32 lane) {
    u32 warp = lane / 32, in_warp = lane % 32, down = pad16(a_len) / 16, across = (b_len + 8 * TILES - 1) / (8 * TILES);
    LeftTurned from_left(left, left_row, in_warp);
    Right<false> from_right(right, right_row, in_warp);
#pragma unroll 1
    for (u32 unit = warp; unit < down * across; unit += ROWS / 16) {
        u32 a = unit % down * 16, b = unit / down * 8 * TILES;
        float sum[TILES][4];
#pragma unroll
        for (u32 i = 0; i < 4 * TILES; i++) sum[i / 4][i % 4] = 0.0f;
#pragma unroll(TILES == 1 ? 2 : 1)
        for (u32 row = 0; row < ROWS; row += 16) {
            u32 left_a[4], right_b[4];
            from_left.load(left_a, a, row);
            if (TILES == 1) {
                from_right.load_one(right_b, row, b);
                mma_m16n8k16_bf16(sum[0], left_a, right_b);
            } else {
#pragma unroll
                for (u32 t = 0; t < TILES; t += 2) {
                    // tiles that are not there take another one's columns, and are not written
                    from_right.load(right_b, row, b + 8 * t < b_len ? b + 8 * t : b);
                    mma_m16n8k16_bf16(sum[t], left_a, right_b);
                    mma_m16n8k16_bf16(sum[t + 1 < TILES ? t + 1 : t], left_a, right_b + 2);
                }
            }
        }
        // all words are read before any is written
        a += in_warp / 4;
        b += in_warp % 4 * 2;
        float* at = to + a * b_len + b;
#pragma unroll
        for (u32 pass = 0; pass < 2; pass++) {
            if (pass == 0 && !add) continue;
#pragma unroll
            for (u32 i = 0; i < 4 * TILES; i++) {
                u32 down_by = i % 4 / 2 * 8, right_by = i / 4 * 8 + i % 2;
                if (a + down_by < a_len && b + right_by < b_len) {
                    float* word = at + down_by * b_len + right_by;
                    if (pass == 0) sum[i / 4][i % 4] += *word;
                    if (pass == 1) *word = sum[i / 4][i % 4];
                }
            }
        }
    }
}

// to[b] (+)= sum over rows of right[row, b]: a product with ones.
template <u32 ROWS>
__device__ __forceinline__ void column_sums_half(const u32* right, u32 right_row, u32 len, float* to, bool add,
                                                 u32 lane) {
    u32 in_warp = lane % 32;
    const u32 ones[4] = {0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u};
    Right<false> from_right(right, right_row, in_warp);
#pragma unroll 1
    for (u32 b = lane / 32 * 8; b < len; b += ROWS / 16 * 8) {
        float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 2
        for (u32 row = 0; row < ROWS; row += 16) {
            u32 right_b[4];
            from_right.load_one(right_b, row, b);
            mma_m16n8k16_bf16(sum, ones, right_b);
        }
        // every row of C is the sum
        for (u32 i = 0; i < 2; i++) {
            u32 col = b + in_warp % 4 * 2 + i;
            if (in_warp < 4 && col < len) to[col] = add ? to[col] + sum[i] : sum[i];
        }
    }
}

// Gradient of the rows that went `forward`, whose slopes at the outputs are in `d_out`, but for that of the last bias.
// Slopes take the activations' place. Begins and ends without a barrier.
template <u32 ROWS>
__device__ __forceinline__ void HalfNet<ROWS>::backward(float* grad, bool add, u32 lane) const {
    u32 row = lane / 32 * 16, in_warp = lane % 32, hidden = net.layers - 1;
    for (u32 l = net.layers; l-- > 0;) {
        const Layer& y = net.layer[l];
        bool last = l == hidden;
        u32* below = l == 0 ? x : acts + (l - 1) * MATRIX;
        const u32* d = last ? d_out : acts + l * MATRIX;
        u32 below_words = l == 0 ? x_row : ROW, d_words = last ? d_row : ROW;
        const u32* left = last ? d : below;
        const u32* right = last ? below : d;
        u32 left_row = last ? d_words : below_words, right_row = last ? below_words : d_words;
        u32 a_len = last ? y.output : y.input, b_len = last ? y.input : y.output;
        // wide tiles read less; narrow ones give every warp its share of a small gradient
        if (pad16(a_len) / 16 * ((b_len + 31) / 32) >= WARPS) {
            outer_half<ROWS, 4>(left, left_row, a_len, right, right_row, b_len, grad + y.weight, add, lane);
        } else {
            outer_half<ROWS, 1>(left, left_row, a_len, right, right_row, b_len, grad + y.weight, add, lane);
        }
        if (!last) column_sums_half<ROWS>(d, d_words, y.output, grad + y.bias, add, lane);
        if (l == 0) return;

        // slopes at the units below take the place of their activations, which no gradient needs any more
        __syncthreads();
        const u32* weight = weight_at(l);
        Rows16 rows(d, d_words, row, pad16(y.output), in_warp);
        Right<false> straight(weight, ROW, in_warp);
        Right<true> turned(weight, ROW, in_warp);
#pragma unroll 1
        for (u32 col = 0; col < pad16(y.input); col += 16) {
            float sum[2][4] = {};
            if (last) {
                rows.multiply(sum, straight, col);
            } else {
                rows.multiply(sum, turned, col);
            }
            const u32* kept = slopes + (l - 1) * SLOPES + (col / 16 * LANES + lane) * 4;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 word = kept[i];
                sum[i / 2][i % 2 * 2] *= low_bf16(word);
                sum[i / 2][i % 2 * 2 + 1] *= high_bf16(word);
            }
            store_c(below, ROW, row, col, sum, in_warp);
        }
        __syncthreads();
    }
}
