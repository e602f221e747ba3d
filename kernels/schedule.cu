// What the scheduled numbers are in this iteration. Twin of src/op/schedule.rs.
//
// A warp per session, a lane per number: a few dozen f64 operations each, bound by the latency of the launch. No order to
// keep.

#include "lib/core.cuh"
#include "lib/trig.cuh"

struct ScheduleShape {
    u32 t;
    u32 n;
    u32 groups;
    // whether the entropy's weight is the exponential of that parameter
    u32 learned;
    u32 log_alpha;
};

struct ScheduleArgs {
    Read<float> hyper;      // [LEN + groups * GROUP_LEN]
    Read<u32> clock;        // [4]
    Read<float> params;     // [params]
    Write<float> schedule;  // [LEN + groups]
    Update<float> scratch;
};

// ln 0.9
constexpr double LN_0_9 = -0.1053605156578263;
constexpr double TAU = 6.283185307179586;

// e^x for x in -4..0
__device__ double exp_series(double x) {
    x = x / 8.0;
    double root = 1.0;
    for (int k = 14; k > 0; k--) root = 1.0 + x / double(k) * root;
    root = root * root;
    root = root * root;
    return root * root;
}

// cos x for x in 0..60
__device__ double cos_series(double x) {
    double turns = floor(x / TAU + 0.5);
    x = x - turns * TAU;
    double sum = 1.0;
    for (int k = 14; k > 0; k--) sum = 1.0 - x * x / double(2 * k * (2 * k - 1)) * sum;
    return sum;
}

// A schedule's value at a frame, from its five words.
__device__ float value(const float* words, u64 at) {
    double start = words[Hyper::START_VAL], end = words[Hyper::END_VAL];
    double first = words[Hyper::START_STEP], last = words[Hyper::END_STEP];
    float kind = words[Hyper::KIND];
    double frame = double(at);
    if (kind == Hyper::NO_DECAY || frame <= first) return words[Hyper::START_VAL];
    if (frame >= last) return words[Hyper::END_VAL];
    double done = (frame - first) / (last - first);
    double now;
    if (kind == Hyper::LINEAR_DECAY) {
        now = start + (end - start) * done;
    } else if (kind == Hyper::RATE_DECAY) {
        now = start * exp_series(20.0 * done * LN_0_9);
    } else {
        now = end + (start - end) * (1.0 - done) * 0.5 * (1.0 + cos_series(60.0 * done));
    }
    double low = start < end ? start : end, high = start < end ? end : start;
    now = now < low ? low : now;
    return float(now > high ? high : now);
}

extern "C" __global__ void __launch_bounds__(32)
    schedule(__grid_constant__ const ScheduleShape d, __grid_constant__ const Sessions sessions,
             __grid_constant__ const ScheduleArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const float* hyper = a.hyper.of(s);
    float* out = a.schedule.of(s);
    u64 step = a.clock.of(s)[Clock::CLOCK_STEP];
    u64 began = step * d.n, ends = (step + d.t) * d.n;

    // what an update uses where the rollout ends, exploration where it began
    if (threadIdx.x < Scheduled::LEN) {
        constexpr u32 OF[Scheduled::LEN] = {Hyper::CLIP_EPS, Hyper::ENTROPY_COEF, Hyper::EXPLORE, Hyper::BETA,
                                            Hyper::TARGET_ENTROPY};
        static_assert(Scheduled::CLIP_EPS == 0 && Scheduled::ENTROPY_COEF == 1 && Scheduled::EXPLORE == 2);
        static_assert(Scheduled::BETA == 3 && Scheduled::TARGET_ENTROPY == 4);
        u32 at = OF[0];
        for (u32 k = 1; k < Scheduled::LEN; k++) at = k == threadIdx.x ? OF[k] : at;
        bool weight = d.learned && threadIdx.x == Scheduled::ENTROPY_COEF;
        out[threadIdx.x] = weight ? trig::exp(a.params.of(s)[d.log_alpha])
                                  : value(hyper + at, threadIdx.x == Scheduled::EXPLORE ? began : ends);
        return;
    }
    // learning rates where it began
    for (u32 g = threadIdx.x - Scheduled::LEN; g < d.groups; g += blockDim.x - Scheduled::LEN) {
        const float* group = hyper + Hyper::LEN + g * Hyper::GROUP_LEN;
        double factor = 1.0;
        if (group[Hyper::LR_KIND] == Hyper::LR_LINEAR_TO_MIN) {
            double left = 1.0 - double(began) / double(group[Hyper::LR_FRAMES]), least = group[Hyper::LR_MIN_FACTOR];
            factor = left > least ? left : least;
        }
        out[Scheduled::LEN + g] = float(double(group[Hyper::LR]) * factor);
    }
}
