// Gradient of Soft Actor-Critic's actor and of its entropy weight on a batch, layer by layer through scratch. Twin of
// src/op/actor_grad.rs.
//
// Kernels in order: gather; forward of the actor, once per hidden layer; its outputs and what it does; forward of both
// critics there, side by side (z of the grid); their values, and where actions are sampled back through the critics to
// the action, layer by layer; losses and slopes at the actor's outputs; then for every layer of the actor from the last:
// gradient of its weights, and slopes at the units below it. What bounds them is what critic_grad.cu says. Orders depend
// on shapes alone.

#include "lib/core.cuh"
#include "lib/soft.cuh"

struct ActorGradShape {
    Net actor;
    Net critic;
    Policy policy;
    // the critics are those of `target`
    u32 folded;
    // first of the batch's samples, its rows, and those of a tile
    u32 start;
    u32 batch;
    u32 tile_rows;
    u32 learned;
    u32 normalize_obs;
    // of one launch: the critics' turn, and the layer
    u32 critics;
    u32 layer;
};

struct ActorGradArgs {
    Read<u32> index;            // [samples]
    Read<float> obs;            // [R, O]
    Read<float> normalizer;     // [2, O]
    Read<float> hyper;          // [LEN + groups * GROUP_LEN]
    Read<float> schedule;       // [LEN + groups]
    Read<u32> seed;             // [2]
    Read<u32> clock;            // [4]
    Read<float> params;         // [P]
    Read<float> target;         // [2, critic]
    Write<float> partial;       // [tiles, actor + 1]
    Write<float> partial_loss;  // [tiles, LOSSES]
    Update<float> scratch;
};

// Parts of a session's scratch.
struct Scratch {
    u32 rows;
    // observations as the actor sees them, and as critics do with the action behind them
    float* x;
    float* seen;
    float* actor;
    float* critics;
    // slopes at the inputs of both critics, where actions are sampled
    float* d_seen;
    // values by both critics, of every action where they value all, [2, rows, outputs]
    float* values;
    // of every block of rows: losses, log-probabilities
    float* losses;

    __device__ __forceinline__ Scratch(const ActorGradShape& d, const ActorGradArgs& a, u32 s) {
        rows = soft::whole_rows(d.batch);
        u32 seen_row = pad4(d.critic.layer[0].input);
        x = a.scratch.of(s);
        seen = x + u64(rows) * pad4(d.actor.layer[0].input);
        actor = seen + u64(rows) * seen_row;
        critics = actor + u64(rows) * soft::matrix_words(d.actor, true);
        d_seen = critics + 2 * u64(rows) * soft::matrix_words(d.critic, true);
        values = d_seen + (soft::values_all(d.actor, d.critic, d.policy) ? 0 : 2 * u64(rows) * seen_row);
        losses = values + 2 * u64(rows) * pad4(d.critic.layer[d.critic.layers - 1].output);
    }
};

__device__ __forceinline__ soft::Matrices actor_of(const ActorGradShape& d, const ActorGradArgs& a, u32 s,
                                                   const Scratch& at) {
    return {d.actor, a.params.of(s), at.x, at.actor, at.rows, true};
}
__device__ __forceinline__ soft::Matrices critic_of(const ActorGradShape& d, const ActorGradArgs& a, u32 s,
                                                    const Scratch& at, u32 k) {
    const float* critics = d.folded ? a.target.of(s) : a.params.of(s) + d.actor.params + 1;
    return {d.critic, critics + k * d.critic.params, at.seen,
            at.critics + k * u64(at.rows) * soft::matrix_words(d.critic, true), at.rows, true};
}

__device__ __forceinline__ soft::Noise noise_of(const ActorGradArgs& a, u32 s) {
    return {a.seed.of(s)[0], a.seed.of(s)[1], a.clock.of(s)[Clock::CLOCK_OPT], Purpose::ACTOR_ACTION};
}

extern "C" __global__ void __launch_bounds__(128)
    actor_grad_gather(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                      __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    Scratch at(d, a, s);
    const float* hyper = a.hyper.of(s);
    Normalizing by = {d.normalize_obs, a.normalizer.of(s), hyper[Hyper::OBS_CLIP_LOW], hyper[Hyper::OBS_CLIP_HIGH]};
    u32 row = blockIdx.x * layered::ROWS, words = d.actor.layer[0].input;
    u32 x_row = pad4(blockIdx.z == 0 ? words : d.critic.layer[0].input);
    gather_rows<layered::ROWS, layered::LANES>(a.obs.of(s), words, by, a.index.of(s) + d.start + row,
                                               min(d.batch - row, layered::ROWS),
                                               (blockIdx.z == 0 ? at.x : at.seen) + u64(row) * x_row, x_row,
                                               threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    actor_grad_forward(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    soft::Matrices m = d.critics ? critic_of(d, a, s, at, blockIdx.z) : actor_of(d, a, s, at);
    m.forward(d.layer, shared, threadIdx.x);
}

// The actor's outputs, kept for its losses; where actions are sampled what it does.
extern "C" __global__ void __launch_bounds__(128, 4)
    actor_grad_act(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    soft::Matrices m = actor_of(d, a, s, at);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS, words = layered::ROWS * m.out_row();
    m.head(row, shared, shared + words, lane);
    for (u32 i = lane; i < words; i += layered::LANES) {
        bool there = i % m.out_row() < d.actor.layer[d.actor.layers - 1].output;
        m.out()[u64(row) * m.out_row() + i] = there ? shared[i] : 0.0f;
    }
    if (soft::values_all(d.actor, d.critic, d.policy) || lane >= layered::ROWS || row + lane >= d.batch) return;
    row += lane;
    float* seen = at.seen + u64(row) * pad4(d.critic.layer[0].input) + d.actor.layer[0].input;
    const float* out = shared + lane * m.out_row();
    if (d.policy.kind == Policies::CATEGORICAL) {
        u32 n = d.policy.n;
        float high = soft::score_row(n, out, noise_of(a, s), row, [&](u32 j, float score) { seen[j] = score; });
        bool open = true;
        for (u32 j = 0; j < n; j++) {
            bool chosen = open && seen[j] == high;
            open = open && !chosen;
            seen[j] = chosen ? 1.0f : 0.0f;
        }
        return;
    }
    soft::sample_row(d.policy.n, out, noise_of(a, s), row, [&](u32 j, soft::Sampled word) { seen[j] = word.action; });
}

// The critics' values, and slopes of 1 where they say one.
extern "C" __global__ void __launch_bounds__(128, 4)
    actor_grad_judge(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                     __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    soft::Matrices m = critic_of(d, a, s, at, blockIdx.z);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS, out_row = m.out_row(), words = layered::ROWS * out_row;
    m.head(row, shared, shared + words, lane);
    float* values = at.values + (blockIdx.z * u64(at.rows) + row) * out_row;
    for (u32 i = lane; i < words; i += layered::LANES) {
        if (i % out_row < d.critic.layer[d.critic.layers - 1].output) values[i] = shared[i];
        m.out()[u64(row) * out_row + i] = i % out_row == 0 ? 1.0f : 0.0f;
    }
}

// Back through a critic; below its first layer, to the slopes at what it sees.
extern "C" __global__ void __launch_bounds__(128, 4)
    actor_grad_ask(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    float* to = at.d_seen + blockIdx.z * u64(at.rows) * pad4(d.critic.layer[0].input);
    critic_of(d, a, s, at, blockIdx.z).backward(d.layer, to, shared, threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(layered::ROWS)
    actor_grad_losses(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                      __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    __shared__ float warps[layered::ROWS / 32];
    Scratch at(d, a, s);
    soft::Matrices m = actor_of(d, a, s, at);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS + lane, n = d.policy.n, out_row = m.out_row();
    u32 seen_row = pad4(d.critic.layer[0].input), words = d.actor.layer[0].input;
    u32 value_row = pad4(d.critic.layer[d.critic.layers - 1].output);
    float alpha = soft::alpha(d.learned, m.params[d.actor.params], a.schedule.of(s)), share = 1.0f / float(d.batch);
    float* out = m.out() + u64(row) * out_row;
    const float* one = at.values + u64(row) * value_row;
    const float* two = one + u64(at.rows) * value_row;
    float loss = 0.0f, log_prob = 0.0f;
    if (row >= d.batch) {
        // rows that are not there have no slopes
        for (u32 j = 0; j < out_row; j++) out[j] = 0.0f;
    } else if (soft::values_all(d.actor, d.critic, d.policy)) {
        float top, ln_sum;
        log_sum_exp(Outputs{out, 1, nullptr}, n, top, ln_sum);
        for (u32 j = 0; j < n; j++) {
            float log_p = out[j] - top - ln_sum, p = trig::exp(log_p), value = 0.5f * one[j] + 0.5f * two[j];
            loss += p * (alpha * log_p - value);
            log_prob += p * log_p;
        }
        for (u32 j = 0; j < n; j++) {
            float log_p = out[j] - top - ln_sum, value = 0.5f * one[j] + 0.5f * two[j];
            out[j] = share * (trig::exp(log_p) * (alpha * log_p - value - loss));
        }
    } else if (d.policy.kind == Policies::CATEGORICAL) {
        bool first = one[0] <= two[0];
        const float* d_seen = at.d_seen + ((first ? 0 : u64(at.rows)) + row) * seen_row + words;
        // the critics are done with the action, so the scores of all may take its place
        float* relaxed = at.seen + u64(row) * seen_row + words;
        soft::score_row(n, out, noise_of(a, s), row, [&](u32 j, float score) { relaxed[j] = score; });
        float top, ln_sum, high, ln_high, mean = 0.0f;
        log_sum_exp(Outputs{out, 1, nullptr}, n, top, ln_sum);
        log_sum_exp(Outputs{relaxed, 1, nullptr}, n, high, ln_high);
        for (u32 j = 0; j < n; j++) {
            float log_p = out[j] - top - ln_sum;
            log_prob += trig::exp(log_p) * log_p;
            relaxed[j] = trig::exp(relaxed[j] - high - ln_high);
            mean += relaxed[j] * d_seen[j];
        }
        for (u32 j = 0; j < n; j++) {
            float log_p = out[j] - top - ln_sum;
            float entropy = trig::exp(log_p) * (log_p - log_prob), value = relaxed[j] * (d_seen[j] - mean);
            out[j] = share * (alpha * entropy - value);
        }
        loss = alpha * log_prob - (first ? one[0] : two[0]);
    } else {
        bool first = one[0] <= two[0];
        const float* d_seen = at.d_seen + ((first ? 0 : u64(at.rows)) + row) * seen_row + words;
        log_prob = soft::sample_row(n, out, noise_of(a, s), row, [&](u32 j, soft::Sampled word) {
            // ln pi falls with the sample's ln(1 - tanh^2)
            float sample = 2.0f * alpha * word.action - d_seen[j] * (1.0f - word.action * word.action);
            float raw = out[n + j];
            bool inside = raw > Policies::LOG_STD_LOW && raw < Policies::LOG_STD_HIGH;
            out[j] = share * sample;
            out[n + j] = (inside ? share : 0.0f) * (sample * word.offset - alpha);
        });
        loss = alpha * log_prob - (first ? one[0] : two[0]);
    }
    loss = block_sum<layered::ROWS>(loss, warps, lane);
    log_prob = block_sum<layered::ROWS>(log_prob, warps, lane);
    if (lane == 0) {
        at.losses[2 * blockIdx.x] = loss;
        at.losses[2 * blockIdx.x + 1] = log_prob;
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    actor_grad_weights(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    u32 tiles = (d.batch + d.tile_rows - 1) / d.tile_rows, l = d.layer, lane = threadIdx.x;
    u32 blocks = gridDim.x / tiles, tile = blockIdx.x / blocks, block = blockIdx.x % blocks;
    float* grad = a.partial.of(s) + u64(tile) * (d.actor.params + 1);

    // the tile's losses and the gradient of log alpha, from those of its rows, in the first pass
    if (l + 1 == d.actor.layers && block == 0 && lane == 0) {
        u32 row = tile * d.tile_rows, end = min(row + d.tile_rows, at.rows), rows = min(d.batch - row, d.tile_rows);
        float loss = 0.0f, log_prob = 0.0f;
        for (u32 i = row / layered::ROWS; i < end / layered::ROWS; i++) {
            loss += at.losses[2 * i];
            log_prob += at.losses[2 * i + 1];
        }
        const float* schedule = a.schedule.of(s);
        float weight = soft::alpha(d.learned, a.params.of(s)[d.actor.params], schedule);
        float missed = log_prob + float(rows) * schedule[Scheduled::TARGET_ENTROPY];
        grad[d.actor.params] = d.learned ? -weight * missed * (1.0f / float(d.batch)) : 0.0f;
        float* losses = a.partial_loss.of(s) + tile * Sums::LOSSES;
        for (u32 c = 0; c < Sums::LOSSES; c++) {
            losses[c] = c == Sums::POLICY ? loss : c == Sums::ENTROPY ? -log_prob : 0.0f;
        }
    }
    actor_of(d, a, s, at).weights(l, block, tile, d.tile_rows, grad, shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    actor_grad_backward(__grid_constant__ const ActorGradShape d, __grid_constant__ const Sessions sessions,
                        __grid_constant__ const ActorGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    actor_of(d, a, s, at).backward(d.layer, nullptr, shared, threadIdx.x);
}
