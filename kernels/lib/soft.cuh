// What the kernels of Soft Actor-Critic share: nets whose activations are matrices in scratch, and samples that gradients
// go through, of a squashed Gaussian or of a Gumbel-softmax. Twin of src/op/lib/soft.rs.
#pragma once

#include "layered.cuh"
#include "losses.cuh"
#include "rows.cuh"

namespace soft {

typedef layered::Single Product;

// Whether critics value every action, so that expectations are exact; otherwise they see the action behind the
// observation, the one-hot vector of a discrete one.
__device__ __forceinline__ bool values_all(const Net& actor, const Net& critic, const Policy& policy) {
    return policy.kind == Policies::CATEGORICAL && critic.layer[0].input == actor.layer[0].input;
}

// Rows of a batch in whole blocks.
__device__ __forceinline__ u32 whole_rows(u32 batch) {
    return (batch + layered::ROWS - 1) / layered::ROWS * layered::ROWS;
}

// Words of a net's hidden units, per row.
__device__ __forceinline__ u32 units(const Net& net, u32 layers) {
    u32 sum = 0;
    for (u32 l = 0; l < layers; l++) sum += pad4(net.layer[l].output);
    return sum;
}

// Words per row of the matrices of a net: activations, where they are kept those before the activation that slopes need,
// and outputs or slopes there.
__device__ __forceinline__ u32 matrix_words(const Net& net, bool kept) {
    u32 hidden = units(net, net.layers - 1) * (kept && needs_input(net.activation) ? 2 : 1);
    return hidden + pad4(net.layer[net.layers - 1].output);
}

// Where a net's matrices lie.
struct Matrices {
    const Net& net;
    const float* params;
    // what its first layer reads, [rows, pad4(input)]
    const float* x;
    float* at;
    u32 rows;
    bool kept;

    __device__ __forceinline__ float* acts(u32 l) const { return at + u64(rows) * units(net, l); }
    __device__ __forceinline__ float* before(u32 l) const {
        return kept && needs_input(net.activation) ? acts(net.layers - 1) + u64(rows) * units(net, l) : nullptr;
    }
    __device__ __forceinline__ float* out() const {
        float* end = acts(net.layers - 1);
        return kept && needs_input(net.activation) ? end + u64(rows) * units(net, net.layers - 1) : end;
    }
    __device__ __forceinline__ const float* below(u32 l) const { return l == 0 ? x : acts(l - 1); }
    // slopes at the outputs of layer l: those of activations take their place
    __device__ __forceinline__ const float* slopes(u32 l) const { return l + 1 == net.layers ? out() : acts(l); }
    __device__ __forceinline__ u32 out_row() const { return pad4(net.layer[net.layers - 1].output); }

    // The block's tile of a hidden layer; blocks of one tile of rows are neighbors, and a narrower net has fewer of them.
    __device__ __forceinline__ void forward(u32 l, float* shared, u32 lane) const {
        u32 across = gridDim.x / (rows / layered::ROWS);
        layered::Tile tile = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
        if (l + 1 >= net.layers || tile.col >= net.layer[l].output) return;
        layered::forward_tile<Product>(net.layer[l], net.activation, params, below(l), acts(l), before(l), tile, shared,
                                       lane);
    }

    // Outputs of the block's rows from `row` on into shared memory, rows of `out_row` words.
    __device__ __forceinline__ void head(u32 row, float* to, float* work, u32 lane) const {
        u32 last = net.layers - 1;
        layered::head_rows<Product>(net.layer[last], params, below(last), row, to, out_row(), work, lane);
    }

    // The block's tile of the slopes below layer l; below the first one they go to `to`, as they are.
    __device__ __forceinline__ void backward(u32 l, float* to, float* shared, u32 lane) const {
        u32 across = gridDim.x / (rows / layered::ROWS);
        layered::Tile tile = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
        if (l >= net.layers || tile.col >= net.layer[l].input) return;
        const float* from = l == 0 ? x : before(l - 1) != nullptr ? before(l - 1) : acts(l - 1);
        layered::backward_tile<Product>(net.layer[l], l + 1 == net.layers, l == 0 ? Activations::IDENTITY : net.activation,
                                        params, slopes(l), pad4(net.layer[l].output), from, l == 0 ? to : acts(l - 1), tile,
                                        shared, lane);
    }

    // The block's tile of the gradient of layer l in tile `tile` of the batch's rows; `block` counts within it. `biased`:
    // the bias has one too.
    __device__ __forceinline__ void weights(u32 l, u32 block, u32 tile, u32 tile_rows, float* grad, float* shared,
                                            u32 lane, bool biased = true) const {
        if (l >= net.layers) return;
        const Layer& y = net.layer[l];
        bool last = l + 1 == net.layers;
        u32 row = tile * tile_rows, a_len = last ? y.output : y.input, b_len = last ? y.input : y.output;
        u32 across = (b_len + Fused::WIDTH - 1) / Fused::WIDTH;
        layered::Tile at = {block / across * Fused::WIDTH, block % across * Fused::WIDTH};
        if (at.row >= a_len) return;
        u32 below_row = pad4(y.input), slopes_row = pad4(y.output), at_sums = last ? at.row : at.col;
        bool with_bias = biased && (last ? at.col : at.row) == 0;
        layered::gradient_tile<Product>(last ? slopes(l) : below(l), last ? slopes_row : below_row, a_len,
                                        last ? below(l) : slopes(l), last ? below_row : slopes_row, b_len,
                                        grad + y.weight, row, min(tile_rows, rows - row), at,
                                        with_bias ? grad + y.bias + at_sums : nullptr,
                                        layered::within(y.output, at_sums), last, shared, lane);
    }
};

// The weight of the entropy.
__device__ __forceinline__ float alpha(bool learned, float log_alpha, const float* schedule) {
    return learned ? trig::exp(log_alpha) : schedule[Scheduled::ENTROPY_COEF];
}

// Which numbers are drawn for a row of the batch.
struct Noise {
    u32 key0;
    u32 key1;
    u32 clock;
    u32 purpose;
};

// A word of a sampled action.
struct Sampled {
    // within [-1, 1]
    float action;
    // how far the sample lies from the mean before it is squashed
    float offset;
    float log_prob;
};

// Calls `take(j, word)` with every word of a row's action; `out` holds the actor's outputs. Returns the log-probability.
template <class F>
__device__ __forceinline__ float sample_row(u32 n, const float* out, const Noise& noise, u32 row, F take) {
    float log_prob = 0.0f;
    Words words = {};
#pragma unroll 1
    for (u32 j = 0; j < n; j++) {
        if (j % 4 == 0) words = philox(Words{{row, noise.clock, noise.purpose, j / 4}}, noise.key0, noise.key1);
        bool later = j % 4 >= 2;
        float log_std = clamped_log_std(out[n + j]), sin, cos;
        trig::sin_cos(unit(later ? words.at[3] : words.at[1]) * trig::TAU, sin, cos);
        float normal = sqrtf(-2.0f * trig::ln(unit(later ? words.at[2] : words.at[0]))) * (j % 2 == 0 ? cos : sin);
        float offset = trig::exp(log_std) * normal, x = out[j] + offset;
        log_prob += -0.5f * normal * normal - log_std - Policies::HALF_LN_2PI - ln_tanh_slope(x);
        take(j, Sampled{trig::tanh(x), offset, log_prob});
    }
    return log_prob;
}

// Calls `take(j, score)` with the logit and the Gumbel number of every discrete action of a row; returns the greatest.
template <class F>
__device__ __forceinline__ float score_row(u32 n, const float* out, const Noise& noise, u32 row, F take) {
    float high = 0.0f;
    Words words = {};
#pragma unroll 1
    for (u32 j = 0; j < n; j++) {
        if (j % 4 == 0) words = philox(Words{{row, noise.clock, noise.purpose, j / 4}}, noise.key0, noise.key1);
        // the words take turns at the front
        float score = out[j] - trig::ln(-trig::ln(unit(words.at[0])));
        words = Words{{words.at[1], words.at[2], words.at[3], words.at[0]}};
        high = j == 0 || score > high ? score : high;
        take(j, score);
    }
    return high;
}

}  // namespace soft
