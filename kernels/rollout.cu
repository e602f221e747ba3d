// T steps of N environments: policy ahead, sample, environment step, auto-reset, store. Twin of src/op/rollout.rs.
//
// With nets (ENTRY()): a block owns `envs` environments (4, 8, 16 or 32, a function of the shape) for all T steps and
// never meets another block. The nets' weights are read once into shared memory and activations never leave it; lane e
// of the first warp keeps state, steps and return of environment e in registers, samples its action, steps it and
// stores; all lanes compute the nets, layer by layer, actor and critic side by side. A step costs one barrier per layer
// and one vote. Stores run along environments, whole sectors. Per environment and step: 4 (O + A + 7) bytes written,
// 4 (2 O + A + 4) into a replay ring, nothing read, 2 x weights FLOPs. Few environments are bound by the latency of that chain, many by fused multiply-adds
// and shared-memory loads.
//
// Nets too wide for shared memory (ENTRY(_wide), after ENTRY(_pack)): the same, with packed weights read through the
// caches from scratch, each once per block and step, and the activations there too where even those do not fit. One
// launch per layer and step would spread few environments over more multiprocessors, but its launches alone should take
// longer than such a step up to some 400 units (reckoned, not measured).
//
// Without nets, or whatever they say (ENTRY(_random)): one lane per environment, everything in registers, 4 (O + A + 4) bytes written per
// step; bound by instruction issue until memory bandwidth takes over.
//
// Repeatable: an environment's numbers depend on its own counter and state, and a net's sums on the net's sizes alone.

#ifdef BF16
#include "lib/agent_bf16.cuh"
#else
#include "lib/agent.cuh"
#endif
#include "lib/episodes.cuh"

// NAME is what the environment's kernels are called
#define JOIN(prefix, name, suffix) prefix##name##suffix
#define NAMED(prefix, name, suffix) JOIN(prefix, name, suffix)
#define ENTRY(suffix) NAMED(rollout_, NAME, suffix)

struct RolloutShape {
    u32 t;
    u32 n;
    u32 limit;
    // steps go to a replay ring: no log-probabilities and no values, but the observation after each step
    u32 ring;
    // vector steps that there is room for, and the first one, counted from the clock and among finished episodes
    u32 slots;
    u32 at;
    // the most likely action; the coin of epsilon, thrown first; logits are divided by a temperature
    u32 greedy;
    u32 coin;
    u32 tempered;
    // an action is squashed before it is stored, or only where the environment takes it
    u32 store_squashed;
    u32 take_squashed;
    // uniform actions are stored in the environment's own units, not in [-1, 1]
    u32 own_units;
    u32 normalize_obs;
    // number of discrete actions, 0 where actions are real numbers
    u32 actions;
    // environments of a block
    u32 envs;
    // units of the widest hidden layer, in fours
    u32 actor_wide;
    u32 critic_wide;
    // activations are in scratch
    u32 spilled;
    float low[Env::ACTION];
    float high[Env::ACTION];
    Policy policy;
    Net actor;
    Net critic;
    Env env;
};

struct RolloutArgs {
    Read<float> params;             // [P]
    Read<float> hyper;              // [LEN + groups * GROUP_LEN]
    Read<float> schedule;           // [LEN + groups]
    Read<float> normalizer;         // [2, O]
    Read<u32> seed;                 // [2]
    Read<u32> clock;                // [4]
    Update<float> env_state;        // [N, K]
    Update<float> episode_return;   // [N]
    Update<u32> episode_step;       // [N]
    Update<float> obs;              // [slots, N, O]
    Update<float> next_obs;         // [slots, N, O], empty but in a ring
    Update<float> action;           // [slots, N, A]
    Write<float> log_prob;          // [T, N], as value and bootstrap empty without nets and in a ring
    Write<float> value;             // [T + 1, N]
    Write<float> bootstrap;         // [T, N]
    Update<float> reward;           // [slots, N]
    Update<u32> ended;              // [slots, N]
    Update<float> finished_return;  // [steps of an iteration, N]
    Update<u32> finished_length;    // [steps of an iteration, N]
    Update<float> scratch;
};

// Words of packed weights.
__device__ __forceinline__ u32 packed_words(const RolloutShape& d) {
    return packed_words(d.actor) + packed_words(d.critic);
}

// The nets of a block: packed weights, and its part of the activations.
struct Agent {
    Ahead actor;
    Ahead critic;
    // observations as the nets see them: of this step, and of environments whose episode was cut
    float* seen;
    float* final_seen;
    // value of environment e is value[e]; null where there is none
    const float* value;
};

// Words of a block's activations; twin of `acts_words` in src/op/gpu/rollout.rs.
__device__ __forceinline__ u32 acts_words(const RolloutShape& d) {
    return 2 * seen_words<Env::OBS>(d.envs) + buffer_words(d.actor_wide, d.envs) +
           buffer_words(d.critic_wide, d.envs) + out_words(d.actor, d.envs) + out_words(d.critic, d.envs);
}

__device__ __forceinline__ Agent agent(const RolloutShape& d, const float* packed, float* acts) {
    Agent nets;
    nets.seen = acts;
    nets.final_seen = nets.seen + seen_words<Env::OBS>(d.envs);
    float* actor_at = nets.final_seen + seen_words<Env::OBS>(d.envs);
    float* critic_at = actor_at + buffer_words(d.actor_wide, d.envs);
    float* actor_out = critic_at + buffer_words(d.critic_wide, d.envs);
    float* critic_out = actor_out + out_words(d.actor, d.envs);
    nets.actor = {packed, nets.seen, actor_at, d.actor_wide, actor_out, d.actor.layers};
    nets.critic = {packed + packed_words(d.actor), nets.seen, critic_at, d.critic_wide, critic_out, d.critic.layers};
    // a net of its own, or the last output of a shared one
    u32 of_policy = d.policy.kind == Policies::GAUSSIAN && !d.policy.free_std ? 2 * d.policy.n : d.policy.n;
    bool shared = d.actor.layer[d.actor.layers - 1].output > of_policy;
    nets.value = d.ring ? nullptr : d.critic.layers ? critic_out : shared ? actor_out + of_policy * unit_row(d.envs) : nullptr;
    return nets;
}

// The steps of a session whose actions are judged.
struct Judgement {
    Session steps;
    float* log_prob;
    float* value;
    float* bootstrap;
    const float* free_log_std;
    // epsilon, or the temperature
    float explore;
    Lens lens;
};

constexpr u32 THREADS = 256;

// The steps of a block's environments, from packed weights; all lanes of the block come here together.
__device__ __forceinline__ void collect(const RolloutShape& d, const RolloutArgs& a, u32 s, const float* packed,
                                        float* acts) {
    u32 e = threadIdx.x, n = blockIdx.x * d.envs + e;
    bool mine = e < d.envs && n < d.n;
    Agent nets = agent(d, packed, acts);
    // what only stores need waits in shared memory, not in registers that the nets could use
    __shared__ Judgement to;
    if (e == 0) {
        const float* hyper = a.hyper.of(s);
        to = {session(d, a, s),
              a.log_prob.of(s),
              a.value.of(s),
              a.bootstrap.of(s),
              a.params.of(s) + d.actor.params,
              a.schedule.of(s)[Scheduled::EXPLORE],
              {d.normalize_obs != 0, hyper[Hyper::OBS_CLIP_LOW], hyper[Hyper::OBS_CLIP_HIGH], a.normalizer.of(s)}};
    }

    // rows and columns that no environment fills stay finite
    for (u32 at = e; at < 2 * seen_words<Env::OBS>(d.envs); at += blockDim.x) nets.seen[at] = 0.0f;
    __syncthreads();
    Live live;
    u32 slot = to.steps.slot;
    // what the agent sees next, shown to the nets and stored as that step's: at the end of the step before, not kept until
    // its own; and in a ring as the observation after the step at `after`, where the episode goes on
    auto look = [&](u32 t, u32 after, bool goes_on) {
        float obs[Env::OBS];
        d.env.observe(live.state, obs);
        to.lens.write(obs, nets.seen, e, d.envs);
        if (t < d.t) store_row(to.steps.obs + (slot * d.n + n) * Env::OBS, obs);
        if (d.ring && goes_on) store_row(to.steps.next_obs + after * Env::OBS, obs);
    };
    if (mine) {
        live = load(a, s, n);
        look(0, 0, false);
    }
    __syncthreads();

    // one pass of the nets per step; one more, of the value alone, after a step that cut an episode and after the last;
    // a single call keeps the code small
    bool cut = false, any_cut = false;
    for (u32 t = 0; !d.ring || t < d.t;) {
        bool value_alone = any_cut || t == d.t;
        Ahead actor = nets.actor, critic = nets.critic;
        actor.from = critic.from = any_cut ? nets.final_seen : nets.seen;
        if (value_alone && (critic.layers || !nets.value)) actor.layers = 0;
        ahead(d.actor, d.critic, actor, critic, d.envs);
        if (any_cut) {
            if (cut) to.bootstrap[(t - 1) * d.n + n] = nets.value[e];
            any_cut = cut = false;
            // the outputs are read before the next pass writes them
            __syncthreads();
            continue;
        }
        u32 at = slot * d.n + n;
        // the slot of value T lies behind the last one
        if (mine && !d.ring) to.value[t * d.n + n] = nets.value ? nets.value[e] : 0.0f;
        if (t == d.t) break;

        slot = next_slot(d, slot);
        if (mine) {
            u32 words[action_words(Env::ACTION)];
            float action[Env::ACTION];
            draw_action(n, to.steps.step + t, to.steps.key0, to.steps.key1, words);
            float* own = nets.actor.out + e;
            if (d.tempered) {
#pragma unroll 1
                for (u32 j = 0; j < d.policy.n; j++) own[j * unit_row(d.envs)] /= to.explore;
            }
            Outputs out = {own, unit_row(d.envs), to.free_log_std};
            float log_prob = sample(d.policy, out, words, d.greedy, action);
            if (!d.ring) to.log_prob[at] = log_prob;
            if (d.coin && unit(words[0]) < to.explore) action[0] = floorf(unit(words[1]) * float(d.actions));
            if (d.store_squashed) {
#pragma unroll
                for (u32 i = 0; i < Env::ACTION; i++) action[i] = trig::tanh(action[i]);
            }
            store_row(to.steps.action + at * Env::ACTION, action);
            take(d, action);
            u32 ended = advance(d, to.steps, at, n, t, action, live, [&](u32 how) {
                if (!d.ring && how != Ended::TRUNCATED) return;
                // what the agent would have seen without the reset: kept, or given its value
                float obs[Env::OBS];
                d.env.observe(live.state, obs);
                cut = nets.value != nullptr;
                if (d.ring) {
                    store_row(to.steps.next_obs + at * Env::OBS, obs);
                } else {
                    to.lens.write(obs, nets.final_seen, e, d.envs);
                }
            });
            if (!cut && !d.ring) to.bootstrap[at] = 0.0f;
            look(t + 1, at, ended == 0);
        }
        any_cut = __syncthreads_or(cut);
        t++;
    }
    if (mine) save(a, s, n, live);
}

#ifndef WIDE

extern "C" __global__ void __launch_bounds__(THREADS, 3)
    ENTRY()(__grid_constant__ const RolloutShape d, __grid_constant__ const Sessions sessions,
            __grid_constant__ const RolloutArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    const float* params = a.params.of(s);
    u32 critic = packed_words(d.actor);
    pack(d.actor, params, shared, threadIdx.x, blockDim.x);
    if (d.critic.layers) {
        // behind the actor's net and its free log standard deviations
        u32 free_len = d.policy.free_std ? d.policy.n : 0;
        pack(d.critic, params + d.actor.params + free_len, shared + critic, threadIdx.x, blockDim.x);
    }
    collect(d, a, s, shared, shared + packed_words(d));
}

#ifndef BF16

constexpr u32 RANDOM_THREADS = 128;

extern "C" __global__ void __launch_bounds__(RANDOM_THREADS)
    ENTRY(_random)(__grid_constant__ const RolloutShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const RolloutArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    u32 n = blockIdx.x * RANDOM_THREADS + threadIdx.x;
    if (n >= d.n) return;
    Session to = session(d, a, s);
    Live live = load(a, s, n);
    float obs[Env::OBS];
    d.env.observe(live.state, obs);
    for (u32 t = 0, slot = to.slot; t < d.t; t++, slot = next_slot(d, slot)) {
        u32 at = slot * d.n + n;
        store_row(to.obs + at * Env::OBS, obs);

        u32 words[action_words(Env::ACTION)];
        float action[Env::ACTION];
        draw_action(n, to.step + t, to.key0, to.key1, words);
#pragma unroll
        for (u32 i = 0; i < Env::ACTION; i++) {
            float u = unit(words[i]);
            action[i] = d.actions     ? floorf(u * float(d.actions))
                        : d.own_units ? d.low[i] + (d.high[i] - d.low[i]) * u
                                      : 2.0f * u - 1.0f;
        }
        store_row(to.action + at * Env::ACTION, action);
        if (!d.own_units) take(d, action);
        u32 ended = advance(d, to, at, n, t, action, live, [&](u32) {
            if (!d.ring) return;
            d.env.observe(live.state, obs);
            store_row(to.next_obs + at * Env::OBS, obs);
        });
        d.env.observe(live.state, obs);
        if (d.ring && !ended) store_row(to.next_obs + at * Env::OBS, obs);
    }
    save(a, s, n, live);
}

#endif

#else

// Packs the nets of a session into scratch, for ENTRY(_wide). Bound by memory: 8 bytes per weight.
extern "C" __global__ void __launch_bounds__(THREADS)
    ENTRY(_pack)(__grid_constant__ const RolloutShape d, __grid_constant__ const Sessions sessions,
                 __grid_constant__ const RolloutArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const float* params = a.params.of(s);
    float* packed = a.scratch.of(s);
    u32 lane = blockIdx.x * THREADS + threadIdx.x, lanes = gridDim.x * THREADS;
    pack(d.actor, params, packed, lane, lanes);
    if (d.critic.layers) {
        u32 free_len = d.policy.free_std ? d.policy.n : 0;
        pack(d.critic, params + d.actor.params + free_len, packed + packed_words(d.actor), lane, lanes);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    ENTRY(_wide)(__grid_constant__ const RolloutShape d, __grid_constant__ const Sessions sessions,
                 __grid_constant__ const RolloutArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    float* packed = a.scratch.of(s);
    float* acts = d.spilled ? packed + packed_words(d) + blockIdx.x * acts_words(d) : shared;
    collect(d, a, s, packed, acts);
}

#endif
