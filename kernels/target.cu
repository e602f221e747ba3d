// A target net follows the net that learns: copied now and then, or a little at every update. Twin of src/op/target.rs.
//
// A lane per parameter, 8 bytes read and 4 written; bound by memory, and below some 100 K parameters by the launch. Where
// no copy is due a block ends at once. No order to keep.

#include "lib/core.cuh"

struct TargetShape {
    // the parameters that are followed
    u32 from;
    u32 len;
    // copies, not steps of the way
    u32 replace;
    // environments, vector steps since the clock that are done, and since this op ran last
    u32 n;
    u32 at;
    u32 every;
};

struct TargetArgs {
    Read<float> params;     // [P]
    Read<float> hyper;      // [LEN + groups * GROUP_LEN]
    Read<u32> clock;        // [4]
    Update<float> target;   // [len]
    Update<float> scratch;
};

constexpr u32 THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
    target(__grid_constant__ const TargetShape d, __grid_constant__ const Sessions sessions,
           __grid_constant__ const TargetArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const float* hyper = a.hyper.of(s);
    if (d.replace) {
        // a multiple of the frequency lies between the last time and now
        u64 now = u64(a.clock.of(s)[Clock::CLOCK_STEP]) + d.at, every = u64(hyper[Hyper::UPDATE_FREQUENCY]);
        if (now * d.n / every <= (now - d.every) * d.n / every) return;
    }
    u32 p = blockIdx.x * THREADS + threadIdx.x;
    if (p >= d.len) return;
    float* to = a.target.of(s) + p;
    float from = a.params.of(s)[d.from + p];
    *to = d.replace ? from : *to + hyper[Hyper::POLYAK] * (from - *to);
}
