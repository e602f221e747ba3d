// Gradient of one minibatch for nets that fit one block: gather, forward, loss, backward. Twin of
// src/op/minibatch_grad.rs.
//
// One block per tile of rows, session and net: actor and critic are separate nets and share nothing, so they run side by
// side; each writes its own parameters' part of `partial` and its own columns of `partial_loss`. 128 lanes hold the
// net's parameters in shared memory and go through the tile in chunks of ROWS rows (32, 64 or 128 by the tile's height):
// activations never leave shared memory, slopes take their place on the way back, weight gradients are sums over the
// chunk's rows in registers, written once, or added to the earlier chunks' in L2.
//
// A row costs 3 multiply-adds per weight (2 in the first layer); 2x64 with 128 rows: 13 K fused multiply-adds and 5 K
// other instructions per lane and chunk, shared memory read at 16 words per 64 of them. Bound by the f32 units, then by
// shared memory; device memory sees each row once and the gradient once per tile. Every sum runs in an order that
// shapes alone decide: within a lane over inputs or rows, then a tree over lanes, then chunk by chunk.

#include "lib/core.cuh"
#include "lib/losses.cuh"
#include "lib/mlp.cuh"

struct GradShape {
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
    u32 normalize_obs;
};

struct GradArgs {
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

__device__ __forceinline__ Objective objective(const GradShape& d) {
    return {d.clipped, d.distance, d.beta, d.clip_value, d.symlog, d.normalize_targets};
}

__device__ __forceinline__ Numbers numbers(const GradShape& d, const GradArgs& a, u32 s) {
    const float* hyper = a.hyper.of(s);
    const float* schedule = a.schedule.of(s);
    const float* moments = a.moments.of(s) + 2 * d.minibatch;
    float target_scale = d.normalize_targets ? a.value_moments.of(s)[Moments::SCALE] : 1.0f;
    return {schedule[Scheduled::CLIP_EPS],      schedule[Scheduled::ENTROPY_COEF], hyper[Hyper::POLICY_LOSS_COEF],
            hyper[Hyper::VAL_LOSS_COEF],        target_scale,                      moments[0],
            moments[1],                         1.0f / float(d.len)};
}

// Parameters of the actor beside its net.
__device__ __forceinline__ u32 free_params(const Policy& policy) { return policy.free_std ? policy.n : 0; }

// Words of an action.
__device__ __forceinline__ u32 action_len(const Policy& policy) {
    return policy.kind == Policies::CATEGORICAL ? 1 : policy.n;
}

// Outputs of the actor's net that are the policy's; one more is the value.
__device__ __forceinline__ u32 policy_outputs(const Policy& policy) {
    return policy.kind == Policies::CATEGORICAL || policy.free_std ? policy.n : 2 * policy.n;
}

// Copies observations of a chunk, normalized where asked; rows from `rows` on become zeros. Neighboring lanes take
// neighboring words of a row.
template <u32 ROWS, u32 LANES>
__device__ __forceinline__ void gather_obs(const GradShape& d, const GradArgs& a, u32 s, const u32* index, u32 rows,
                                           float* x, u32 x_row, u32 lane) {
    const float* obs = a.obs.of(s);
    const float* normalizer = a.normalizer.of(s);
    float low = a.hyper.of(s)[Hyper::OBS_CLIP_LOW], high = a.hyper.of(s)[Hyper::OBS_CLIP_HIGH];
    u32 across = 4;
    while (across < 32 && across < x_row) across *= 2;
    for (u32 row = lane / across; row < ROWS; row += LANES / across) {
        const float* from = obs + u64(row < rows ? index[row] : 0) * d.obs;
        for (u32 o = lane % across; o < x_row; o += across) {
            float v = 0.0f;
            if (row < rows && o < d.obs) {
                v = from[o];
                if (d.normalize_obs) v = trig::clamp((v - normalizer[o]) * normalizer[d.obs + o], low, high);
            }
            x[row * x_row + o] = v;
        }
    }
}

// Sum over the block of one number per lane: within warps as a tree, then warp by warp.
template <u32 LANES>
__device__ __forceinline__ float block_sum(float x, float* warps, u32 lane) {
#pragma unroll
    for (u32 apart = 16; apart > 0; apart /= 2) x += __shfl_xor_sync(~0u, x, apart);
    __syncthreads();
    if (lane % 32 == 0) warps[lane / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < LANES / 32; warp++) sum += warps[warp];
    return sum;
}

// One tile of one net.
template <u32 ROWS>
__device__ __forceinline__ void tile_gradient(const GradShape& d, const GradArgs& a, u32 s, float* shared) {
    constexpr u32 LANES = 128;
    u32 lane = threadIdx.x, tile = blockIdx.x;
    bool is_critic = blockIdx.z == 1, separate = d.critic.layers > 0;
    const Net& net = is_critic ? d.critic : d.actor;
    u32 free = is_critic ? 0 : free_params(d.policy), offset = is_critic ? d.actor.params + free_params(d.policy) : 0;
    u32 outputs = net.layer[net.layers - 1].output, params_len = d.actor.params + free_params(d.policy) + d.critic.params;
    const float* params = a.params.of(s) + offset;
    bool has_value = is_critic || (!separate && outputs > policy_outputs(d.policy));
    u32 value_at = is_critic ? 0 : policy_outputs(d.policy);

    // shared memory: observations, outputs, their slopes, parameters, activations
    u32 x_row = narrow_row(d.obs), out_row = narrow_row(outputs + free);
    float* x = shared;
    float* out = x + ROWS * x_row;
    float* d_out = out + ROWS * out_row;
    float* weights = d_out + ROWS * out_row;
    float* acts = weights + net_words(net, x_row);
    load_net<LANES>(net, params, x_row, weights, lane);

    Objective how = objective(d);
    Numbers n = numbers(d, a, s);
    LossSums sums = {};
    float* grad = a.partial.of(s) + u64(tile) * params_len + offset;
    u32 begin = tile * d.tile_rows, end = min(begin + d.tile_rows, d.len);
    for (u32 at = begin; at < end; at += ROWS) {
        const u32* index = a.index.of(s) + d.start + at;
        u32 rows = min(end - at, ROWS);
        gather_obs<ROWS, LANES>(d, a, s, index, rows, x, x_row, lane);
        __syncthreads();
        forward<ROWS, LANES, true>(net, weights, x, x_row, acts, out, out_row, lane, net.layers);

        // a lane per row; rows that are not there count nothing
        for (u32 row = lane; row < ROWS; row += LANES) {
            float* slopes = d_out + row * out_row;
            for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
            if (row >= rows) continue;
            u32 m = index[row];
            if (!is_critic) {
                const float* action = a.action.of(s) + u64(m) * action_len(d.policy);
                Outputs said = {out + row * out_row, 1, params + net.params};
                policy_losses(how, n, d.policy, said, action, a.log_prob.of(s)[m], a.advantage.of(s)[m], slopes, sums);
                // slopes of free parameters go behind all outputs
                if (has_value) {
                    for (u32 j = free; j-- > 0;) slopes[outputs + j] = slopes[value_at + j];
                }
            }
            if (has_value) {
                float value = out[row * out_row + value_at];
                slopes[value_at] = value_loss(how, n, value, a.value.of(s)[m], a.returns.of(s)[m], sums);
            }
        }
        __syncthreads();
        backward<ROWS, LANES>(net, weights, x, x_row, acts, d_out, out_row, free, grad, at > begin, lane);
        __syncthreads();
    }

    float* losses = a.partial_loss.of(s) + tile * Sums::LOSSES;
    for (u32 c = 0; c < Sums::LOSSES; c++) {
        float sum = block_sum<LANES>(sums.at[c], x, lane);
        bool mine = (c == Sums::VALUE && separate) == is_critic;
        if (lane == 0 && mine) losses[c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    minibatch_grad_32(__grid_constant__ const GradShape d, __grid_constant__ const Sessions sessions,
                      __grid_constant__ const GradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    tile_gradient<32>(d, a, s, shared);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    minibatch_grad_64(__grid_constant__ const GradShape d, __grid_constant__ const Sessions sessions,
                      __grid_constant__ const GradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    tile_gradient<64>(d, a, s, shared);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    minibatch_grad_128(__grid_constant__ const GradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const GradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    tile_gradient<128>(d, a, s, shared);
}
