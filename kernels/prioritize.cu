// Priorities of a replay ring: leaves, then the sums above them. Twin of src/op/prioritize.rs.
//
// A block per session: leaves in two rounds (new rows, then the rows of a batch, which may be among them), then level by
// level, a lane per leaf that changed and 64 bytes of children read for each; a barrier between levels. Rows that share a
// parent compute it several times, to the same bits. Bound by the latency of those few loads one behind the other. A
// node is computed anew from its children in a fixed order, so nothing depends on the order of updates.

#include "lib/core.cuh"
#include "lib/tree.cuh"
#include "lib/trig.cuh"

struct PrioritizeShape {
    // vector steps of the ring, environments, vector steps since the clock that are in it by now, how many are new
    u32 c;
    u32 n;
    u32 at;
    u32 fresh;
    // rows that were learnt from
    u32 batch;
    u32 start;
    Tree levels;
};

struct PrioritizeArgs {
    Read<float> hyper;    // [LEN + groups * GROUP_LEN]
    Read<u32> clock;      // [4]
    Read<u32> index;      // [samples]
    Read<float> error;    // [errors]
    Update<float> tree;   // [nodes]
    Update<float> top;    // [1]
    Update<float> scratch;
};

constexpr u32 THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
    prioritize(__grid_constant__ const PrioritizeShape d, __grid_constant__ const Sessions sessions,
               __grid_constant__ const PrioritizeArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    // the largest priority as bits: the order of positive floats is that of their bits
    __shared__ u32 largest;
    const float* hyper = a.hyper.of(s);
    const u32* index = a.index.of(s) + d.start;
    const float* error = a.error.of(s);
    float* tree = a.tree.of(s);
    float alpha = hyper[Hyper::PRIORITY_ALPHA], epsilon = hyper[Hyper::PRIORITY_EPSILON], top = a.top.of(s)[0];
    u32 now = a.clock.of(s)[Clock::CLOCK_STEP] + d.at, fresh = min(d.fresh, d.c), leaves = fresh * d.n;
    auto leaf_of = [&](u32 i) {
        return i < leaves ? (now - fresh + i / d.n) % d.c * d.n + i % d.n : index[i - leaves];
    };

    if (threadIdx.x == 0) largest = 0;
    for (u32 i = threadIdx.x; i < leaves; i += blockDim.x) tree[leaf_of(i)] = top > 1.0f ? top : 1.0f;
    __syncthreads();
    for (u32 i = threadIdx.x; i < d.batch; i += blockDim.x) {
        // not to be drawn, whatever is learnt from it
        if (tree[index[i]] == 0.0f) continue;
        float priority = trig::exp(alpha * trig::ln(error[i] + epsilon));
        tree[index[i]] = priority;
        // a priority that is no number is the largest of nothing
        if (priority > 0.0f) atomicMax(&largest, __float_as_uint(priority));
    }
    __syncthreads();
    if (threadIdx.x == 0 && __uint_as_float(largest) > top) a.top.of(s)[0] = __uint_as_float(largest);

    for (u32 l = 1, across = CHILDREN; l < d.levels.levels; l++, across *= CHILDREN) {
        for (u32 i = threadIdx.x; i < leaves + d.batch; i += blockDim.x) {
            u32 node = leaf_of(i) / across;
            tree[d.levels.start[l] + node] = Children(tree + d.levels.start[l - 1] + node * CHILDREN).sum();
        }
        __syncthreads();
    }
}
