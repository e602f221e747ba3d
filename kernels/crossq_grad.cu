// Gradient of CrossQ's two critics on a batch, layer by layer through scratch. Twin of src/op/crossq_grad.rs.
//
// Kernels in order: gather; forward of the actor at the next observations, its outputs and what it does; then both
// critics side by side (z of the grid) on the joint batch of rows and their successors: per hidden layer the product,
// and moments with normalization and activation, a block per 32 units; outputs, targets and losses; then for every layer
// from the last: gradient of its weights, slopes at the units below it, and the way of those back through the moments,
// which gives the gradients of scale and shift. Products are tiles of 64 x 64 numbers of 128 lanes; moments read a slab
// of 32 columns three times, from L2. Some 15 short launches one behind the other are bound by their latency, which
// sessions in the grid share. Orders depend on shapes alone.

#include "lib/core.cuh"
#include "lib/renorm.cuh"
#include "lib/soft.cuh"

struct CrossqGradShape {
    Net actor;
    // with the offsets of a normalized net
    Net critic;
    Policy policy;
    // first of the batch's samples, and its rows
    u32 start;
    u32 batch;
    u32 learned;
    u32 distance;
    float beta;
    u32 symlog;
    u32 normalize_obs;
    float momentum;
    float eps;
    u32 warmup;
    float r_max;
    float d_max;
    // of one launch: the critics' turn, and the layer
    u32 critics;
    u32 layer;
};

struct CrossqGradArgs {
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
    Write<float> partial;       // [1, 2 critics]
    Write<float> partial_loss;  // [1, LOSSES]
    Write<float> error;         // [B]
    Update<float> norm;         // [2, norms]
    Update<u32> batches;        // [1]
    Update<float> scratch;
};

// Parts of a session's scratch.
struct Scratch {
    // rows of the batch, and of the joint one with its successors behind, in whole blocks
    u32 rows;
    u32 joint_rows;
    float* next;
    float* actor;
    float* log_probs;
    float* x;
    // of both critics: matrices, normalized sums, and of every unit `r`, `d` and `scale r / std`
    float* critics;
    float* z;
    float* stats;
    // of every block of rows
    float* losses;

    __device__ __forceinline__ Scratch(const CrossqGradShape& d, const CrossqGradArgs& a, u32 s) {
        rows = soft::whole_rows(d.batch);
        joint_rows = soft::whole_rows(d.batch + rows);
        u32 each = d.policy.kind == Policies::CATEGORICAL ? d.policy.n : 1;
        next = a.scratch.of(s);
        actor = next + u64(rows) * pad4(d.actor.layer[0].input);
        log_probs = actor + u64(rows) * soft::matrix_words(d.actor, false);
        x = log_probs + u64(rows) * each;
        critics = x + u64(joint_rows) * pad4(d.critic.layer[0].input);
        z = critics + 2 * u64(joint_rows) * soft::matrix_words(d.critic, true);
        stats = z + 2 * u64(joint_rows) * soft::units(d.critic, d.critic.layers - 1);
        losses = stats + 2 * 3 * renorm::units(d.critic);
    }
};

__device__ __forceinline__ soft::Matrices actor_of(const CrossqGradShape& d, const CrossqGradArgs& a, u32 s,
                                                   const Scratch& at) {
    return {d.actor, a.params.of(s), at.next, at.actor, at.rows, false};
}
__device__ __forceinline__ soft::Matrices critic_of(const CrossqGradShape& d, const CrossqGradArgs& a, u32 s,
                                                    const Scratch& at, u32 k) {
    return {d.critic, a.params.of(s) + d.actor.params + 1 + k * d.critic.params, at.x,
            at.critics + k * u64(at.joint_rows) * soft::matrix_words(d.critic, true), at.joint_rows, true};
}
// Sums of layer l of critic k, normalized later.
__device__ __forceinline__ float* z_of(const CrossqGradShape& d, const Scratch& at, u32 k, u32 l) {
    return at.z + u64(at.joint_rows) * (k * soft::units(d.critic, d.critic.layers - 1) + soft::units(d.critic, l));
}

// Observations as the actor sees them (z = 0); as critics do, those of successors without an action yet (z = 1).
extern "C" __global__ void __launch_bounds__(128)
    crossq_grad_gather(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const CrossqGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    Scratch at(d, a, s);
    const float* hyper = a.hyper.of(s);
    const float* normalizer = a.normalizer.of(s);
    float low = hyper[Hyper::OBS_CLIP_LOW], high = hyper[Hyper::OBS_CLIP_HIGH];
    bool joint = blockIdx.z == 1;
    u32 first = blockIdx.x * layered::ROWS, words = d.actor.layer[0].input, seen = d.critic.layer[0].input;
    u32 x_row = pad4(joint ? seen : words), n = seen - words;
    if (first >= (joint ? at.joint_rows : at.rows)) return;
    for (u32 i = threadIdx.x; i < layered::ROWS * x_row; i += layered::LANES) {
        u32 row = first + i / x_row, o = i % x_row;
        bool now = joint && row < d.batch;
        u32 b = joint && !now ? row - d.batch : row;
        float v = 0.0f;
        if (b < d.batch) {
            u32 m = (now ? a.index.of(s) : a.last.of(s))[d.start + b];
            if (o < words) {
                v = (now ? a.obs.of(s) : a.next_obs.of(s))[u64(m) * words + o];
                if (d.normalize_obs) v = trig::clamp((v - normalizer[o]) * normalizer[words + o], low, high);
            } else if (now && o < seen) {
                v = a.action.of(s)[u64(m) * n + o - words];
            }
        }
        (joint ? at.x : at.next)[u64(row) * x_row + o] = v;
    }
    if (!joint) return;
    // rows without a loss have no slopes
    for (u32 k = 0; k < 2; k++) {
        soft::Matrices m = critic_of(d, a, s, at, k);
        for (u32 i = threadIdx.x; i < layered::ROWS * m.out_row(); i += layered::LANES) {
            m.out()[u64(first) * m.out_row() + i] = 0.0f;
        }
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    crossq_grad_forward(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                        __grid_constant__ const CrossqGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    u32 l = d.layer, lane = threadIdx.x;
    soft::Matrices m = d.critics ? critic_of(d, a, s, at, blockIdx.z) : actor_of(d, a, s, at);
    u32 across = gridDim.x / (m.rows / layered::ROWS);
    layered::Tile tile = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    layered::forward_tile<soft::Product>(m.net.layer[l], d.critics ? Activations::IDENTITY : m.net.activation, m.params,
                                         m.below(l), d.critics ? z_of(d, at, blockIdx.z, l) : m.acts(l), nullptr, tile,
                                         shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    crossq_grad_act(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const CrossqGradArgs a) {
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
    if (d.policy.kind == Policies::CATEGORICAL) {
        float top, ln_sum;
        log_sum_exp(Outputs{out, 1, nullptr}, n, top, ln_sum);
        for (u32 j = 0; j < n; j++) at.log_probs[u64(row) * n + j] = out[j] - top - ln_sum;
    } else {
        float* seen = at.x + u64(d.batch + row) * pad4(d.critic.layer[0].input) + d.actor.layer[0].input;
        soft::Noise noise = {a.seed.of(s)[0], a.seed.of(s)[1], a.clock.of(s)[Clock::CLOCK_OPT], Purpose::NEXT_ACTION};
        at.log_probs[row] = soft::sample_row(n, out, noise, row, [&](u32 j, soft::Sampled word) {
            seen[j] = word.action;
        });
    }
}

// Moments of 32 units of a hidden layer over the joint batch, corrections, running moments, activations.
extern "C" __global__ void __launch_bounds__(renorm::LANES)
    crossq_grad_normalize(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                          __grid_constant__ const CrossqGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    __shared__ float parts[renorm::LANES];
    Scratch at(d, a, s);
    u32 l = d.layer, k = blockIdx.z, o = blockIdx.x * renorm::COLUMNS + threadIdx.x % renorm::COLUMNS;
    u32 part = threadIdx.x / renorm::COLUMNS, live = 2 * d.batch;
    soft::Matrices m = critic_of(d, a, s, at, k);
    const Layer& y = d.critic.layer[l];
    u32 row_words = pad4(y.output), all = renorm::units(d.critic), unit = renorm::units_before(d.critic, l) + o;
    bool inside = o < row_words, mine = o < y.output;
    float* z = z_of(d, at, k, l) + o;

    float sum = 0.0f, share = 1.0f / float(live);
    for (u32 row = part; inside && row < live; row += renorm::PARTS) sum += z[u64(row) * row_words];
    float mean = renorm::column_sum(sum, parts) * share;
    sum = 0.0f;
    for (u32 row = part; inside && row < live; row += renorm::PARTS) {
        float off = z[u64(row) * row_words] - mean;
        sum += off * off;
    }
    float variance = renorm::column_sum(sum, parts) * share;

    // columns behind the last unit are zeros
    float gain = 0.0f, base = 0.0f, inv_std = 0.0f;
    if (mine) {
        u32 batches = a.batches.of(s)[0];
        float done = batches >= d.warmup ? 1.0f : float(batches) / float(d.warmup);
        float r_max = 1.0f + done * (d.r_max - 1.0f), d_max = done * d.d_max;
        float* norm = a.norm.of(s) + k * 2 * all + unit;
        float old_mean = norm[0], old_variance = norm[all];
        float std = sqrtf(variance + d.eps), running = sqrtf(old_variance + d.eps);
        float r = trig::clamp(std / running, 1.0f / r_max, r_max);
        float off = trig::clamp((mean - old_mean) / running, -d_max, d_max);
        float scale = m.params[renorm::scale(y) + o];
        inv_std = 1.0f / std;
        gain = scale * r;
        base = scale * off + m.params[renorm::shift(y) + o];
        if (part == 0) {
            float* stats = at.stats + 3 * (k * all + unit);
            stats[0] = r;
            stats[1] = off;
            stats[2] = gain * inv_std;
        }
    }
    // the running moments move when every lane of the column has read them
    __syncthreads();
    if (mine && part == 0) {
        float* norm = a.norm.of(s) + k * 2 * all + unit;
        norm[0] += d.momentum * (mean - norm[0]);
        norm[all] += d.momentum * (variance - norm[all]);
    }
    if (!inside) return;
    float* before = m.before(l) == nullptr ? nullptr : m.before(l) + o;
    renorm::Column column = {z,       m.acts(l) + o, before, row_words, mine ? live : 0, at.joint_rows, mean,
                             inv_std, gain,          base};
    with_activation(d.critic.activation, column);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    crossq_grad_losses(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const CrossqGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS, b = row + lane, i = d.start + b, n = d.policy.n;
    u32 out_row = pad4(d.critic.layer[d.critic.layers - 1].output), words = layered::ROWS * out_row;
    bool discrete = d.policy.kind == Policies::CATEGORICAL, mine = lane < layered::ROWS && b < d.batch;
    float* work = shared + 4 * words;
    // outputs of both critics: at the batch's rows, then at their successors
#pragma unroll 1
    for (u32 pass = 0; pass < 4; pass++) {
        critic_of(d, a, s, at, pass % 2).head(row + (pass < 2 ? 0 : d.batch), shared + pass * words, work, lane);
    }

    float sum = 0.0f, share = 1.0f / float(d.batch);
    if (mine) {
        const float* out = shared + lane * out_row;
        const float* one = out + 2 * words;
        const float* two = out + 3 * words;
        float alpha = soft::alpha(d.learned, a.params.of(s)[d.actor.params], a.schedule.of(s)), value = 0.0f;
        if (discrete) {
            for (u32 j = 0; j < n; j++) {
                float log_p = at.log_probs[u64(b) * n + j];
                value += trig::exp(log_p) * (0.5f * (one[j] + two[j]) - alpha * log_p);
            }
        } else {
            value = (one[0] < two[0] ? one[0] : two[0]) - alpha * at.log_probs[b];
        }
        float target = a.returns.of(s)[i] + a.discount.of(s)[i] * value, weight = a.weight.of(s)[i], least = 0.0f;
        u32 chosen = discrete ? u32(a.action.of(s)[a.index.of(s)[i]]) : 0;
        for (u32 k = 0; k < 2; k++) {
            float q = out[k * words + chosen], slope;
            float e = d.symlog ? symlog(q) - symlog(target) : q - target;
            float inner = d.symlog ? 1.0f / (1.0f + fabsf(q)) : 1.0f;
            sum += weight * error_loss(d.distance, d.beta, e, slope);
            critic_of(d, a, s, at, k).out()[u64(b) * out_row + chosen] = weight * slope * inner * share;
            least = k == 0 || q < least ? q : least;
        }
        a.error.of(s)[b] = fabsf(least - target);
    }
    sum = block_sum<layered::LANES>(sum, work, lane);
    if (lane == 0) at.losses[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(128, 4)
    crossq_grad_weights(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                        __grid_constant__ const CrossqGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    u32 l = d.layer, k = blockIdx.z, lane = threadIdx.x;
    bool last = l + 1 == d.critic.layers;
    // losses in the first pass, when no moments are left to correct
    if (last && blockIdx.x == 0 && k == 0 && lane < Sums::LOSSES) {
        float sum = 0.0f;
        for (u32 i = 0; i < at.rows / layered::ROWS; i++) sum += at.losses[i];
        a.partial_loss.of(s)[lane] = lane == Sums::VALUE ? sum : 0.0f;
        if (lane == 0) a.batches.of(s)[0] += 1;
    }
    // a mean takes its bias along, so the bias in front of it moves nothing
    float* grad = a.partial.of(s) + k * d.critic.params;
    critic_of(d, a, s, at, k).weights(l, blockIdx.x, 0, at.joint_rows, grad, shared, lane, last);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    crossq_grad_backward(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                         __grid_constant__ const CrossqGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch at(d, a, s);
    critic_of(d, a, s, at, blockIdx.z).backward(d.layer, nullptr, shared, threadIdx.x);
}

// Slopes of 32 units of a hidden layer, back through the moments that every row moves.
extern "C" __global__ void __launch_bounds__(renorm::LANES)
    crossq_grad_centre(__grid_constant__ const CrossqGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const CrossqGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    __shared__ float parts[renorm::LANES];
    Scratch at(d, a, s);
    u32 l = d.layer, k = blockIdx.z, o = blockIdx.x * renorm::COLUMNS + threadIdx.x % renorm::COLUMNS;
    u32 part = threadIdx.x / renorm::COLUMNS, live = 2 * d.batch;
    const Layer& y = d.critic.layer[l];
    u32 row_words = pad4(y.output), unit = renorm::units_before(d.critic, l) + o;
    bool mine = o < y.output;
    float* slopes = critic_of(d, a, s, at, k).acts(l) + o;
    const float* z = z_of(d, at, k, l) + o;

    float sum = 0.0f, along = 0.0f;
    for (u32 row = part; mine && row < live; row += renorm::PARTS) {
        float slope = slopes[u64(row) * row_words];
        sum += slope;
        along += slope * z[u64(row) * row_words];
    }
    sum = renorm::column_sum(sum, parts);
    along = renorm::column_sum(along, parts);
    if (!mine) return;
    const float* stats = at.stats + 3 * (k * renorm::units(d.critic) + unit);
    if (part == 0) {
        float* grad = a.partial.of(s) + k * d.critic.params;
        grad[y.bias + o] = 0.0f;
        grad[renorm::shift(y) + o] = sum;
        grad[renorm::scale(y) + o] = stats[0] * along + stats[1] * sum;
    }
    float share = 1.0f / float(live), factor = stats[2];
    sum *= share;
    along *= share;
    for (u32 row = part; row < at.joint_rows; row += renorm::PARTS) {
        u64 word = u64(row) * row_words;
        slopes[word] = row < live ? factor * (slopes[word] - sum - z[word] * along) : 0.0f;
    }
}
