// Action distributions of one row: sampling, log-probability, entropy and their slopes. Twin of src/op/lib/policy.rs,
// bit for bit, given the same outputs of the net.
#pragma once

#include "rng.cuh"
#include "trig.cuh"

// What a net says of one row: outputs `stride` words apart; a Gaussian's log standard deviations are outputs behind the
// means, or parameters of their own.
struct Outputs {
    const float* at;
    u32 stride;
    const float* free_log_std;
    __device__ __forceinline__ float operator[](u32 j) const { return at[j * stride]; }
    // of action word j, before it is clamped
    __device__ __forceinline__ float log_std(const Policy& policy, u32 j) const {
        return policy.free_std ? free_log_std[j] : at[(policy.n + j) * stride];
    }
};

// Maximum of the logits, and ln(sum(exp(x - max))).
__device__ __forceinline__ void log_sum_exp(const Outputs& out, u32 n, float& top, float& ln_sum) {
    top = out[0];
#pragma unroll 1
    for (u32 j = 1; j < n; j++) top = out[j] > top ? out[j] : top;
    float sum = 0.0f;
    // two at a time hide half of the latency where there are two actions
#pragma unroll 2
    for (u32 j = 0; j < n; j++) sum += trig::exp(out[j] - top);
    ln_sum = trig::ln(sum);
}

// ln(1 - tanh(x)^2), stable for large |x|.
__device__ __forceinline__ float ln_tanh_slope(float x) {
    float a = fabsf(x);
    return 2.0f * (0.6931472f - a - trig::ln(1.0f + trig::exp(-2.0f * a)));
}

__device__ __forceinline__ float clamped_log_std(float raw) {
    return trig::clamp(raw, Policies::LOG_STD_LOW, Policies::LOG_STD_HIGH);
}

// Philox words that an action of `a` words takes: one each, rounded up to whole blocks.
__device__ constexpr u32 action_words(u32 a) { return (a + 3) / 4 * 4; }

// The words of an action, from the counter (env, step, ACTION, block).
template <u32 WORDS>
__device__ __forceinline__ void draw_action(u32 env, u32 step, u32 key0, u32 key1, u32 (&words)[WORDS]) {
#pragma unroll
    for (u32 block = 0; block < WORDS / 4; block++) {
        Words drawn = philox(Words{{env, step, Purpose::ACTION, block}}, key0, key1);
#pragma unroll
        for (u32 w = 0; w < 4; w++) words[block * 4 + w] = drawn.at[w];
    }
}

// Samples an action (`greedy`: the most likely one) and returns its log-probability.
template <u32 A, u32 WORDS>
__device__ __forceinline__ float sample(const Policy& policy, const Outputs& out, const u32 (&words)[WORDS],
                                        bool greedy, float (&action)[A]) {
    float log_prob = 0.0f;
    if (policy.kind == Policies::CATEGORICAL) {
        u32 n = policy.n;
        float top, ln_sum, chosen = out[0];
        log_sum_exp(out, n, top, ln_sum);
        u32 best = 0;
        if (greedy) {
#pragma unroll 1
            for (u32 j = 1; j < n; j++) {
                best = out[j] > chosen ? j : best;
                chosen = out[j] > chosen ? out[j] : chosen;
            }
        } else {
            // the first action whose cumulative probability passes u; the last one takes what rounding leaves
            float sum = 0.0f, u = unit(words[0]);
#pragma unroll 1
            for (u32 j = 0; j + 1 < n; j++) {
                sum += trig::exp(out[j] - top - ln_sum);
                best += u > sum ? 1 : 0;
            }
        }
        log_prob = out[best] - top - ln_sum;
        action[0] = float(best);
    } else {
        float sin, cos, radius;
#pragma unroll
        for (u32 j = 0; j < A; j++) {
            float log_std = clamped_log_std(out.log_std(policy, j));
            if (j % 2 == 0) {
                // Box and Muller 1958: two normals from two uniforms
                trig::sin_cos(unit(words[j + 1]) * trig::TAU, sin, cos);
                radius = sqrtf(-2.0f * trig::ln(unit(words[j])));
            }
            float z = greedy ? 0.0f : radius * (j % 2 == 0 ? cos : sin);
            action[j] = out[j] + trig::exp(log_std) * z;
            log_prob += -0.5f * z * z - log_std - Policies::HALF_LN_2PI;
            if (policy.squashed) log_prob -= ln_tanh_slope(action[j]);
        }
    }
    return log_prob;
}

// What is known of a row and its action: enough to tell every slope.
struct Judged {
    float log_prob;
    float entropy;
    float top;
    float ln_sum;
};

// Log-probability of a stored action, and the entropy. `action` holds the words of one action.
__device__ __forceinline__ Judged judge(const Policy& policy, const Outputs& out, const float* action) {
    Judged row = {0.0f, 0.0f, 0.0f, 0.0f};
    if (policy.kind == Policies::CATEGORICAL) {
        log_sum_exp(out, policy.n, row.top, row.ln_sum);
#pragma unroll 1
        for (u32 j = 0; j < policy.n; j++) {
            float log_p = out[j] - row.top - row.ln_sum;
            row.log_prob += action[0] == float(j) ? log_p : 0.0f;
            row.entropy -= trig::exp(log_p) * log_p;
        }
    } else {
#pragma unroll 1
        for (u32 j = 0; j < policy.n; j++) {
            float log_std = clamped_log_std(out.log_std(policy, j));
            float z = (action[j] - out[j]) * trig::exp(-log_std);
            row.log_prob += -0.5f * z * z - log_std - Policies::HALF_LN_2PI;
            row.entropy += 0.5f + Policies::HALF_LN_2PI + log_std;
            if (policy.squashed) {
                float slope = ln_tanh_slope(action[j]);
                row.log_prob -= slope;
                row.entropy += slope;
            }
        }
    }
    return row;
}

// Slopes of log-probability and entropy with respect to output j: logits, or means and then log standard deviations.
__device__ __forceinline__ void judge_slope(const Policy& policy, const Outputs& out, const float* action,
                                            const Judged& row, u32 j, float& d_log_prob, float& d_entropy) {
    if (policy.kind == Policies::CATEGORICAL) {
        float log_p = out[j] - row.top - row.ln_sum;
        float p = trig::exp(log_p);
        d_log_prob = (action[0] == float(j) ? 1.0f : 0.0f) - p;
        d_entropy = p * -(log_p + row.entropy);
        return;
    }
    u32 word = j < policy.n ? j : j - policy.n;
    float raw = out.log_std(policy, word);
    float inv_std = trig::exp(-clamped_log_std(raw));
    float z = (action[word] - out[word]) * inv_std;
    float inside = raw > Policies::LOG_STD_LOW && raw < Policies::LOG_STD_HIGH ? 1.0f : 0.0f;
    d_log_prob = j < policy.n ? z * inv_std : inside * (z * z - 1.0f);
    d_entropy = j < policy.n ? 0.0f : inside;
}
