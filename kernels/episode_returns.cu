// The steps of a rollout go to a ring of episodes, and every row of an episode that has ended gets its return. Twin of
// src/op/episode_returns.rs.
//
// Two kernels. `keep`: a block per vector step copies observations and actions, 8 (O + A + 2) bytes a row, side by side;
// bound by memory. `walk`: a block per session, a lane per environment, which goes back from the newest step to where
// the last episode that is known already ended, 12 bytes a step, side by side over lanes; bound by the latency of one
// step behind the other, of which only the sum waits for the one before. Then the sums above all leaves, level by level.
// Lanes share nothing but the tree, whose nodes are computed in a fixed order from their children.

#include "lib/core.cuh"
#include "lib/tree.cuh"
#include "lib/trig.cuh"

struct EpisodeReturnsShape {
    // vector steps of the rollout, environments, vector steps of the ring
    u32 t;
    u32 n;
    u32 c;
    // words of an observation and of an action
    u32 obs;
    u32 action;
    // new rows have the largest priority there is
    u32 prioritized;
    Tree levels;
};

struct EpisodeReturnsArgs {
    Read<u32> clock;              // [4]
    Read<float> hyper;            // [LEN + groups * GROUP_LEN]
    Read<float> reward_moments;   // [4]
    Read<float> obs;              // [T, N, O]
    Read<float> action;           // [T, N, A]
    Read<float> reward;           // [T, N]
    Read<u32> ended;              // [T, N]
    Read<float> bootstrap;        // [T, N]
    Read<float> top;              // [1]
    Update<float> ring_obs;       // [C, N, O]
    Update<float> ring_action;    // [C, N, A]
    Update<float> ring_reward;    // [C, N]
    Update<u32> ring_ended;       // [C, N]
    Update<float> ring_returns;   // [C, N]
    Update<float> tree;           // [nodes]
    Update<float> scratch;
};

constexpr u32 THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
    episode_returns_keep(__grid_constant__ const EpisodeReturnsShape d, __grid_constant__ const Sessions sessions,
                         __grid_constant__ const EpisodeReturnsArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const float* hyper = a.hyper.of(s);
    u32 t = blockIdx.x, step = a.clock.of(s)[Clock::CLOCK_STEP] - d.t + t;
    u32 from = t * d.n, to = step % d.c * d.n;
    const float* obs = a.obs.of(s) + u64(from) * d.obs;
    const float* action = a.action.of(s) + u64(from) * d.action;
    float* ring_obs = a.ring_obs.of(s) + u64(to) * d.obs;
    float* ring_action = a.ring_action.of(s) + u64(to) * d.action;
    for (u32 i = threadIdx.x; i < d.n * d.obs; i += THREADS) ring_obs[i] = obs[i];
    for (u32 i = threadIdx.x; i < d.n * d.action; i += THREADS) ring_action[i] = action[i];

    // rewards as the agent sees them; nothing is known of the episodes yet
    float scale = a.reward_moments.of(s)[Moments::SCALE] * hyper[Hyper::REWARD_SCALE];
    float low = hyper[Hyper::REWARD_CLIP_LOW], high = hyper[Hyper::REWARD_CLIP_HIGH];
    for (u32 n = threadIdx.x; n < d.n; n += THREADS) {
        a.ring_reward.of(s)[to + n] = trig::clamp(a.reward.of(s)[from + n] * scale, low, high);
        a.ring_ended.of(s)[to + n] = a.ended.of(s)[from + n];
        a.tree.of(s)[to + n] = 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    episode_returns_walk(__grid_constant__ const EpisodeReturnsShape d, __grid_constant__ const Sessions sessions,
                         __grid_constant__ const EpisodeReturnsArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const float* reward = a.ring_reward.of(s);
    const u32* ended = a.ring_ended.of(s);
    const float* bootstrap = a.bootstrap.of(s);
    float* returns = a.ring_returns.of(s);
    float* tree = a.tree.of(s);
    float top = a.top.of(s)[0], priority = d.prioritized && top > 1.0f ? top : 1.0f;
    float gamma = a.hyper.of(s)[Hyper::GAMMA];
    u32 now = a.clock.of(s)[Clock::CLOCK_STEP], known = min(now, d.c);

    for (u32 n = threadIdx.x; n < d.n; n += THREADS) {
        // the return behind a step, once the end of its episode has been met
        bool inside = false;
        float behind = 0.0f;
        u32 slot = now % d.c;
        for (u32 back = 0; back < known; back++) {
            slot = slot == 0 ? d.c - 1 : slot - 1;
            u32 row = slot * d.n + n, how = ended[row];
            // what ended in an earlier rollout is known, and so is that no episode has ended in this one
            if (back >= d.t && (how != 0 || !inside)) break;
            if (how != 0) {
                inside = true;
                behind = how == Ended::TRUNCATED ? bootstrap[(d.t - 1 - back) * d.n + n] : 0.0f;
            }
            if (inside) {
                behind = reward[row] + gamma * behind;
                returns[row] = behind;
                tree[row] = priority;
            }
        }
    }
    __syncthreads();

    for (u32 l = 1, leaves = d.c * d.n; l < d.levels.levels; l++) {
        leaves = (leaves + CHILDREN - 1) / CHILDREN;
        for (u32 node = threadIdx.x; node < leaves; node += THREADS) {
            tree[d.levels.start[l] + node] = Children(tree + d.levels.start[l - 1] + node * CHILDREN).sum();
        }
        __syncthreads();
    }
}
