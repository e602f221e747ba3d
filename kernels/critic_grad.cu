// Gradient of Soft Actor-Critic's two critics on a batch, layer by layer through scratch. Twin of src/op/critic_grad.rs.
//
// Kernels in order: gather; forward of the actor at the next observations and of both critics at what was done, side by
// side (z of the grid), once per hidden layer; the actor's outputs and what it does; forward of both target critics
// there; outputs of all four, targets and losses; then for every layer from the last: gradient of its weights, and
// slopes at the units below it. Blocks of 128 lanes make tiles of 64 x 64 numbers. Per row and weight of a critic 4
// multiply-adds, of the actor one; batches are small, so a dozen short launches one behind the other are bound by their
// latency, which sessions in the grid share. Orders depend on shapes alone.

#include "lib/core.cuh"
#include "lib/soft.cuh"

struct CriticGradShape {
    Net actor;
    Net critic;
    Policy policy;
    // first of the batch's samples, its rows, and those of a tile
    u32 start;
    u32 batch;
    u32 tile_rows;
    u32 learned;
    u32 distance;
    float beta;
    u32 symlog;
    u32 normalize_obs;
    // of one launch: the target critics' turn, and the layer
    u32 targets;
    u32 layer;
};

struct CriticGradArgs {
    Read<u32> index;            // [samples]
    Read<u32> last;             // [samples]
    Read<float> returns;        // [samples]
    Read<float> discount;       // [samples]
    Read<float> weight;         // [samples]
    Read<float> obs;            // [R, O]
    Read<float> next_obs;       // [R, O]
    Read<float> action;         // [R, A]
    Read<float> normalizer;     // [2, O]
    Read<float> hyper;          // [LEN + groups * GROUP_LEN]
    Read<float> schedule;       // [LEN + groups]
    Read<u32> seed;             // [2]
    Read<u32> clock;            // [4]
    Read<float> params;         // [P]
    Read<float> target;         // [2, critic]
    Write<float> partial;       // [tiles, 2, critic]
    Write<float> partial_loss;  // [tiles, LOSSES]
    Write<float> error;         // [B]
    Update<float> scratch;
};

// Parts of a session's scratch.
struct Scratch {
    u32 rows;
    // next observations as the actor sees them, and as critics do with the action behind them; what was done
    float* next;
    float* next_seen;
    float* seen;
    float* actor;
    float* targets;
    float* critics;
    // of every row: alpha ln pi, or its mean; probabilities of discrete actions
    float* bonus;
    float* probs;
    // of every block of rows
    float* losses;

    __device__ __forceinline__ Scratch(const CriticGradShape& d, const CriticGradArgs& a, u32 s) {
        rows = soft::whole_rows(d.batch);
        u32 seen_row = pad4(d.critic.layer[0].input);
        next = a.scratch.of(s);
        next_seen = next + u64(rows) * pad4(d.actor.layer[0].input);
        seen = next_seen + u64(rows) * seen_row;
        actor = seen + u64(rows) * seen_row;
        targets = actor + u64(rows) * soft::matrix_words(d.actor, false);
        critics = targets + 2 * u64(rows) * soft::matrix_words(d.critic, false);
        bonus = critics + 2 * u64(rows) * soft::matrix_words(d.critic, true);
        probs = bonus + rows;
        losses = probs + u64(rows) * (soft::values_all(d.actor, d.critic, d.policy) ? d.policy.n : 0);
    }
};

__device__ __forceinline__ soft::Matrices actor_of(const CriticGradShape& d, const CriticGradArgs& a, u32 s,
                                                   const Scratch& at) {
    return {d.actor, a.params.of(s), at.next, at.actor, at.rows, false};
}
__device__ __forceinline__ soft::Matrices target_of(const CriticGradShape& d, const CriticGradArgs& a, u32 s,
                                                    const Scratch& at, u32 k) {
    return {d.critic, a.target.of(s) + k * d.critic.params, at.next_seen,
            at.targets + k * u64(at.rows) * soft::matrix_words(d.critic, false), at.rows, false};
}
__device__ __forceinline__ soft::Matrices critic_of(const CriticGradShape& d, const CriticGradArgs& a, u32 s,
                                                    const Scratch& at, u32 k) {
    return {d.critic, a.params.of(s) + d.actor.params + 1 + k * d.critic.params, at.seen,
            at.critics + k * u64(at.rows) * soft::matrix_words(d.critic, true), at.rows, true};
}

extern "C" __global__ void __launch_bounds__(128)
    critic_grad_gather(__grid_constant__ const CriticGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const CriticGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    Scratch at(d, a, s);
    const float* hyper = a.hyper.of(s);
    Normalizing by = {d.normalize_obs, a.normalizer.of(s), hyper[Hyper::OBS_CLIP_LOW], hyper[Hyper::OBS_CLIP_HIGH]};
    u32 part = blockIdx.z, row = blockIdx.x * layered::ROWS, lane = threadIdx.x, words = d.actor.layer[0].input;
    u32 rows = min(d.batch - row, layered::ROWS), seen_words = d.critic.layer[0].input;
    u32 x_row = pad4(part == 0 ? words : seen_words);
    const u32* index = (part == 2 ? a.index.of(s) : a.last.of(s)) + d.start + row;
    float* x = (part == 0 ? at.next : part == 1 ? at.next_seen : at.seen) + u64(row) * x_row;
    gather_rows<layered::ROWS, layered::LANES>(part == 2 ? a.obs.of(s) : a.next_obs.of(s), words, by, index, rows, x,
                                               x_row, lane);
    if (part != 2 || seen_words == words) return;
    // the action behind the observation
    __syncthreads();
    u32 n = seen_words - words;
    for (u32 i = lane; i < rows * n; i += layered::LANES) {
        float* to = x + i / n * x_row + words;
        if (d.policy.kind == Policies::CATEGORICAL) {
            to[i % n] = u32(a.action.of(s)[index[i / n]]) == i % n ? 1.0f : 0.0f;
        } else {
            to[i % n] = a.action.of(s)[u64(index[i / n]) * n + i % n];
        }
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    critic_grad_forward(__grid_constant__ const CriticGradShape d, __grid_constant__ const Sessions sessions,
                        __grid_constant__ const CriticGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    u32 z = blockIdx.z;
    soft::Matrices m = d.targets ? target_of(d, a, s, at, z) : z < 2 ? critic_of(d, a, s, at, z) : actor_of(d, a, s, at);
    m.forward(d.layer, shared, threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    critic_grad_act(__grid_constant__ const CriticGradShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const CriticGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    soft::Matrices m = actor_of(d, a, s, at);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS, n = d.policy.n;
    m.head(row, shared, shared + layered::ROWS * m.out_row(), lane);
    if (lane >= layered::ROWS || row + lane >= d.batch) return;
    row += lane;
    const float* out = shared + lane * m.out_row();
    float alpha = soft::alpha(d.learned, m.params[d.actor.params], a.schedule.of(s));
    float* seen = at.next_seen + u64(row) * pad4(d.critic.layer[0].input) + d.actor.layer[0].input;
    soft::Noise noise = {a.seed.of(s)[0], a.seed.of(s)[1], a.clock.of(s)[Clock::CLOCK_OPT], Purpose::NEXT_ACTION};
    if (soft::values_all(d.actor, d.critic, d.policy)) {
        float top, ln_sum, mean = 0.0f;
        log_sum_exp(Outputs{out, 1, nullptr}, n, top, ln_sum);
        for (u32 j = 0; j < n; j++) {
            float log_p = out[j] - top - ln_sum, p = trig::exp(log_p);
            at.probs[u64(row) * n + j] = p;
            mean += p * log_p;
        }
        at.bonus[row] = alpha * mean;
    } else if (d.policy.kind == Policies::CATEGORICAL) {
        float high = soft::score_row(n, out, noise, row, [&](u32 j, float score) { seen[j] = score; });
        float top, ln_sum, log_prob = 0.0f;
        log_sum_exp(Outputs{out, 1, nullptr}, n, top, ln_sum);
        bool open = true;
        for (u32 j = 0; j < n; j++) {
            bool chosen = open && seen[j] == high;
            open = open && !chosen;
            if (chosen) log_prob = out[j] - top - ln_sum;
            seen[j] = chosen ? 1.0f : 0.0f;
        }
        at.bonus[row] = alpha * log_prob;
    } else {
        at.bonus[row] = alpha * soft::sample_row(n, out, noise, row, [&](u32 j, soft::Sampled word) {
            seen[j] = word.action;
        });
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    critic_grad_losses(__grid_constant__ const CriticGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const CriticGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS, b = row + lane, i = d.start + b;
    u32 out_row = pad4(d.critic.layer[d.critic.layers - 1].output);
    bool discrete = soft::values_all(d.actor, d.critic, d.policy), mine = lane < layered::ROWS && b < d.batch;
    float* work = shared + layered::ROWS * out_row;
    const float* out = shared + lane * out_row;

    // what the state behind is worth
    float value = 0.0f;
#pragma unroll 1
    for (u32 k = 0; k < 2; k++) {
        target_of(d, a, s, at, k).head(row, shared, work, lane);
        if (mine && discrete) {
            for (u32 j = 0; j < d.policy.n; j++) value += 0.5f * at.probs[u64(b) * d.policy.n + j] * out[j];
        } else if (mine) {
            value = k == 0 || out[0] < value ? out[0] : value;
        }
        // outputs are read before the next net's are written
        __syncthreads();
    }
    u32 output = 0;
    float target = 0.0f, weight = 0.0f, first = 0.0f, sum = 0.0f, share = 1.0f / float(d.batch);
    if (mine) {
        target = a.returns.of(s)[i] + a.discount.of(s)[i] * (value - at.bonus[b]);
        weight = a.weight.of(s)[i];
        if (discrete) output = u32(a.action.of(s)[a.index.of(s)[i]]);
    }
#pragma unroll 1
    for (u32 k = 0; k < 2; k++) {
        soft::Matrices m = critic_of(d, a, s, at, k);
        m.head(row, shared, work, lane);
        if (lane < layered::ROWS) {
            float* slopes = m.out() + u64(b) * out_row;
            for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
            if (mine) {
                float q = out[output], outer;
                float e = d.symlog ? symlog(q) - symlog(target) : q - target;
                float inner = d.symlog ? 1.0f / (1.0f + fabsf(q)) : 1.0f;
                sum += weight * error_loss(d.distance, d.beta, e, outer);
                slopes[output] = outer * inner * weight * share;
                first = k == 0 || q < first ? q : first;
            }
        }
        __syncthreads();
    }
    if (mine) a.error.of(s)[b] = fabsf(first - target);
    sum = block_sum<layered::LANES>(sum, work, lane);
    if (lane == 0) at.losses[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(128, 4)
    critic_grad_weights(__grid_constant__ const CriticGradShape d, __grid_constant__ const Sessions sessions,
                        __grid_constant__ const CriticGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    u32 tiles = (d.batch + d.tile_rows - 1) / d.tile_rows, l = d.layer, lane = threadIdx.x, k = blockIdx.z;
    u32 blocks = gridDim.x / tiles, tile = blockIdx.x / blocks, block = blockIdx.x % blocks;

    // the tile's losses, from those of its rows, in the first pass
    if (l + 1 == d.critic.layers && block == 0 && k == 0 && lane < Sums::LOSSES) {
        u32 row = tile * d.tile_rows, end = min(row + d.tile_rows, at.rows);
        float sum = 0.0f;
        for (u32 i = row / layered::ROWS; i < end / layered::ROWS; i++) sum += at.losses[i];
        a.partial_loss.of(s)[tile * Sums::LOSSES + lane] = lane == Sums::VALUE ? sum : 0.0f;
    }
    float* grad = a.partial.of(s) + (2 * u64(tile) + k) * d.critic.params;
    critic_of(d, a, s, at, k).weights(l, block, tile, d.tile_rows, grad, shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    critic_grad_backward(__grid_constant__ const CriticGradShape d, __grid_constant__ const Sessions sessions,
                         __grid_constant__ const CriticGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    critic_of(d, a, s, at, blockIdx.z).backward(d.layer, nullptr, shared, threadIdx.x);
}
