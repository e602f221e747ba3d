// Which rows of the replay ring a gradient step learns from, and what their targets need. Twin of src/op/sample.rs.
//
// A block per batch and session, a lane per row: nothing meets but the smallest priority of a batch. A row is one Philox
// block, a walk down the tree where rows go by priority (64 bytes a level, whose lines every row of the upper levels
// shares), a walk of at most n_step rows ahead, and 20 bytes written. Bound by the latency of that chain of loads, a few
// microseconds; all batches of an iteration are drawn by one launch. The smallest of a batch does not depend on the order.

#include "lib/core.cuh"
#include "lib/rng.cuh"
#include "lib/tree.cuh"
#include "lib/trig.cuh"

struct SampleShape {
    // vector steps of the ring, environments, vector steps since the clock that are in it by now
    u32 c;
    u32 n;
    u32 at;
    // rows of a batch, and the number of the first batch within its iteration
    u32 batch;
    u32 first;
    // rows go by priority, or are the last ones in order, or sequences, or any
    u32 prioritized;
    u32 ordered;
    // steps of sequences that are drawn whole, or 0
    u32 sequence;
    u32 newest;
    u32 n_step;
    u32 begins;
    Tree levels;
};

struct SampleArgs {
    Read<u32> seed;          // [2]
    Read<u32> clock;         // [4]
    Read<float> hyper;       // [LEN + groups * GROUP_LEN]
    Read<float> schedule;    // [LEN + groups]
    Read<float> reward;      // [C, N]
    Read<u32> ended;         // [C, N]
    Read<float> tree;        // [nodes]
    Write<u32> index;        // [samples]
    Write<u32> last;         // [samples]
    Write<float> returns;    // [samples]
    Write<float> discount;   // [samples]
    Write<float> weight;     // [samples]
    Update<float> update;    // [LEN]
    Update<float> scratch;
};

constexpr u32 THREADS = 256;

// The smallest of one number per lane. All lanes must come here; `parts` has a word per warp.
__device__ __forceinline__ float block_least(float x, float* parts) {
    for (u32 apart = 16; apart > 0; apart /= 2) {
        float other = __shfl_xor_sync(~0u, x, apart);
        x = other < x ? other : x;
    }
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[0];
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) x = parts[warp] < x ? parts[warp] : x;
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    sample(__grid_constant__ const SampleShape d, __grid_constant__ const Sessions sessions,
           __grid_constant__ const SampleArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    __shared__ float parts[THREADS / 32];
    const u32* seed = a.seed.of(s);
    const float* hyper = a.hyper.of(s);
    const float* reward = a.reward.of(s);
    const u32* ended = a.ended.of(s);
    const float* tree = a.tree.of(s);
    u32 k = blockIdx.x, rows = d.c * d.n;
    if (d.begins && k == 0 && threadIdx.x < Sums::LEN) a.update.of(s)[threadIdx.x] = 0.0f;

    // vector steps that were ever stored, of which the ring holds the last
    u32 now = a.clock.of(s)[Clock::CLOCK_STEP] + d.at, begin = a.clock.of(s)[Clock::CLOCK_RING];
    u32 filled = min(now - begin, d.c), latest = (now + d.c - 1) % d.c;
    u32 newest = k == 0 ? min(min(d.newest, d.batch), filled * d.n) : 0;
    u32 draws = d.sequence ? d.batch / d.sequence : d.batch;
    float total = d.prioritized ? tree_total(d.levels, tree) : 0.0f;
    float scale = hyper[Hyper::REWARD_SCALE], gamma = hyper[Hyper::GAMMA];
    float low = hyper[Hyper::REWARD_CLIP_LOW], high = hyper[Hyper::REWARD_CLIP_HIGH];
    float least = __uint_as_float(0x7F800000u);
    for (u32 b = threadIdx.x; b < d.batch; b += blockDim.x) {
        u32 i = k * d.batch + b, row = 0;
        u32 word = philox(Words{{b % draws, now, Purpose::SAMPLE, d.first + k}}, seed[0], seed[1]).at[0];
        bool there = true;
        bool is_new = b + newest >= d.batch;
        if (is_new) {
            // counted back from the newest row, where that may be drawn
            u32 back = d.batch - 1 - b;
            row = (now - 1 - back / d.n) % d.c * d.n + back % d.n;
            is_new = !d.prioritized || tree[row] > 0.0f;
        }
        if (!is_new && d.prioritized) {
            float part = (float(int(b)) + unit(word)) / float(int(d.batch));
            row = tree_find(d.levels, tree, part * total);
        } else if (!is_new && d.ordered) {
            u32 back = d.batch / d.n + 1 - b / d.n;
            there = back <= now;
            row = there ? (now - back) % d.c * d.n + b % d.n : 0;
        } else if (!is_new && d.sequence) {
            // counted from the oldest row
            u32 starts = filled < d.sequence ? 0 : (filled + 1 - d.sequence) * d.n, start = __umulhi(word, starts);
            there = starts > 0;
            row = there ? (now - filled + start / d.n + b / draws) % d.c * d.n + start % d.n : 0;
        } else if (!is_new) {
            row = (begin % d.c * d.n + __umulhi(word, filled * d.n)) % rows;
        }
        if (d.prioritized) {
            there = tree[row] > 0.0f;
            least = there && tree[row] < least ? tree[row] : least;
        }
        a.index.of(s)[i] = row;
        a.weight.of(s)[i] = there ? 1.0f : 0.0f;

        // up to n_step rows ahead: the last one, the return on the way, the discount behind it
        u32 at = row;
        float sum = 0.0f, factor = 1.0f;
        for (u32 step = 1;; step++) {
            sum += factor * trig::clamp(reward[at] * scale, low, high);
            factor *= gamma;
            if (step == d.n_step || ended[at] != 0 || at / d.n == latest) break;
            at += d.n;
            at = at >= rows ? at - rows : at;
        }
        a.last.of(s)[i] = at;
        a.returns.of(s)[i] = sum;
        a.discount.of(s)[i] = ended[at] & Ended::TERMINATED ? 0.0f : factor;
    }

    float beta = a.schedule.of(s)[Scheduled::BETA];
    if (!d.prioritized || !(beta > 0.0f)) return;
    least = block_least(least, parts);
    for (u32 b = threadIdx.x; b < d.batch; b += blockDim.x) {
        u32 i = k * d.batch + b;
        if (!(tree[a.index.of(s)[i]] > 0.0f)) continue;
        a.weight.of(s)[i] = trig::exp(-beta * trig::ln(tree[a.index.of(s)[i]] / least));
    }
}
