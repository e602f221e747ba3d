// What the kernels of td_grad share: their parameters; and with sequence_td_grad.cu, what the next state of a row is worth,
// and a row's loss. Twin of `next_value` and `losses` in src/op/td_grad.rs, bit for bit, given the same outputs. One lane
// holds one row. D and A are the shape and the arguments of an op of the two.
#pragma once

#include "core.cuh"
#include "losses.cuh"
#include "rows.cuh"

struct TdGradShape {
    // an output per action; a dueling net has the state's value as one more
    Net net;
    u32 actions;
    u32 dueling;
    // rows of the ring, and environments
    u32 rows;
    u32 envs;
    // first of the batch's samples, its rows, and those of a tile
    u32 start;
    u32 batch;
    u32 tile_rows;
    // the next state's value: of the action taken next; chosen by the net itself; told by a target net
    u32 sarsa;
    u32 asks_itself;
    u32 has_target;
    u32 distance;
    float beta;
    u32 normalize_obs;
    // of kernels that go layer by layer
    u32 layer;
};

struct TdGradArgs {
    Read<u32> index;            // [samples]
    Read<u32> last;             // [samples]
    Read<float> returns;        // [samples]
    Read<float> discount;       // [samples]
    Read<float> weight;         // [samples]
    Read<float> obs;            // [R, O]
    Read<float> next_obs;       // [R, O]
    Read<float> action;         // [R]
    Read<float> normalizer;     // [2, O]
    Read<float> hyper;          // [LEN + groups * GROUP_LEN]
    Read<float> params;         // [P]
    Read<float> target;         // [P], empty where no target net is asked
    Write<float> partial;       // [tiles, P]
    Write<float> partial_loss;  // [tiles, LOSSES]
    Write<float> error;         // [B]
    Update<float> scratch;
};

template <class D, class A>
__device__ __forceinline__ Normalizing normalizing(const D& d, const A& a, u32 s) {
    const float* hyper = a.hyper.of(s);
    return {d.normalize_obs, a.normalizer.of(s), hyper[Hyper::OBS_CLIP_LOW], hyper[Hyper::OBS_CLIP_HIGH]};
}

// Values of the actions, from a net's outputs.
struct Values {
    const float* out;
    bool dueling;
    float state;
    float mean;

    template <class D>
    __device__ __forceinline__ Values(const D& d, const float* out) : out(out), dueling(d.dueling) {
        state = mean = 0.0f;
        if (!dueling) return;
        for (u32 j = 0; j < d.actions; j++) mean += out[j];
        mean *= 1.0f / float(d.actions);
        state = out[d.actions];
    }
    __device__ __forceinline__ float operator[](u32 j) const { return dueling ? state + out[j] - mean : out[j]; }
};

// What a state is worth, by the outputs of the net itself and of the target net there, of which only those are read that the
// backup asks. Where one was `taken`, it is action `next` that counts.
template <class D>
__device__ __forceinline__ float value_of(const D& d, bool taken, float next, const float* own, const float* other) {
    Values by(d, d.asks_itself ? own : other), of(d, d.has_target ? other : own);
    float most = by[0], value = of[0];
    for (u32 j = 1; j < d.actions; j++) {
        bool better = taken ? next == float(j) : by[j] > most;
        most = better ? by[j] : most;
        value = better ? of[j] : value;
    }
    return value;
}

// What the state behind sample `i` is worth.
__device__ __forceinline__ float next_value(const TdGradShape& d, const TdGradArgs& a, u32 s, u32 i, const float* own,
                                            const float* other) {
    float next = 0.0f;
    if (d.sarsa) {
        u32 after = a.last.of(s)[i] + d.envs;
        next = a.action.of(s)[after >= d.rows ? after - d.rows : after];
    }
    return value_of(d, d.sarsa != 0, next, own, other);
}

// Row `b` of the batch, sample `i`, whose outputs are `out` and whose next state is worth `value`: stores the size of its
// error, returns its loss; `slopes` gets `out_row` words, the slopes at the outputs, then zeros.
template <class D, class A>
__device__ __forceinline__ float td_loss(const D& d, const A& a, u32 s, u32 b, u32 i, const float* out, float value,
                                         float* slopes, u32 out_row) {
    float action = a.action.of(s)[a.index.of(s)[i]], weight = a.weight.of(s)[i], d_error;
    Values values(d, out);
    float q = values[0];
    for (u32 j = 1; j < d.actions; j++) q = action == float(j) ? values[j] : q;
    float error = q - (a.returns.of(s)[i] + a.discount.of(s)[i] * value);
    float loss = error_loss(d.distance, d.beta, error, d_error);
    a.error.of(s)[b] = fabsf(error);
    float slope = weight * d_error * (1.0f / float(d.batch)), share = d.dueling ? 1.0f / float(d.actions) : 0.0f;
    for (u32 j = 0; j < out_row; j++) {
        float of_action = slope * ((action == float(j) ? 1.0f : 0.0f) - share);
        slopes[j] = j < d.actions ? of_action : j == d.actions && d.dueling ? slope : 0.0f;
    }
    return weight * loss;
}

// Writes a tile's losses: that of values, and zeros.
__device__ __forceinline__ void write_losses(float* losses, float sum, u32 lane) {
    if (lane < Sums::LOSSES) losses[lane] = lane == Sums::VALUE ? sum : 0.0f;
}
