// Losses of one row of a minibatch and their slopes at the nets' outputs. Twin of `losses` and `value_loss` in
// src/op/minibatch_grad.rs, bit for bit, given the same outputs. One lane holds one row.
#pragma once

#include "core.cuh"
#include "policy.cuh"
#include "trig.cuh"

// What was fixed when the minibatch was recorded, beside the nets.
struct Objective {
    u32 clipped;
    u32 distance;
    float beta;
    u32 clip_value;
    u32 symlog;
    u32 normalize_targets;
    u32 one_sided;
};

// The numbers of a session that a loss needs.
struct Numbers {
    float clip_eps;
    float entropy_coef;
    float policy_coef;
    float value_coef;
    // 1 / deviation of the targets
    float target_scale;
    float mean;
    float scale;
    // 1 / rows of the minibatch
    float inv_len;
};

// Losses so far of one lane, in the columns of `partial_loss`.
struct LossSums {
    float at[Sums::LOSSES];
};

// The policy's part: adds to the sums; `d_out` gets the slopes at the policy's outputs, free parameters behind them.
__device__ __forceinline__ void policy_losses(const Objective& d, const Numbers& n, const Policy& policy,
                                              const Outputs& out, const float* action, float old_log_prob,
                                              float raw_advantage, float* d_out, LossSums& sums) {
    Judged row = judge(policy, out, action);
    float advantage = (raw_advantage - n.mean) * n.scale;
    float raw = row.log_prob - old_log_prob;
    float log_ratio = trig::clamp(raw, -Policies::LOG_RATIO, Policies::LOG_RATIO);
    float ratio = trig::exp(log_ratio);
    float loss = -row.log_prob * advantage, slope = -advantage, outside = 0.0f;
    if (d.clipped) {
        float free = ratio * advantage;
        float held = trig::clamp(ratio, 1.0f - n.clip_eps, 1.0f + n.clip_eps) * advantage;
        bool inside = free <= held && fabsf(raw) < Policies::LOG_RATIO;
        loss = -(free < held ? free : held);
        slope = inside ? -free : 0.0f;
        outside = fabsf(ratio - 1.0f) > n.clip_eps ? 1.0f : 0.0f;
    }
    sums.at[Sums::POLICY] += loss;
    sums.at[Sums::ENTROPY] += row.entropy;
    sums.at[Sums::KL] += ratio - 1.0f - log_ratio;
    sums.at[Sums::CLIP_FRAC] += outside;
    float d_log_prob = n.policy_coef * slope * n.inv_len, bonus = n.entropy_coef * n.inv_len;
    u32 outputs = policy.kind == Policies::CATEGORICAL ? policy.n : 2 * policy.n;
    for (u32 j = 0; j < outputs; j++) {
        float of_log_prob, of_entropy;
        judge_slope(policy, out, action, row, j, of_log_prob, of_entropy);
        d_out[j] = d_log_prob * of_log_prob - bonus * of_entropy;
    }
}

__device__ __forceinline__ float symlog(float x) { return copysignf(trig::ln(1.0f + fabsf(x)), x); }

// Loss of an error, and its slope.
__device__ __forceinline__ float error_loss(u32 kind, float beta, float e, float& d_error) {
    if (kind == Losses::MSE) {
        d_error = 2.0f * e;
        return e * e;
    }
    bool near = fabsf(e) < beta;
    d_error = near ? e / beta : copysignf(1.0f, e);
    return near ? 0.5f * e * e / beta : fabsf(e) - 0.5f * beta;
}

// Distance of a value from its target, and its slope.
__device__ __forceinline__ float distance(const Objective& d, const Numbers& n, float value, float target,
                                          float& d_value) {
    float scaled = value * n.target_scale;
    float e = d.symlog ? symlog(scaled) - symlog(target) : scaled - target;
    e = d.one_sided && e > 0.0f ? 0.0f : e;
    float slope = d.symlog ? n.target_scale / (1.0f + fabsf(scaled)) : n.target_scale;
    float d_error, loss = error_loss(d.distance, d.beta, e, d_error);
    d_value = d_error * slope;
    return loss;
}

// The value's part: adds to the sums and returns the slope at the value.
__device__ __forceinline__ float value_loss(const Objective& d, const Numbers& n, float value, float old_value,
                                            float returns, LossSums& sums) {
    float target = returns;
    if (d.normalize_targets) {
        target = trig::clamp(returns * n.target_scale, -Losses::TARGET_MAX, Losses::TARGET_MAX);
    }
    float slope;
    float loss = distance(d, n, value, target, slope);
    if (d.clip_value) {
        float held_slope, held_value = trig::clamp(value, old_value - n.clip_eps, old_value + n.clip_eps);
        float held = distance(d, n, held_value, target, held_slope);
        bool keep = loss >= held || held_value == value;
        loss = 0.5f * (keep ? loss : held);
        slope = keep ? 0.5f * slope : 0.0f;
    }
    sums.at[Sums::VALUE] += loss;
    return n.value_coef * slope * n.inv_len;
}
