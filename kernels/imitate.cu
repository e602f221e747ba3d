// Rows that were drawn become a batch of their own, with how much better each was than is now expected. Twin of
// src/op/imitate.rs.
//
// A block per ROWS rows, gathered; then the net that gives the value, layer by layer: a lane takes one unit for four
// rows, so a weight that is read, side by side with the neighboring lanes', feeds four fused multiply-adds. Activations
// lie in shared memory, or in scratch where they do not fit. A batch of 128 rows through 2x64 is 8 blocks and some
// microseconds: bound by the latency of the weights, which every block reads once from L2. Sums run over inputs in order
// within a lane.

#include "lib/activation.cuh"
#include "lib/core.cuh"
#include "lib/rows.cuh"
#include "lib/trig.cuh"

struct ImitateShape {
    Net net;
    // where its parameters begin, and which output is the value
    u32 offset;
    u32 value_at;
    // words of an observation and of an action
    u32 obs;
    u32 action;
    u32 start;
    u32 batch;
    u32 normalize_obs;
    // words from row to row of activations, and whether they are in shared memory
    u32 wide;
    u32 in_shared;
};

struct ImitateArgs {
    Read<u32> index;          // [samples]
    Read<float> weight;       // [samples]
    Read<float> obs;          // [R, O]
    Read<float> action;       // [R, A]
    Read<float> returns;      // [R]
    Read<float> normalizer;   // [2, O]
    Read<float> hyper;        // [LEN + groups * GROUP_LEN]
    Read<float> params;       // [P]
    Write<u32> order;         // [B]
    Write<float> moments;     // [1, 2]
    Write<float> seen;        // [B, O]
    Write<float> taken;       // [B, A]
    Write<float> log_prob;    // [B]
    Write<float> value;       // [B]
    Write<float> advantage;   // [B]
    Write<float> target;      // [B]
    Write<float> error;       // [B]
    Update<float> scratch;
};

constexpr u32 ROWS = 16, LANES = 128, FOUR = 4;

// One hidden layer: a lane per unit and four rows.
struct Hidden {
    const Layer& y;
    const float* params;
    const float* from;
    float* to;
    u32 wide;

    template <u32 KIND>
    __device__ __forceinline__ void run() const {
        for (u32 i = threadIdx.x; i < ROWS / FOUR * y.output; i += LANES) {
            u32 unit = i % y.output, row = i / y.output * FOUR;
            float sum[FOUR];
#pragma unroll
            for (u32 r = 0; r < FOUR; r++) sum[r] = params[y.bias + unit];
            for (u32 k = 0; k < y.input; k++) {
                float w = params[y.weight + k * y.output + unit];
#pragma unroll
                for (u32 r = 0; r < FOUR; r++) sum[r] = fmaf(from[(row + r) * wide + k], w, sum[r]);
            }
#pragma unroll
            for (u32 r = 0; r < FOUR; r++) to[(row + r) * wide + unit] = activate<KIND>(sum[r]);
        }
    }
};

extern "C" __global__ void __launch_bounds__(LANES)
    imitate(__grid_constant__ const ImitateShape d, __grid_constant__ const Sessions sessions,
            __grid_constant__ const ImitateArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    u32 lane = threadIdx.x, first = blockIdx.x * ROWS, rows = min(d.batch - first, ROWS);
    const u32* index = a.index.of(s) + d.start + first;
    const float* hyper = a.hyper.of(s);
    const float* params = a.params.of(s) + d.offset;
    float* from = d.in_shared ? shared : a.scratch.of(s) + u64(blockIdx.x) * 2 * ROWS * d.wide;
    float* to = from + ROWS * d.wide;

    // the batch, as it was; and as the net sees it
    Normalizing by = {d.normalize_obs, a.normalizer.of(s), hyper[Hyper::OBS_CLIP_LOW], hyper[Hyper::OBS_CLIP_HIGH]};
    gather_rows<ROWS, LANES>(a.obs.of(s), d.obs, by, index, rows, from, d.wide, lane);
    for (u32 i = lane; i < rows * d.obs; i += LANES) {
        a.seen.of(s)[u64(first) * d.obs + i] = a.obs.of(s)[u64(index[i / d.obs]) * d.obs + i % d.obs];
    }
    for (u32 i = lane; i < rows * d.action; i += LANES) {
        a.taken.of(s)[u64(first) * d.action + i] = a.action.of(s)[u64(index[i / d.action]) * d.action + i % d.action];
    }
    if (first == 0 && lane < 2) a.moments.of(s)[lane] = lane == 0 ? 0.0f : 1.0f;
    __syncthreads();

    for (u32 l = 0; l + 1 < d.net.layers; l++) {
        with_activation(d.net.activation, Hidden{d.net.layer[l], params, from, to, d.wide});
        __syncthreads();
        float* swap = from;
        from = to;
        to = swap;
    }

    // a lane per row: the value, and how far the return lies above it
    if (lane >= rows) return;
    const Layer& y = d.net.layer[d.net.layers - 1];
    float value = params[y.bias + d.value_at];
    for (u32 k = 0; k < y.input; k++) {
        value = fmaf(from[lane * d.wide + k], params[y.weight + d.value_at * y.input + k], value);
    }
    u32 b = first + lane;
    float over = a.returns.of(s)[index[lane]] - value, better = over > 0.0f ? over : 0.0f;
    float gain = a.weight.of(s)[d.start + b] * better;
    a.order.of(s)[b] = b;
    a.log_prob.of(s)[b] = 0.0f;
    a.value.of(s)[b] = value;
    a.advantage.of(s)[b] = gain;
    a.target.of(s)[b] = gain > 0.0f ? value + gain : value - 1.0f;
    a.error.of(s)[b] = better;
}
