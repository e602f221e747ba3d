// What rollouts share whatever acts in them: environments of a session step by step, their actions, resets and records, and
// what the nets see. ENV is the environment's type.
#pragma once

#include "../env/acrobot.cuh"
#include "../env/cartpole.cuh"
#include "../env/mountain_car.cuh"
#include "../env/mountain_car_continuous.cuh"
#include "../env/pendulum.cuh"
#include "policy.cuh"

typedef ENV Env;

// What of an environment lives from step to step.
struct Live {
    float state[Env::STATE];
    u32 steps;
    float episode_return;
};

// Where the steps of one session go, and what they are drawn from.
struct Session {
    u32 key0;
    u32 key1;
    // number of the first step, and its slot
    u32 step;
    u32 slot;
    float* obs;
    float* next_obs;
    float* action;
    float* reward;
    u32* ended;
    float* finished_return;
    u32* finished_length;
};

template <class D, class A>
__device__ __forceinline__ Session session(const D& d, const A& a, u32 s) {
    const u32* seed = a.seed.of(s);
    u32 step = a.clock.of(s)[Clock::CLOCK_STEP] + d.at;
    return {seed[0],         seed[1],       step,           d.ring ? step % d.slots : 0,
            a.obs.of(s),     a.next_obs.of(s), a.action.of(s), a.reward.of(s),
            a.ended.of(s),   a.finished_return.of(s) + d.at * d.n, a.finished_length.of(s) + d.at * d.n};
}

// The slot behind `slot`.
template <class D>
__device__ __forceinline__ u32 next_slot(const D& d, u32 slot) { return slot + 1 == d.slots ? 0 : slot + 1; }

// Stores a row of WORDS words, which begins at a multiple of its length, in as few stores as that allows.
template <u32 WORDS>
__device__ __forceinline__ void store_row(float* to, const float (&words)[WORDS]) {
    if (WORDS % 4 == 0) {
#pragma unroll
        for (u32 i = 0; i + 3 < WORDS; i += 4) {
            *reinterpret_cast<float4*>(to + i) = {words[i], words[i + 1], words[i + 2], words[i + 3]};
        }
    } else if (WORDS % 2 == 0) {
#pragma unroll
        for (u32 i = 0; i + 1 < WORDS; i += 2) *reinterpret_cast<float2*>(to + i) = {words[i], words[i + 1]};
    } else {
#pragma unroll
        for (u32 i = 0; i < WORDS; i++) to[i] = words[i];
    }
}

template <class A>
__device__ __forceinline__ Live load(const A& a, u32 s, u32 n) {
    Live live;
    const float* state = a.env_state.of(s) + n * Env::STATE;
#pragma unroll
    for (u32 i = 0; i < Env::STATE; i++) live.state[i] = state[i];
    live.steps = a.episode_step.of(s)[n];
    live.episode_return = a.episode_return.of(s)[n];
    return live;
}

template <class A>
__device__ __forceinline__ void save(const A& a, u32 s, u32 n, const Live& live) {
    float* state = a.env_state.of(s) + n * Env::STATE;
#pragma unroll
    for (u32 i = 0; i < Env::STATE; i++) state[i] = live.state[i];
    a.episode_step.of(s)[n] = live.steps;
    a.episode_return.of(s)[n] = live.episode_return;
}

// Steps environment `n` with an action in its own units and stores what came of it at `at`, its `t`-th step; resets it
// where the episode ended. `on_end` is called before the reset. Returns how the episode ended, 0 where it goes on.
template <class D, class F>
__device__ __forceinline__ u32 advance(const D& d, const Session& to, u32 at, u32 n, u32 t,
                                       const float (&taken)[Env::ACTION], Live& live, F on_end) {
    bool terminated;
    float reward = d.env.step(live.state, taken, terminated);
    live.episode_return += reward;
    live.steps += 1;
    u32 ended = (terminated ? Ended::TERMINATED : 0) | (live.steps >= d.limit ? Ended::TRUNCATED : 0);
    u32 finished = t * d.n + n;
    to.reward[at] = reward;
    to.ended[at] = ended;
    to.finished_return[finished] = ended ? live.episode_return : __uint_as_float(0x7FC00000u);
    to.finished_length[finished] = ended ? live.steps : 0;
    if (ended) {
        on_end(ended);
        Words words = philox(Words{{n, to.step + t + 1, Purpose::RESET, 0}}, to.key0, to.key1);
        float uniforms[4] = {unit(words.at[0]), unit(words.at[1]), unit(words.at[2]), unit(words.at[3])};
        d.env.reset(uniforms, live.state);
        live.steps = 0;
        live.episode_return = 0.0f;
    }
    return ended;
}

// An action as the environment takes it: squashed, and from [-1, 1] to the range of the space.
template <class D>
__device__ __forceinline__ void take(const D& d, float (&action)[Env::ACTION]) {
    if (d.actions) return;
#pragma unroll
    for (u32 i = 0; i < Env::ACTION; i++) {
        float x = d.take_squashed ? trig::tanh(action[i]) : action[i];
        action[i] = d.low[i] + (d.high[i] - d.low[i]) * (0.5f * (x + 1.0f));
    }
}

// What observations go through before the nets see them: shift and scale of every word, or nothing.
struct Lens {
    bool normalize;
    float low;
    float high;
    const float* normalizer;

    __device__ __forceinline__ void write(const float (&obs)[Env::OBS], float* seen, u32 e, u32 rows) const {
        float shown[Env::OBS];
#pragma unroll
        for (u32 i = 0; i < Env::OBS; i++) {
            shown[i] = obs[i];
            if (normalize) shown[i] = trig::clamp((obs[i] - normalizer[i]) * normalizer[Env::OBS + i], low, high);
        }
        see(shown, seen, e, rows);
    }
};
