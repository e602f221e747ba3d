// One optimiser step. Twin of src/op/optimize.rs.
//
// Small problems (few tiles, one block can hold the gradient) take one launch, `optimize`: a block of 1,024 lanes per
// session sums the tiles into shared memory, reduces the squares, and steps; what bounds it is the 64 bytes a cycle that
// one multiprocessor draws from the L2 cache.
//
// Large ones take two. `optimize_sum` has a block of 512 lanes for every chunk of parameters, `width` parameters side by
// side and 512 / width tiles at once, so that 16 loads of a lane cover 128 tiles: 4 tiles P bytes, all in the L2 cache
// where the gradient left them, and one addition a word. One more block of it prepares what does not depend on the
// gradient. `optimize_step` has a block of 256 lanes per chunk: each adds up the squares of all chunks again (a few
// hundred numbers, cheaper than a launch in between), then reads 16 P bytes and writes 12 P, with a square root and a
// division per parameter. The block that finishes last writes what all of them read: clock, fault, sums of the update.
//
// A chunk lies inside one group. Tiles are added in the order (way, tile), squares lane by lane, chunk by chunk: the
// order is a function of P, the groups and the number of tiles. Which block is the last does not change what it writes.

#include "lib/core.cuh"
#include "lib/sums.cuh"
#include "lib/trig.cuh"

struct Group {
    u32 begin;
    u32 end;
    u32 kind;
    // chunks of the groups before this one
    u32 chunks_before;
};

struct Groups {
    u32 count;
    Group group[Optimizers::GROUPS];
};

struct OptimizeShape {
    // all parameters, and those that the gradient is of: `p` of them from `at` on
    u32 params;
    u32 at;
    u32 p;
    u32 tiles;
    u32 rows;
    // parameters that a block of `optimize_sum` reads side by side; a power of two
    u32 width;
    // parameters of a block, and blocks
    u32 chunk;
    u32 chunks;
    // number of the first group among all of the session's, and bits of those that are held within bounds
    u32 first_group;
    u32 bounded;
    // how much the losses of this step count, and whether it is a minibatch of its own
    float share;
    u32 counts;
    // whether what is minimised has an entropy bonus beside the policy's loss
    u32 bonus;
    Groups groups;
};

struct OptimizeArgs {
    Read<float> partial;       // [tiles, P]
    Read<float> partial_loss;  // [tiles, LOSSES]
    Read<float> hyper;         // [LEN + groups * GROUP_LEN]
    Read<float> schedule;      // [LEN + groups]
    Update<float> params;      // [all P]
    Update<float> slots;       // [2, all P]
    Update<u32> steps;         // [all groups]
    Update<u32> clock;         // [4]
    Update<float> update;      // [LEN]
    Update<u32> fault;         // [LEN]
    Update<float> scratch;
};

constexpr u32 ONE_THREADS = 1024;
constexpr u32 SUM_THREADS = 512;
constexpr u32 STEP_THREADS = 256;
// Parameters whose words a lane has under way at once.
constexpr u32 BATCH = 5;
constexpr u32 NO_GROUP = 0xffffffffu;

// What a step needs beside the gradient. In scratch for two launches, in shared memory for one.
struct Prepared {
    // means over the minibatch's rows, then what is minimised
    float losses[Sums::LOSSES + 1];
    // lr / (1 - b1^t) and 1 / sqrt(1 - b2^t) of every group
    float rate[Optimizers::GROUPS];
    float correction[Optimizers::GROUPS];
    // blocks that are done, and the first group with a parameter that is not finite
    u32 done;
    u32 worst;
};

// Numbers of a group that one step needs.
struct Step {
    u32 kind;
    float lr;
    float b1;
    float b2;
    float eps;
    float weight_decay;
    float momentum;
    float clip;
    float rate;
    float correction;
    // whether the parameters are held within bounds
    u32 bounded;
    float low;
    float high;
};

// base^exponent by squaring
__device__ double power(float base, u32 exponent) {
    double square = base, product = 1.0;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) product *= square;
        square *= square;
    }
    return product;
}

// Fills `to`: the losses by warp `first` of the block, the groups by the one behind it. The others go on.
__device__ void prepare(const OptimizeShape& d, const OptimizeArgs& a, u32 s, u32 first, Prepared* to) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const float* hyper = a.hyper.of(s);
    const float* schedule = a.schedule.of(s);
    if (warp == first) {
        const float* partial_loss = a.partial_loss.of(s);
        double means[Sums::LOSSES] = {};
        for (u32 tile = lane; tile < d.tiles; tile += WARP) {
#pragma unroll
            for (u32 i = 0; i < Sums::LOSSES; i++) means[i] += double(partial_loss[tile * Sums::LOSSES + i]);
        }
#pragma unroll
        for (u32 i = 0; i < Sums::LOSSES; i++) means[i] = warp_sum(means[i]) / double(d.rows);
        if (lane == 0) {
#pragma unroll
            for (u32 i = 0; i < Sums::LOSSES; i++) to->losses[i] = float(means[i]);
            double bonus = d.bonus ? double(schedule[Scheduled::ENTROPY_COEF]) * means[Sums::ENTROPY] : 0.0;
            to->losses[Sums::LOSS] = float(double(hyper[Hyper::POLICY_LOSS_COEF]) * means[Sums::POLICY] +
                                           double(hyper[Hyper::VAL_LOSS_COEF]) * means[Sums::VALUE] - bonus);
            to->done = 0;
            to->worst = NO_GROUP;
        }
    } else if (warp == first + 1 && lane < d.groups.count) {
        u32 at = d.first_group + lane, t = a.steps.of(s)[at] + 1;
        const float* group = hyper + Hyper::LEN + at * Hyper::GROUP_LEN;
        to->rate[lane] = float(double(schedule[Scheduled::LEN + at]) / (1.0 - power(group[Hyper::B1], t)));
        to->correction[lane] = float(1.0 / sqrt(1.0 - power(group[Hyper::B2], t)));
    }
}

// The first group whose gradient is not finite; NO_GROUP where all is well; 0 where only the loss is not finite.
__device__ __forceinline__ u32 first_bad(const OptimizeShape& d, const float* squares, const Prepared* prepared) {
    u32 bad = is_finite(prepared->losses[Sums::LOSS]) ? NO_GROUP : 0;
    for (u32 g = d.groups.count; g-- > 0;) {
        if (!is_finite(squares[g])) bad = g;
    }
    return bad;
}

__device__ __forceinline__ Step step_of(const OptimizeShape& d, const OptimizeArgs& a, u32 s, u32 g, float square,
                                        const Prepared* prepared) {
    const float* hyper = a.hyper.of(s);
    const float* group = hyper + Hyper::LEN + (d.first_group + g) * Hyper::GROUP_LEN;
    double clip = double(group[Hyper::CLIP_NORM]) / (sqrt(double(square)) + ClipNorm::EPSILON);
    return {d.groups.group[g].kind,
            a.schedule.of(s)[Scheduled::LEN + d.first_group + g],
            group[Hyper::B1],
            group[Hyper::B2],
            group[Hyper::EPS],
            group[Hyper::WEIGHT_DECAY],
            group[Hyper::MOMENTUM],
            float(clip < 1.0 ? clip : 1.0),
            prepared->rate[g],
            prepared->correction[g],
            d.bounded >> g & 1,
            hyper[Hyper::LOG_ALPHA_LOW],
            hyper[Hyper::LOG_ALPHA_HIGH]};
}

// Steps one parameter.
__device__ __forceinline__ void advance(const Step& step, float grad, float& x, float& first, float& second) {
    bool decoupled = step.kind == Optimizers::ADAM_W;
    float shrink = decoupled ? 1.0f - step.lr * step.weight_decay : 1.0f;
    float g = grad * step.clip + (decoupled ? 0.0f : step.weight_decay * x);
    if (step.kind == Optimizers::ADAM || decoupled) {
        first = first + (g - first) * (1.0f - step.b1);
        second = step.b2 * second + (1.0f - step.b2) * g * g;
        x = x * shrink - step.rate * first / (sqrtf(second) * step.correction + step.eps);
    } else if (step.kind == Optimizers::RMS_PROP) {
        first = step.b1 * first + (1.0f - step.b1) * g * g;
        second = step.momentum * second + g / (sqrtf(first) + step.eps);
        x = x - step.lr * second;
    } else {
        bool ahead = step.kind == Optimizers::NESTEROV;
        first = step.momentum * first + g;
        x = x - step.lr * ((ahead ? 1.0f : 0.0f) * g + (ahead ? step.momentum : 1.0f) * first);
    }
}

// Steps the parameters from `begin` to `end` with a block of LANES lanes; false where a lane's are no longer finite. The
// first word of `grad` is that of parameter `at`.
template <u32 LANES>
__device__ __forceinline__ bool advance_all(const Step& of, const float* grad, u32 at, float* params, float* slots0,
                                            float* slots1, u32 begin, u32 end) {
    Step step = of;
    bool fine = true;
    for (u32 start = begin + threadIdx.x; start < end; start += LANES * BATCH) {
        // operands first, so that their loads overlap
        float g[BATCH], x[BATCH], first[BATCH], second[BATCH];
#pragma unroll
        for (u32 k = 0; k < BATCH; k++) {
            u32 p = start + k * LANES;
            if (p >= end) continue;
            g[k] = grad[p - at];
            x[k] = params[p];
            first[k] = slots0[p];
            second[k] = slots1[p];
        }
#pragma unroll
        for (u32 k = 0; k < BATCH; k++) {
            u32 p = start + k * LANES;
            if (p >= end) continue;
            advance(step, g[k], x[k], first[k], second[k]);
            // bounds are rare: they wait in memory
            if (step.bounded) x[k] = trig::clamp(x[k], of.low, of.high);
            fine &= is_finite(x[k]);
            params[p] = x[k];
            slots0[p] = first[k];
            slots1[p] = second[k];
        }
    }
    return fine;
}

// What one lane writes when all parameters are stepped, or none because of `bad`.
__device__ void finish(const OptimizeShape& d, const OptimizeArgs& a, u32 s, const float* squares,
                       const Prepared* prepared, u32 bad, u32 worst) {
    u32* clock = a.clock.of(s);
    u32* fault = a.fault.of(s);
    if (bad != NO_GROUP || worst != NO_GROUP) {
        fault[Fault::OP] = bad != NO_GROUP ? Fault::GRADIENT : Fault::PARAMS;
        fault[Fault::STEP] = clock[Clock::CLOCK_STEP];
        fault[Fault::OPT] = clock[Clock::CLOCK_OPT];
        fault[Fault::GROUP] = d.first_group + (bad != NO_GROUP ? bad : worst);
    }
    if (bad != NO_GROUP) return;
    float* sums = a.update.of(s);
    for (u32 i = 0; i <= Sums::LOSSES; i++) sums[i] += prepared->losses[i] * d.share;
    if (d.counts) {
        double square = 0.0;
        for (u32 g = 0; g < d.groups.count; g++) square += squares[g];
        sums[Sums::GRAD_NORM] += float(sqrt(square));
        sums[Sums::COUNT] += 1.0f;
    }
    u32* steps = a.steps.of(s) + d.first_group;
    for (u32 g = 0; g < d.groups.count; g++) steps[g] += 1;
    clock[Clock::CLOCK_OPT] += d.groups.count;
}

extern "C" __global__ void __launch_bounds__(ONE_THREADS)
    optimize(__grid_constant__ const OptimizeShape d, __grid_constant__ const Sessions sessions,
             __grid_constant__ const OptimizeArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s) || a.fault.of(s)[Fault::OP] != 0) return;
    DYN_SHARED(float, grad);  // [P]
    __shared__ Prepared prepared;
    __shared__ float squares[Optimizers::GROUPS];
    __shared__ Step steps[Optimizers::GROUPS];
    const float* partial = a.partial.of(s);

    // the gradient, and its squares group by group; the last two warps begin with the rest
    prepare(d, a, s, ONE_THREADS / WARP - 2, &prepared);
    double square[Optimizers::GROUPS] = {};
    for (u32 g = 0; g < d.groups.count; g++) {
        u32 end = d.groups.group[g].end - d.at;
        double sum = 0.0;
        for (u32 first = d.groups.group[g].begin - d.at + threadIdx.x; first < end; first += ONE_THREADS * BATCH) {
            float x[BATCH] = {};
#pragma unroll 2
            for (u32 tile = 0; tile < d.tiles; tile++) {
#pragma unroll
                for (u32 k = 0; k < BATCH; k++) {
                    u32 p = first + k * ONE_THREADS;
                    if (p < end) x[k] += partial[tile * d.p + p];
                }
            }
#pragma unroll
            for (u32 k = 0; k < BATCH; k++) {
                u32 p = first + k * ONE_THREADS;
                if (p < end) grad[p] = x[k];
                sum += double(x[k]) * double(x[k]);
            }
        }
#pragma unroll
        for (u32 k = 0; k < Optimizers::GROUPS; k++) square[k] = k == g ? sum : square[k];
    }
    block_sums(square);
    if (threadIdx.x == 0) {
#pragma unroll
        for (u32 g = 0; g < Optimizers::GROUPS; g++) squares[g] = float(square[g]);
    }
    __syncthreads();
    if (threadIdx.x < d.groups.count) {
        steps[threadIdx.x] = step_of(d, a, s, threadIdx.x, squares[threadIdx.x], &prepared);
    }
    __syncthreads();

    u32 bad = first_bad(d, squares, &prepared);
    if (bad == NO_GROUP) {
        float* params = a.params.of(s);
        float* slots = a.slots.of(s);
        for (u32 g = 0; g < d.groups.count; g++) {
            bool fine = advance_all<ONE_THREADS>(steps[g], grad, d.at, params, slots, slots + d.params,
                                                 d.groups.group[g].begin, d.groups.group[g].end);
            if (!fine) atomicMin(&prepared.worst, g);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) finish(d, a, s, squares, &prepared, bad, prepared.worst);
}

// Scratch of two launches: the squares of every chunk, what is prepared, the gradient.
__device__ __forceinline__ double* chunk_squares(float* scratch) { return reinterpret_cast<double*>(scratch); }
__device__ __forceinline__ Prepared* prepared_in(const OptimizeShape& d, float* scratch) {
    return reinterpret_cast<Prepared*>(scratch + 2 * d.chunks);
}
__device__ __forceinline__ float* grad_in(const OptimizeShape& d, float* scratch) {
    return scratch + 2 * d.chunks + sizeof(Prepared) / sizeof(float);
}

// The group that a chunk lies in, and its parameters.
__device__ __forceinline__ u32 group_of(const OptimizeShape& d, u32 chunk, u32& begin, u32& end) {
    u32 g = 0;
    while (g + 1 < d.groups.count && chunk >= d.groups.group[g + 1].chunks_before) g++;
    const Group& group = d.groups.group[g];
    begin = group.begin + (chunk - group.chunks_before) * d.chunk;
    end = begin + d.chunk < group.end ? begin + d.chunk : group.end;
    return g;
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    optimize_sum(__grid_constant__ const OptimizeShape d, __grid_constant__ const Sessions sessions,
                 __grid_constant__ const OptimizeArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s) || a.fault.of(s)[Fault::OP] != 0) return;
    float* scratch = a.scratch.of(s);
    if (blockIdx.x == d.chunks) {
        prepare(d, a, s, 0, prepared_in(d, scratch));
        return;
    }
    __shared__ float ways_sum[SUM_THREADS];
    const float* partial = a.partial.of(s);
    float* grad = grad_in(d, scratch);
    u32 begin, end;
    group_of(d, blockIdx.x, begin, end);
    u32 lane = threadIdx.x & (d.width - 1), way = threadIdx.x / d.width, ways = SUM_THREADS / d.width;
    double square[1] = {0.0};
    for (u32 start = begin; start < end; start += d.width) {
        u32 p = start + lane - d.at;
        bool mine = start + lane < end;
        float x = 0.0f;
        if (mine) {
#pragma unroll 16
            for (u32 tile = way; tile < d.tiles; tile += ways) x += partial[tile * d.p + p];
        }
        // the ways in order
        if (ways > 1) {
            ways_sum[threadIdx.x] = x;
            __syncthreads();
            if (way == 0) {
                for (u32 other = 1; other < ways; other++) x += ways_sum[other * d.width + lane];
            }
            __syncthreads();
        }
        if (way == 0 && mine) {
            grad[p] = x;
            square[0] += double(x) * double(x);
        }
    }
    block_sums(square);
    if (threadIdx.x == 0) chunk_squares(scratch)[blockIdx.x] = square[0];
}

extern "C" __global__ void __launch_bounds__(STEP_THREADS)
    optimize_step(__grid_constant__ const OptimizeShape d, __grid_constant__ const Sessions sessions,
                  __grid_constant__ const OptimizeArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s) || a.fault.of(s)[Fault::OP] != 0) return;
    __shared__ float squares[Optimizers::GROUPS];
    __shared__ Step shared_step;
    float* scratch = a.scratch.of(s);
    const float* grad = grad_in(d, scratch);
    Prepared* prepared = prepared_in(d, scratch);
    u32 begin, end, g = group_of(d, blockIdx.x, begin, end);

    // a warp per group adds up the squares of its chunks
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (warp < d.groups.count) {
        u32 last = warp + 1 < d.groups.count ? d.groups.group[warp + 1].chunks_before : d.chunks;
        double sum = 0.0;
        for (u32 chunk = d.groups.group[warp].chunks_before + lane; chunk < last; chunk += WARP) {
            sum += chunk_squares(scratch)[chunk];
        }
        float square = float(warp_sum(sum));
        if (lane == 0) {
            squares[warp] = square;
            if (warp == g) shared_step = step_of(d, a, s, g, square, prepared);
        }
    }
    __syncthreads();

    u32 bad = first_bad(d, squares, prepared);
    bool fine = true;
    if (bad == NO_GROUP) {
        float* slots = a.slots.of(s);
        fine = advance_all<STEP_THREADS>(shared_step, grad, d.at, a.params.of(s), slots, slots + d.params, begin, end);
    }
    // the last block to come here knows that no other will read clock or fault
    bool all_fine = __syncthreads_and(fine);
    if (threadIdx.x == 0) {
        if (!all_fine) atomicMin(&prepared->worst, g);
        __threadfence();
        if (atomicAdd(&prepared->done, 1u) == d.chunks - 1) {
            __threadfence();
            finish(d, a, s, squares, prepared, bad, atomicMin(&prepared->worst, NO_GROUP));
        }
    }
}
