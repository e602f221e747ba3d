// What the kernels of minibatch_grad share, with those of sequences: their parameters, the gather of a chunk's rows, and a row's losses.
#pragma once

#include "core.cuh"
#include "losses.cuh"
#include "rows.cuh"

struct MinibatchGradShape {
    Net actor;
    Net critic;
    Policy policy;
    u32 obs;
    u32 start;
    u32 len;
    u32 minibatch;
    u32 tile_rows;
    u32 clipped;
    u32 distance;
    float beta;
    u32 clip_value;
    u32 symlog;
    u32 normalize_targets;
    u32 one_sided;
    u32 normalize_obs;
    // of kernels that go layer by layer
    u32 layer;
};

struct MinibatchGradArgs {
    Read<u32> index;            // [M]
    Read<float> moments;        // [minibatches, 2]
    Read<float> obs;            // [M, O]
    Read<float> normalizer;     // [2, O]
    Read<float> action;         // [M, A]
    Read<float> log_prob;       // [M]
    Read<float> value;          // [M + N]
    Read<float> advantage;      // [M]
    Read<float> returns;        // [M]
    Read<float> value_moments;  // [4]
    Read<float> hyper;          // [LEN + groups * GROUP_LEN]
    Read<float> schedule;       // [LEN + groups]
    Read<float> params;         // [P]
    Write<float> partial;       // [tiles, P]
    Write<float> partial_loss;  // [tiles, LOSSES]
    Update<float> scratch;
};

// Parameters of the actor beside its net.
__device__ __forceinline__ u32 free_params(const Policy& policy) { return policy.free_std ? policy.n : 0; }

// Outputs of the actor's net that are the policy's; one more is the value.
__device__ __forceinline__ u32 policy_outputs(const Policy& policy) {
    return policy.kind == Policies::CATEGORICAL || policy.free_std ? policy.n : 2 * policy.n;
}

// What a block works for: the actor's net (which may give the value too), or the critic's.
struct Part {
    bool is_critic;
    // of the net, free parameters not among them
    u32 outputs;
    // parameters of the policy behind the net's
    u32 free;
    // first of the net's parameters, and the number of all
    u32 offset;
    u32 params;
    bool has_value;
    // columns of `partial_loss` are the actor's but for this one
    bool owns_value_column;
    u32 value_at;

    // `body`: parameters of what each net stands on, which lie behind it
    template <class D>
    __device__ __forceinline__ Part(const D& d, u32 z, u32 body = 0) {
        u32 actor_params = d.actor.params + free_params(d.policy) + body;
        bool separate = d.critic.layers > 0;
        is_critic = z == 1;
        const Net& net = is_critic ? d.critic : d.actor;
        outputs = net.layer[net.layers - 1].output;
        free = is_critic ? 0 : free_params(d.policy);
        offset = is_critic ? actor_params : 0;
        params = actor_params + (separate ? d.critic.params + body : 0);
        has_value = is_critic || (!separate && outputs > policy_outputs(d.policy));
        owns_value_column = is_critic || !separate;
        value_at = is_critic ? 0 : policy_outputs(d.policy);
    }

    __device__ __forceinline__ bool owns(u32 column) const {
        return column == Sums::VALUE ? owns_value_column : !is_critic;
    }
};

// The numbers that the losses of a minibatch read beside its rows, into shared memory; no barrier.
template <class D, class A>
__device__ __forceinline__ void load_numbers(const D& d, const A& a, u32 s, Numbers* numbers, u32 lane) {
    if (lane != 0) return;
    const float* hyper = a.hyper.of(s);
    const float* schedule = a.schedule.of(s);
    const float* moments = a.moments.of(s) + 2 * d.minibatch;
    numbers->clip_eps = schedule[Scheduled::CLIP_EPS];
    numbers->entropy_coef = schedule[Scheduled::ENTROPY_COEF];
    numbers->policy_coef = hyper[Hyper::POLICY_LOSS_COEF];
    numbers->value_coef = hyper[Hyper::VAL_LOSS_COEF];
    numbers->target_scale = d.normalize_targets ? a.value_moments.of(s)[Moments::SCALE] : 1.0f;
    numbers->mean = moments[0];
    numbers->scale = moments[1];
    numbers->inv_len = 1.0f / float(d.len);
}

// Asks for the cache line of a word that will be read soon.
__device__ __forceinline__ void prefetch(const float* at) {
#ifndef CUDA_CPU_SIM
    asm volatile("prefetch.global.L1 [%0];" ::"l"(at));
#endif
}

// Asks for what `row_losses` will read of row `m`: it comes while the net goes ahead.
__device__ __forceinline__ void prefetch_row(const MinibatchGradShape& d, const MinibatchGradArgs& a, u32 s,
                                             const Part& part, u32 m) {
    if (!part.is_critic) {
        prefetch(a.action.of(s) + u64(m) * (d.policy.kind == Policies::CATEGORICAL ? 1 : d.policy.n));
        prefetch(a.log_prob.of(s) + m);
        prefetch(a.advantage.of(s) + m);
    }
    if (part.has_value) {
        prefetch(a.value.of(s) + m);
        prefetch(a.returns.of(s) + m);
    }
}

// Losses of row `m` of the rollout, whose outputs are `out`: adds to the sums; `slopes` gets `out_row` words, the slopes
// at the outputs, then those of the free parameters, then zeros. `params` are the net's.
template <class D, class A>
__device__ __forceinline__ void row_losses(const D& d, const A& a, u32 s, const Part& part, const Numbers& n,
                                           const float* params, u32 m, const float* out, float* slopes, u32 out_row,
                                           LossSums& sums) {
    Objective objective = {d.clipped, d.distance, d.beta, d.clip_value, d.symlog, d.normalize_targets,
                           d.one_sided};
#pragma unroll 1
    for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
    if (!part.is_critic) {
        u32 words = d.policy.kind == Policies::CATEGORICAL ? 1 : d.policy.n;
        Outputs said = {out, 1, params + d.actor.params};
        policy_losses(objective, n, d.policy, said, a.action.of(s) + u64(m) * words,
                      a.log_prob.of(s)[m], a.advantage.of(s)[m], slopes, sums);
        // the value's slope comes between those of outputs and free parameters
        if (part.has_value) {
#pragma unroll 1
            for (u32 j = part.free; j-- > 0;) slopes[part.outputs + j] = slopes[part.value_at + j];
        }
    }
    if (part.has_value) {
        slopes[part.value_at] = value_loss(objective, n, out[part.value_at], a.value.of(s)[m],
                                           a.returns.of(s)[m], sums);
    }
}

// Copies observations of ROWS rows as the nets see them; rows from `rows` on become zeros.
template <u32 ROWS, u32 LANES, class D, class A>
__device__ __forceinline__ void gather_obs(const D& d, const A& a, u32 s, const u32* index, u32 rows, float* x,
                                           u32 x_row, u32 lane) {
    const float* hyper = a.hyper.of(s);
    Normalizing by = {d.normalize_obs, a.normalizer.of(s), hyper[Hyper::OBS_CLIP_LOW], hyper[Hyper::OBS_CLIP_HIGH]};
    gather_rows<ROWS, LANES>(a.obs.of(s), d.obs, by, index, rows, x, x_row, lane);
}
