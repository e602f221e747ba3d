// Multi-layer perceptrons inside fused kernels: a block keeps a net's parameters and the activations of ROWS rows in
// shared memory and goes through the net layer by layer. Twin of src/op/lib/mlp.rs.
//
// For nets whose hidden layers have at most Fused::WIDTH units; src/op/gpu/nets.rs decides and knows every size here.
// LANES lanes work on one net. Each holds a register tile of a layer's outputs, ROWS x WIDTH / LANES of them, and sums
// over inputs in order, fusing (fmaf). Rows of weights and activations lie Fused::STRIDE words apart, which is 4 modulo
// the 32 banks: lanes that read four words of neighboring rows meet different banks. Everything is padded with zeros,
// so no loop asks where a layer ends.
#pragma once

#include "activation.cuh"
#include "core.cuh"

// Words from row to row of a narrow matrix: whole float4s, an odd number of them, for the same reason.
__device__ __forceinline__ u32 narrow_row(u32 words) { return 4 * ((words + 3) / 4 | 1); }

__device__ __forceinline__ u32 pad4(u32 words) { return (words + 3) & ~3u; }

// Words from row to row of a layer's weight in shared memory; `x_row` those of the observations.
__device__ __forceinline__ u32 weight_row(const Net& net, u32 l, u32 x_row) {
    return net.layers == 1 ? x_row : Fused::STRIDE;
}

// Rows of a layer's weight in shared memory: inputs of a hidden layer, outputs of the last one.
__device__ __forceinline__ u32 weight_rows(const Net& net, u32 l) {
    if (l + 1 == net.layers) return pad4(net.layer[l].output);
    return l == 0 ? pad4(net.layer[l].input) : Fused::WIDTH;
}

// Words of a layer in shared memory: its weight, then its bias.
__device__ __forceinline__ u32 layer_words(const Net& net, u32 l, u32 x_row) {
    u32 bias = l + 1 == net.layers ? pad4(net.layer[l].output) : Fused::STRIDE;
    return weight_rows(net, l) * weight_row(net, l, x_row) + bias;
}

// Words of a whole net in shared memory.
__device__ __forceinline__ u32 net_words(const Net& net, u32 x_row) {
    u32 words = 0;
    for (u32 l = 0; l < net.layers; l++) words += layer_words(net, l, x_row);
    return words;
}

// Words of the activations that `forward` keeps: [ROWS, STRIDE] of every hidden layer, then, where KEEP asks for them
// and slopes need them, the same matrices before the activation.
template <u32 ROWS, bool KEEP>
__device__ __forceinline__ u32 acts_words(const Net& net) {
    u32 matrices = (net.layers - 1) * (KEEP && needs_input(net.activation) ? 2 : 1);
    return matrices * ROWS * Fused::STRIDE;
}

// Starts a copy of one word from global to shared memory that passes no register, so that many are under way at once.
__device__ __forceinline__ void copy_word(float* to, const float* from) {
#ifdef CUDA_CPU_SIM
    *to = *from;
#else
    u64 at;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(at) : "l"(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"l"(at), "l"(from) : "memory");
#endif
}

// Waits for this lane's copies.
__device__ __forceinline__ void copies_done() {
#ifndef CUDA_CPU_SIM
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Starts the copy of a net's parameters into shared memory, padded with zeros. `lane` counts LANES lanes, whole warps,
// from 0. The caller waits (`copies_done`) and synchronizes before the first `forward`.
template <u32 LANES>
__device__ __forceinline__ void load_net(const Net& net, const float* params, u32 x_row, float* weights, u32 lane) {
    for (u32 l = 0; l < net.layers; l++) {
        const Layer& y = net.layer[l];
        bool last = l + 1 == net.layers;
        u32 rows = last ? y.output : y.input, cols = last ? y.input : y.output;
        u32 row_words = weight_row(net, l, x_row), all_rows = weight_rows(net, l);
        // a warp per row
#pragma unroll 2
        for (u32 row = lane / 32; row < all_rows; row += LANES / 32) {
            for (u32 col = lane % 32; col < row_words; col += 32) {
                float* to = weights + row * row_words + col;
                if (row < rows && col < cols) {
                    copy_word(to, params + y.weight + row * cols + col);
                } else {
                    *to = 0.0f;
                }
            }
        }
        weights += all_rows * row_words;
        u32 bias = last ? pad4(y.output) : Fused::STRIDE;
        for (u32 col = lane; col < bias; col += LANES) {
            if (col < y.output) {
                copy_word(weights + col, params + y.bias + col);
            } else {
                weights[col] = 0.0f;
            }
        }
        weights += bias;
    }
}

// Outputs of a layer that one lane holds: TALL rows of COLS columns. Lanes lie ACROSS side by side; a lane's rows are
// DOWN apart. Its columns are whole quads (`quad`), or single ones ACROSS apart.
template <u32 ROWS, u32 LANES>
struct Share {
    static constexpr u32 WORDS = ROWS * Fused::WIDTH / LANES;
    static constexpr u32 COLS = WORDS >= 64 ? 8 : 4;
    static constexpr u32 TALL = WORDS / COLS;
    static constexpr u32 ACROSS = Fused::WIDTH / COLS;
    static constexpr u32 DOWN = LANES / ACROSS;
    static_assert(TALL > 0 && TALL * COLS * LANES == ROWS * Fused::WIDTH, "every lane has the same share");
};

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ __forceinline__ void store4(float* to, float4 v) { *reinterpret_cast<float4*>(to) = v; }

// sum[i][4 q + ..] += a[i DOWN, k] b[k, 32 q + ..] over `depth` values of k, a multiple of 4; `a` and `b` start at the
// lane's own row and quad, and move along, so that all else in an address is a constant of the instruction.
template <class S>
__device__ __forceinline__ void multiply(float (&sum)[S::TALL][S::COLS], const float* a, u32 a_row, const float* b,
                                         u32 depth) {
    constexpr u32 UNROLL = S::WORDS >= 64 ? 1 : 2;
#pragma unroll UNROLL
    for (u32 k = 0; k < depth; k += 4) {
        float4 left[S::TALL];
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) left[i] = load4(a + i * S::DOWN * a_row);
#pragma unroll
        for (u32 step = 0; step < 4; step++) {
#pragma unroll
            for (u32 q = 0; q < S::COLS / 4; q++) {
                float4 right = load4(b + step * Fused::STRIDE + 32 * q);
#pragma unroll
                for (u32 i = 0; i < S::TALL; i++) {
                    float x = step == 0 ? left[i].x : step == 1 ? left[i].y : step == 2 ? left[i].z : left[i].w;
                    sum[i][4 * q] = fmaf(x, right.x, sum[i][4 * q]);
                    sum[i][4 * q + 1] = fmaf(x, right.y, sum[i][4 * q + 1]);
                    sum[i][4 * q + 2] = fmaf(x, right.z, sum[i][4 * q + 2]);
                    sum[i][4 * q + 3] = fmaf(x, right.w, sum[i][4 * q + 3]);
                }
            }
        }
        a += 4;
        b += 4 * Fused::STRIDE;
    }
}

// sum[i][j] += a[i DOWN, k] b[j ACROSS, k] over `depth` values of k: the product with a transposed weight.
template <class S>
__device__ __forceinline__ void multiply_back(float (&sum)[S::TALL][S::COLS], const float* a, const float* b,
                                              u32 depth) {
    constexpr u32 UNROLL = S::WORDS >= 64 ? 1 : 2;
#pragma unroll UNROLL
    for (u32 k = 0; k < depth; k += 4) {
        float4 left[S::TALL];
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) left[i] = load4(a + i * S::DOWN * Fused::STRIDE + k);
#pragma unroll
        for (u32 j = 0; j < S::COLS; j++) {
            float4 right = load4(b + j * S::ACROSS * Fused::STRIDE + k);
#pragma unroll
            for (u32 i = 0; i < S::TALL; i++) {
                sum[i][j] = fmaf(left[i].x, right.x, sum[i][j]);
                sum[i][j] = fmaf(left[i].y, right.y, sum[i][j]);
                sum[i][j] = fmaf(left[i].z, right.z, sum[i][j]);
                sum[i][j] = fmaf(left[i].w, right.w, sum[i][j]);
            }
        }
    }
}

// Activations of a lane's share, in place; `at` is its first quad.
template <class S>
struct ActivateShare {
    float* at;
    template <u32 KIND>
    __device__ __forceinline__ void run() const {
#pragma unroll 1
        for (u32 i = 0; i < S::TALL; i++) {
            // functions with an exponential are long: one after the other keeps the kernel small
#pragma unroll(has_exp(KIND) ? 1 : S::COLS / 4)
            for (u32 q = 0; q < S::COLS / 4; q++) {
                float* word = at + i * S::DOWN * Fused::STRIDE + 32 * q;
                if (has_exp(KIND)) {
#pragma unroll 1
                    for (u32 j = 0; j < 4; j++) word[j] = activate<KIND>(word[j]);
                } else {
                    float4 v = load4(word);
                    v.x = activate<KIND>(v.x), v.y = activate<KIND>(v.y);
                    v.z = activate<KIND>(v.z), v.w = activate<KIND>(v.w);
                    store4(word, v);
                }
            }
        }
    }
};

// Slopes of a lane's share: words of `to` from those of `from`, `next` apart within half a row.
template <class S>
struct SlopeShare {
    float* to;
    const float* from;
    u32 next;
    template <u32 KIND>
    __device__ __forceinline__ void run() const {
#pragma unroll 1
        for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll(KIND == Activations::GELU ? 1 : S::COLS)
            for (u32 j = 0; j < S::COLS; j++) {
                u32 word = i * S::DOWN * Fused::STRIDE + 32 * (j / 4) + j % 4 * next;
                to[word] = slope<KIND>(from[word]);
            }
        }
    }
};

// Outputs of the last layer, started from `bias` or added to what `out` holds: the lanes of a warp share its rows, a few
// lanes to a row where there are more lanes than rows, each with quads of inputs of its own. `weight` has `outputs` rows
// of `depth` words, one more row of zeros where they are odd.
template <u32 ROWS, u32 LANES>
__device__ __forceinline__ void head(u32 outputs, u32 depth, const float* weight, u32 weight_row, const float* bias,
                                     const float* from, u32 from_row, float* out, u32 out_row, bool add, u32 lane) {
    constexpr u32 PARTS = LANES > ROWS ? LANES / ROWS : 1, WARP_ROWS = 32 / PARTS;
    static_assert(PARTS <= 32 && PARTS * WARP_ROWS == 32, "a row's lanes are in one warp");
    u32 part = lane % 32 / WARP_ROWS;
    for (u32 row = lane / 32 * WARP_ROWS + lane % WARP_ROWS; row < ROWS; row += LANES / PARTS) {
        for (u32 o = 0; o < outputs; o += 2) {
            float first = 0.0f, second = 0.0f;
            for (u32 k = 4 * part; k < depth; k += 4 * PARTS) {
                float4 left = load4(from + row * from_row + k);
                float4 right = load4(weight + o * weight_row + k);
                first = fmaf(left.x, right.x, first);
                first = fmaf(left.y, right.y, first);
                first = fmaf(left.z, right.z, first);
                first = fmaf(left.w, right.w, first);
                right = load4(weight + (o + 1) * weight_row + k);
                second = fmaf(left.x, right.x, second);
                second = fmaf(left.y, right.y, second);
                second = fmaf(left.z, right.z, second);
                second = fmaf(left.w, right.w, second);
            }
#pragma unroll
            for (u32 apart = WARP_ROWS; apart < 32; apart *= 2) {
                first += __shfl_xor_sync(~0u, first, apart);
                second += __shfl_xor_sync(~0u, second, apart);
            }
            if (part == 0) {
                float* to = out + row * out_row + o;
                to[0] = first + (add ? to[0] : bias[o]);
                if (o + 1 < outputs) to[1] = second + (add ? to[1] : bias[o + 1]);
            }
        }
    }
}

// Sends ROWS rows through a net. `x` holds rows of `x_row = narrow_row(observation)` words, padding finite; `acts`
// keeps what `acts_words` says; `out` gets rows of `out_row` words, of which the net's outputs are written. Several nets
// may go at once, each with LANES lanes of its own (whole warps; `lane` counts within them): all lanes of the block call
// this together, with `depth` the largest number of layers among the nets. The caller synchronizes before; what is
// written is visible to the block after.
template <u32 ROWS, u32 LANES, bool KEEP>
__device__ __forceinline__ void forward(const Net& net, const float* weights, const float* x, u32 x_row, float* acts,
                                        float* out, u32 out_row, u32 lane, u32 depth) {
    typedef Share<ROWS, LANES> S;
    u32 row = lane / S::ACROSS, quad = 4 * (lane % S::ACROSS), mine = row * Fused::STRIDE + quad;
    const float* from = x;
    u32 from_row = x_row;
    for (u32 l = 0; l + 1 < depth; l++) {
        if (l + 1 < net.layers) {
            // sums start from the bias
            float sum[S::TALL][S::COLS];
            const float* bias = weights + weight_rows(net, l) * Fused::STRIDE + quad;
#pragma unroll
            for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll
                for (u32 j = 0; j < S::COLS; j++) sum[i][j] = bias[32 * (j / 4) + j % 4];
            }
            u32 deep = pad4(net.layer[l].input);
            if (l == 0) {
                multiply<S>(sum, x + row * x_row, x_row, weights + quad, deep);
            } else {
                multiply<S>(sum, from + row * Fused::STRIDE, Fused::STRIDE, weights + quad, deep);
            }
            float* to = acts + l * ROWS * Fused::STRIDE;
            bool keep = KEEP && needs_input(net.activation);
            float* before = to + (net.layers - 1) * ROWS * Fused::STRIDE;
#pragma unroll
            for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll
                for (u32 q = 0; q < S::COLS / 4; q++) {
                    u32 at = mine + i * S::DOWN * Fused::STRIDE + 32 * q;
                    float4 v = {sum[i][4 * q], sum[i][4 * q + 1], sum[i][4 * q + 2], sum[i][4 * q + 3]};
                    store4(to + at, v);
                    if (keep) store4(before + at, v);
                }
            }
            // a second pass over the lane's own words keeps this loop small, whatever the activation
            with_activation(net.activation, ActivateShare<S>{to + mine});
            weights += layer_words(net, l, x_row);
            from = to;
            from_row = Fused::STRIDE;
        }
        __syncthreads();
    }
    u32 last = net.layers - 1, row_words = weight_row(net, last, x_row);
    const Layer& y = net.layer[last];
    head<ROWS, LANES>(y.output, pad4(y.input), weights, row_words, weights + pad4(y.output) * row_words, from, from_row,
                      out, out_row, false, lane);
    __syncthreads();
}

// One step of a sum over `parts` lanes that ends with a share of the sums in each: a lane keeps HALF of its sums and adds
// its partner's half of them. `base` is where the kept ones began.
template <u32 SUMS, u32 HALF>
__device__ __forceinline__ void halve(float (&sum)[SUMS], u32 parts, u32 part, u32 apart, u32& kept, u32& base) {
    constexpr u32 BIT = SUMS / 2 / HALF;
    if (parts <= BIT) return;
    bool upper = part & BIT;
#pragma unroll
    for (u32 j = 0; j < HALF; j++) {
        float mine = upper ? sum[j + HALF] : sum[j], other = upper ? sum[j] : sum[j + HALF];
        sum[j] = mine + __shfl_xor_sync(~0u, other, apart * BIT);
    }
    base += upper ? HALF : 0;
    kept = HALF;
}

// Sums over rows of left[row, a] right[row, b], the gradient of a weight, WIDTH columns wide. A lane has TALL x 8 of them
// (two quads of `right`, half a WIDTH apart); where `tiles` of that height are too few for all lanes, groups of lanes of
// one warp take every `parts`-th row and then add up in a tree.
template <u32 LANES, u32 TALL>
struct Outer {
    static constexpr u32 ACROSS = Fused::WIDTH / 8, SUMS = TALL * 8;
    // lanes that share a tile, how far apart they are, and which of them this is
    u32 parts, apart, part;
    // tiles that all lanes have at once, and which of them is this lane's; its quad of eight
    u32 together, tile, quad;
    float sum[SUMS];

    __device__ __forceinline__ Outer(u32 tiles, u32 lane) {
        parts = 1;
        while (parts < 32 && 2 * parts * tiles * ACROSS <= LANES) parts *= 2;
        // lanes of neighboring rows, or of one row and neighboring quads: either way no two meet in a bank
        bool spread = parts >= 8;
        apart = spread ? 1 : ACROSS;
        part = lane / apart % parts;
        quad = (spread ? lane / parts : lane) % ACROSS;
        together = LANES / (ACROSS * parts);
        tile = lane / (ACROSS * parts);
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (u32 j = 0; j < SUMS; j++) sum[j] = 0.0f;
    }

    // Adds ROWS rows. `left` starts at the tile's first column, whose second quad lies `high` behind it; `near` and
    // `far` are the lane's quads of `right`.
    template <u32 ROWS>
    __device__ __forceinline__ void add(const float* left, u32 left_row, u32 high, const float* near, const float* far,
                                        u32 right_row) {
#pragma unroll 2
        for (u32 row = part; row < ROWS; row += parts) {
            float x[TALL], y[8];
            float4 v = load4(left + row * left_row);
            x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
            if (TALL == 8) {
                v = load4(left + row * left_row + high);
                x[TALL - 4] = v.x, x[TALL - 3] = v.y, x[TALL - 2] = v.z, x[TALL - 1] = v.w;
            }
            v = load4(near + row * right_row);
            y[0] = v.x, y[1] = v.y, y[2] = v.z, y[3] = v.w;
            v = load4(far + row * right_row);
            y[4] = v.x, y[5] = v.y, y[6] = v.z, y[7] = v.w;
#pragma unroll
            for (u32 j = 0; j < SUMS; j++) sum[j] = fmaf(x[j / 8], y[j % 8], sum[j]);
        }
    }

    // Joins the groups and writes the sums to `to`, or adds them to what is there: a tile of `a_len` x `b_len`, rows
    // `to_row` apart, of which the lane's quads begin at columns `near` and `far`.
    __device__ __forceinline__ void write(float* to, u32 to_row, u32 a_len, u32 b_len, u32 near, u32 far, bool add) {
        u32 kept = SUMS, base = 0;
        halve<SUMS, SUMS / 2>(sum, parts, part, apart, kept, base);
        halve<SUMS, SUMS / 4>(sum, parts, part, apart, kept, base);
        halve<SUMS, SUMS / 8>(sum, parts, part, apart, kept, base);
        halve<SUMS, SUMS / 16>(sum, parts, part, apart, kept, base);
        halve<SUMS, SUMS / 32>(sum, parts, part, apart, kept, base);
        // a lane keeps whole rows, or part of one quad; all words are read before any is written
        u32 skipped = base / 8, shift = base % 8;
        u32 col = shift < 4 ? near + shift : far + shift - 4;
        u32 rows = skipped < a_len ? a_len - skipped : 0;
        u32 cols = col < b_len ? min(b_len - col, kept) : 0, far_cols = kept >= 8 && far < b_len ? b_len - far : 0;
        float* near_to = to + skipped * to_row + col;
        float* far_to = to + skipped * to_row + far;
        if (add) {
#pragma unroll
            for (u32 i = 0; i < TALL; i++) {
                if (8 * i < kept && i < rows) {
#pragma unroll
                    for (u32 j = 0; j < 4; j++) {
                        if (j < cols) sum[8 * i + j] += near_to[i * to_row + j];
                        if (j < far_cols) sum[8 * i + j + 4] += far_to[i * to_row + j];
                    }
                }
            }
        }
#pragma unroll
        for (u32 i = 0; i < TALL; i++) {
            if (8 * i < kept && i < rows) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    if (j < cols) near_to[j] = sum[8 * i + j];
                    if (j < far_cols) far_to[j] = sum[8 * i + j + 4];
                }
            }
            near_to += to_row;
            far_to += to_row;
        }
    }
};

// to[a, b] (+)= sum over rows of left[row, a] right[row, b], for a < a_len and b < b_len.
template <u32 ROWS, u32 LANES, u32 TALL>
__device__ __forceinline__ void outer_tiles(const float* left, u32 left_row, u32 a_len, const float* right,
                                            u32 right_row, u32 b_len, float* to, bool add, u32 lane) {
    u32 tiles = (a_len + TALL - 1) / TALL;
    Outer<LANES, TALL> outer(tiles, lane);
    for (u32 b0 = 0; b0 < b_len; b0 += Fused::WIDTH) {
        u32 near = b0 + 4 * outer.quad, far = near + Fused::WIDTH / 2;
        for (u32 first = 0; first < tiles; first += outer.together) {
            // quads beyond the end repeat the first one and are not written
            u32 a = (first + outer.tile) * TALL;
            outer.clear();
            outer.template add<ROWS>(left + (a < a_len ? a : 0), left_row, a + 4 < a_len ? 4 : 0,
                                     right + (near < b_len ? near : 0), right + (far < b_len ? far : 0), right_row);
            outer.write(to + a * b_len, b_len, a < a_len ? a_len - a : 0, b_len, near, far, add);
        }
    }
}

// As `outer_tiles`, with the tile's height chosen for narrow gradients.
template <u32 ROWS, u32 LANES>
__device__ __forceinline__ void outer(const float* left, u32 left_row, u32 a_len, const float* right, u32 right_row,
                                      u32 b_len, float* to, bool add, u32 lane) {
    if (a_len <= 4) {
        outer_tiles<ROWS, LANES, 4>(left, left_row, a_len, right, right_row, b_len, to, add, lane);
    } else {
        outer_tiles<ROWS, LANES, 8>(left, left_row, a_len, right, right_row, b_len, to, add, lane);
    }
}

// to[b] (+)= sum over rows of `right[row, b]`, for b < len: the gradient of a bias. Eight lanes share a quad's rows.
template <u32 ROWS, u32 LANES>
__device__ __forceinline__ void column_sums(const float* right, u32 right_row, u32 len, float* to, bool add, u32 lane) {
    u32 part = lane % 8;
    for (u32 first = 0; first < len; first += LANES / 2) {
        u32 quad = first + lane / 8 * 4;
        const float* at = right + (quad < len ? quad : 0);
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
        for (u32 row = part; row < ROWS; row += 8) {
            float4 v = load4(at + row * right_row);
            sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
#pragma unroll
        for (u32 apart = 1; apart < 8; apart *= 2) {
            sum.x += __shfl_xor_sync(~0u, sum.x, apart);
            sum.y += __shfl_xor_sync(~0u, sum.y, apart);
            sum.z += __shfl_xor_sync(~0u, sum.z, apart);
            sum.w += __shfl_xor_sync(~0u, sum.w, apart);
        }
        float mine = part == 0 ? sum.x : part == 1 ? sum.y : part == 2 ? sum.z : sum.w;
        u32 col = quad + part;
        if (part < 4 && col < len) to[col] = add ? to[col] + mine : mine;
    }
}

// Gradient of ROWS rows that went `forward` with KEEP. `d_out` holds the slopes of the loss at the outputs, rows of
// `out_row` words, and behind them those of `free` parameters that lie behind the net's; padding up to whole quads is
// finite. The gradient is written to `grad`, or added to what is there. Slopes replace the activations. All LANES lanes
// of the block call this; it begins and ends without a barrier.
template <u32 ROWS, u32 LANES>
__device__ __forceinline__ void backward(const Net& net, const float* weights, const float* x, u32 x_row, float* acts,
                                         const float* d_out, u32 out_row, u32 free, float* grad, bool add, u32 lane) {
    typedef Share<ROWS, LANES> S;
    constexpr u32 MATRIX = ROWS * Fused::STRIDE;
    u32 hidden = net.layers - 1, row = lane / S::ACROSS, c = lane % S::ACROSS;
    bool kept = needs_input(net.activation);
    const float* weight = weights + net_words(net, x_row);
    for (u32 l = net.layers; l-- > 0;) {
        const Layer& y = net.layer[l];
        weight -= layer_words(net, l, x_row);
        const float* below = l == 0 ? x : acts + (l - 1) * MATRIX;
        const float* d = l == hidden ? d_out : acts + l * MATRIX;
        u32 below_row = l == 0 ? x_row : Fused::STRIDE, d_row = l == hidden ? out_row : Fused::STRIDE;
        bool last = l == hidden;
        outer<ROWS, LANES>(last ? d : below, last ? d_row : below_row, last ? y.output : y.input, last ? below : d,
                           last ? below_row : d_row, last ? y.input : y.output, grad + y.weight, add, lane);
        column_sums<ROWS, LANES>(d, d_row, y.output + (last ? free : 0), grad + y.bias, add, lane);
        if (l == 0) return;

        // slopes of the activations below: first of the activation function, in place, then times those from above
        float sum[S::TALL][S::COLS];
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll
            for (u32 j = 0; j < S::COLS; j++) sum[i][j] = 0.0f;
        }
        if (last) {
            multiply<S>(sum, d + row * d_row, d_row, weight + 4 * c, pad4(y.output));
        } else {
            multiply_back<S>(sum, d + row * Fused::STRIDE, weight + c * Fused::STRIDE, pad4(y.output));
        }
        __syncthreads();
        float* to = acts + (l - 1) * MATRIX + row * Fused::STRIDE;
        const float* from = kept ? to + hidden * MATRIX : to;
        // a lane's columns: quads where the weight was read in quads, single ones elsewhere
        u32 first = last ? 4 * c : c, next = last ? 1 : S::ACROSS;
        with_activation(net.activation, SlopeShare<S>{to + first, from + first, next});
#pragma unroll
        for (u32 i = 0; i < S::TALL; i++) {
#pragma unroll
            for (u32 j = 0; j < S::COLS; j++) {
                to[i * S::DOWN * Fused::STRIDE + first + 32 * (j / 4) + j % 4 * next] *= sum[i][j];
            }
        }
        __syncthreads();
    }
}
