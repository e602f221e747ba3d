// T steps of N environments with an agent that remembers: as rollout.cu, with states that go from step to step. Twin of
// src/op/recurrent_rollout.rs.
//
// A block owns `envs` environments (4 or 8, a function of the shape) for all T steps and never meets another block. States
// and activations stay in shared memory, the outputs of a cell in two buffers that are written by turns; weights are packed
// into scratch once (ENTRY(_pack)) and read through the caches, each once per block and step. A step is: hidden layers in
// front of the cell, the cell (four lanes per unit, all bodies side by side; lib/recurrent.cuh), the linear heads; then
// lane e of the first warps samples for environment e, steps it and stores. A barrier each, one vote, and where an episode
// ended in the block one more pass of the value alone, from the state before the end, and zeros for the next one's.
//
// Per environment and step: 4 (O + A + 7) bytes written, 4 (2 O + A + S + 4) into a replay ring, 2 x weights FLOPs. Few
// environments are bound by the latency of that chain, many by loads of weights from the caches and multiply-adds.
//
// Repeatable: an environment's numbers depend on its own counter and states, and a net's sums on the net's sizes alone.

#include "lib/agent.cuh"
#include "lib/episodes.cuh"
#include "lib/recurrent.cuh"

// NAME is what the environment's kernels are called
#define JOIN(prefix, name, suffix) prefix##name##suffix
#define NAMED(prefix, name, suffix) JOIN(prefix, name, suffix)
#define ENTRY(suffix) NAMED(recurrent_rollout_, NAME, suffix)

struct RecurrentRolloutShape {
    u32 t;
    u32 n;
    u32 limit;
    // steps go to a replay ring: no log-probabilities and no values, but the observation after each step, and the state before
    u32 ring;
    // vector steps that there is room for, and the first one, counted from the clock and among finished episodes
    u32 slots;
    u32 at;
    // the most likely action; the coin of epsilon, thrown first; logits are divided by a temperature; any action
    u32 greedy;
    u32 coin;
    u32 tempered;
    u32 uniform;
    // an action is squashed before it is stored, or only where the environment takes it
    u32 store_squashed;
    u32 take_squashed;
    u32 normalize_obs;
    // number of discrete actions, 0 where actions are real numbers
    u32 actions;
    // environments of a block
    u32 envs;
    // units of the widest hidden layer in front of a cell, in fours
    u32 wide;
    // gates of a unit of the cells, and their units
    u32 gates;
    u32 hidden;
    float low[Env::ACTION];
    float high[Env::ACTION];
    Policy policy;
    // linear heads, and the layers in front of a cell, of which the last is its input's matrix
    Net actor;
    Net critic;
    Net front;
    Env env;
};

struct RecurrentRolloutArgs {
    Read<float> params;             // [P]
    Read<float> hyper;              // [LEN + groups * GROUP_LEN]
    Read<float> schedule;           // [LEN + groups]
    Read<float> normalizer;         // [2, O]
    Read<u32> seed;                 // [2]
    Read<u32> clock;                // [4]
    Update<float> env_state;        // [N, K]
    Update<float> episode_return;   // [N]
    Update<u32> episode_step;       // [N]
    Update<float> state;            // [N, S]
    Update<float> first_state;      // [1, N, S], or [slots, N, S] in a ring
    Update<float> obs;              // [slots, N, O]
    Update<float> next_obs;         // [slots, N, O], empty but in a ring
    Update<float> action;           // [slots, N, A]
    Write<float> log_prob;          // [T, N], as value and bootstrap empty in a ring
    Write<float> value;             // [T + 1, N]
    Write<float> bootstrap;         // [T, N]
    Update<float> reward;           // [slots, N]
    Update<u32> ended;              // [slots, N]
    Update<float> finished_return;  // [steps of an iteration, N]
    Update<u32> finished_length;    // [steps of an iteration, N]
    Update<float> scratch;
};

// Bodies, each with a head of its own.
__device__ __forceinline__ u32 bodies(const RecurrentRolloutShape& d) { return d.critic.layers > 0 ? 2 : 1; }

// Words of one body's state.
__device__ __forceinline__ u32 state_words(const RecurrentRolloutShape& d) {
    return d.hidden * (d.gates == cell::LSTM ? 2 : 1);
}

// First parameter of a body: behind its head and, with the actor's, the free log standard deviations.
__device__ __forceinline__ u32 head_at(const RecurrentRolloutShape& d, u32 z) {
    u32 body = d.front.params + d.gates * d.hidden * (d.hidden + 1);
    return z == 0 ? 0 : d.actor.params + (d.policy.free_std ? d.policy.n : 0) + body;
}
__device__ __forceinline__ u32 body_at(const RecurrentRolloutShape& d, u32 z) {
    return head_at(d, z) + (z == 0 ? d.actor.params + (d.policy.free_std ? d.policy.n : 0) : d.critic.params);
}

// Words of packed parameters: of the hidden layers in front of a cell, of a body, of a body and its head.
__device__ __forceinline__ u32 front_words(const RecurrentRolloutShape& d) {
    u32 words = 0;
#pragma unroll 1
    for (u32 l = 0; l + 1 < d.front.layers; l++) words += packed_words(d.front.layer[l]);
    return words;
}
__device__ __forceinline__ u32 input_words(const RecurrentRolloutShape& d) {
    return cell::ahead_words(d.front.layer[d.front.layers - 1].input, d.hidden, d.gates);
}
__device__ __forceinline__ u32 body_words(const RecurrentRolloutShape& d) {
    return front_words(d) + input_words(d) + cell::ahead_words(d.hidden, d.hidden, d.gates);
}
// Where the packed parameters of body z lie, and its head behind them.
__device__ __forceinline__ u32 packed_at(const RecurrentRolloutShape& d, u32 z) {
    return z == 0 ? 0 : body_words(d) + packed_words(d.actor);
}

constexpr u32 PACK_THREADS = 256;

// Packs the nets of a session into scratch. Bound by memory: 8 bytes per weight.
extern "C" __global__ void __launch_bounds__(PACK_THREADS)
    ENTRY(_pack)(__grid_constant__ const RecurrentRolloutShape d, __grid_constant__ const Sessions sessions,
                 __grid_constant__ const RecurrentRolloutArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    u32 lane = blockIdx.x * PACK_THREADS + threadIdx.x, lanes = gridDim.x * PACK_THREADS;
#pragma unroll 1
    for (u32 z = 0; z < bodies(d); z++) {
        const float* params = a.params.of(s) + body_at(d, z);
        float* to = a.scratch.of(s) + packed_at(d, z);
#pragma unroll 1
        for (u32 l = 0; l + 1 < d.front.layers; l++) {
            pack_layer(d.front.layer[l], false, params, to, lane, lanes);
            to += packed_words(d.front.layer[l]);
        }
        Layer y = d.front.layer[d.front.layers - 1];
        cell::pack_ahead(params + y.weight, y.input, d.hidden, d.gates, to, lane, lanes);
        to += input_words(d);
        cell::pack_ahead(params + d.front.params, d.hidden, d.hidden, d.gates, to, lane, lanes);
        to += cell::ahead_words(d.hidden, d.hidden, d.gates);
        pack(z == 0 ? d.actor : d.critic, a.params.of(s) + head_at(d, z), to, lane, lanes);
    }
}

// What a block has in shared memory; twin of `shared_words` in src/op/gpu/recurrent_rollout.rs.
struct Agent {
    // observations as the nets see them: of this step, and of environments whose episode was cut
    float* seen;
    float* final_seen;
    // hidden activations of the bodies: two layers each
    float* acts;
    float* out[2];
    // outputs of the cells, two buffers of all bodies; cells of LSTMs
    float* h;
    float* c;
    // value of environment e is value[e]; null where there is none
    const float* value;

    __device__ __forceinline__ Agent(const RecurrentRolloutShape& d, float* shared) {
        u32 units = whole4(d.hidden) * unit_row(d.envs);
        seen = shared;
        final_seen = seen + seen_words<Env::OBS>(d.envs);
        acts = final_seen + seen_words<Env::OBS>(d.envs);
        out[0] = acts + bodies(d) * buffer_words(d.wide, d.envs);
        out[1] = out[0] + out_words(d.actor, d.envs);
        h = out[1] + out_words(d.critic, d.envs);
        c = h + 2 * bodies(d) * units;
        // a net of its own, or the last output of a shared one
        u32 of_policy = d.policy.kind == Policies::GAUSSIAN && !d.policy.free_std ? 2 * d.policy.n : d.policy.n;
        bool shared_net = d.actor.layer[0].output > of_policy;
        value = d.ring ? nullptr : d.critic.layers ? out[1] : shared_net ? out[0] + of_policy * unit_row(d.envs) : nullptr;
    }
};

// Calls `f(word, there, at, column)` for every word of what a block remembers and its place `at` among all states, [N, bodies,
// parts, units]; `there` is false for words behind the last unit or environment. `turn`: which buffer has the outputs.
template <class F>
__device__ __forceinline__ void each_word(const RecurrentRolloutShape& d, const Agent& nets, u32 turn, u32 first, u32 envs,
                                          F f) {
    u32 row = unit_row(d.envs), units = whole4(d.hidden), parts = d.gates == cell::LSTM ? 2 : 1;
    u32 buffer = bodies(d) * units * row, words = bodies(d) * state_words(d);
#pragma unroll 1
    for (u32 at = threadIdx.x; at < parts * buffer; at += blockDim.x) {
        u32 column = at % row, unit = at / row % units, z = at / row / units % bodies(d), part = at / buffer;
        float* word = (part == 0 ? nets.h + turn * buffer : nets.c) + (z * units + unit) * row + column;
        bool there = unit < d.hidden && column < envs;
        f(word, there, u64(first + column) * words + (z * parts + part) * d.hidden + unit, column);
    }
}

// A step of the cells: where it reads and writes, and for whom.
struct Stride {
    // packed matrices of the inputs, those of the states behind them; of body 1 `skip` words on
    const float* packed;
    u32 skip;
    const float* params;
    // what the cells see; of body 1 `across` words on
    const float* from;
    u32 across;
    u32 depth;
    const float* before;
    float* after;
    float* c;
    // the first body that goes along, and whether what is remembered moves on
    u32 first;
    bool moves;
    // where the states before the step are kept, if anywhere, and of how many environments
    float* kept;
    u32 envs;
};

// All cells of a block, one step.
template <u32 GATES, u32 QUADS>
__device__ __forceinline__ void stride(const RecurrentRolloutShape& d, const Stride& y) {
    const u32 row = unit_row(4 * QUADS);
    u32 units = whole4(d.hidden), each = cell::PARTS * units, tasks = bodies(d) * each;
#pragma unroll 1
    for (u32 base = y.first * each; base < tasks; base += blockDim.x) {
        // lanes without a unit go along with the first one and write nothing
        u32 task = base + threadIdx.x, part = task % cell::PARTS;
        bool live = task < tasks;
        u32 z = live ? task / each : y.first, unit = live ? task % each / cell::PARTS : 0;
        u32 word = min(unit, d.hidden - 1), at = (z * units + unit) * row + part;
        const float* weights = y.packed + z * y.skip + cell::PARTS * unit + part;
        const float* params = y.params + body_at(d, z);
        float in[GATES][QUADS], got[GATES][QUADS];
        cell::Sums<GATES, QUADS> sums;
        sums.multiply(weights, cell::PARTS * units, y.depth, y.from + z * y.across + part * row, row);
        sums.join(part, in);
        sums.multiply(weights + input_words(d), cell::PARTS * units, units, y.before + (z * units + part) * row, row);
        sums.join(part, got);
        u32 input_bias = d.front.layer[d.front.layers - 1].bias, state_bias = d.front.params + GATES * d.hidden * d.hidden;
#pragma unroll
        for (u32 q = 0; q < QUADS; q++) {
            float gate[GATES], had[GATES];
#pragma unroll
            for (u32 g = 0; g < GATES; g++) {
                gate[g] = in[g][q] + __ldg(params + input_bias + g * d.hidden + word);
                had[g] = got[g][q] + __ldg(params + state_bias + g * d.hidden + word);
            }
            float old = y.before[at + 4 * q], kept = GATES == cell::LSTM && live ? y.c[at + 4 * q] : 0.0f, now = kept;
            float out = cell::open<GATES>(gate, had, old, now);
            if (!live) continue;
            bool there = unit < d.hidden;
            y.after[at + 4 * q] = there ? out : 0.0f;
            if (!y.moves) continue;
            if (GATES == cell::LSTM) y.c[at + 4 * q] = there ? now : 0.0f;
            u32 e = 4 * q + part;
            if (y.kept != nullptr && there && e < y.envs) {
                float* to = y.kept + (e * bodies(d) + z) * state_words(d) + unit;
                to[0] = old;
                if (GATES == cell::LSTM) to[d.hidden] = kept;
            }
        }
    }
}

__device__ __forceinline__ void stride(const RecurrentRolloutShape& d, const Stride& y) {
    bool gru = d.gates == cell::GRU;
    if (d.envs == 4) {
        gru ? stride<cell::GRU, 1>(d, y) : stride<cell::LSTM, 1>(d, y);
    } else {
        gru ? stride<cell::GRU, 2>(d, y) : stride<cell::LSTM, 2>(d, y);
    }
}

// The steps of a session whose environments a block has.
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

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    ENTRY()(__grid_constant__ const RecurrentRolloutShape d, __grid_constant__ const Sessions sessions,
            __grid_constant__ const RecurrentRolloutArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Agent nets(d, shared);
    u32 e = threadIdx.x, first = blockIdx.x * d.envs, n = first + e, envs = min(d.n - first, d.envs);
    bool mine = e < envs;
    // what only stores need waits in shared memory, not in registers that the nets could use
    __shared__ Judgement to;
    // how the episodes ended in the step before
    __shared__ u32 over[8];
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
    if (e < 8) over[e] = 0;

    // rows and columns that no environment fills stay finite
    for (u32 at = e; at < 2 * seen_words<Env::OBS>(d.envs); at += blockDim.x) nets.seen[at] = 0.0f;
    u32 row = unit_row(d.envs), units = whole4(d.hidden), buffer = bodies(d) * units * row;
    // which buffer has the outputs of the cells
    u32 turn = 0;
    each_word(d, nets, turn, first, envs, [&](float* word, bool there, u64 at, u32) {
        *word = there ? a.state.of(s)[at] : 0.0f;
        if (there && !d.ring) a.first_state.of(s)[at] = *word;
    });
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

    const float* packed = a.scratch.of(s);
    u32 skip = packed_at(d, 1), before_cell = front_words(d), hidden_layers = d.front.layers - 1;
    // one pass of the nets per step; one more, of the value alone, after a step that cut an episode and after the last;
    // a single call keeps the code small
    bool any_cut = false;
    for (u32 t = 0; !d.ring || t < d.t;) {
        bool value_alone = any_cut || t == d.t;
        if (nets.value != nullptr || !value_alone) {
            bool rests = value_alone && d.critic.layers > 0;
            const float* seen = any_cut ? nets.final_seen : nets.seen;
            Ahead actor = {packed, seen, nets.acts, d.wide, nets.out[0], rests ? 0 : d.front.layers};
            Ahead critic = {packed + skip, seen, nets.acts + buffer_words(d.wide, d.envs), d.wide, nets.out[1],
                            d.critic.layers > 0 ? d.front.layers : 0};
#pragma unroll 1
            for (u32 l = 0; l < hidden_layers; l++) {
                hidden(d.front, d.front, actor, critic, l, d.envs);
                actor.weights += packed_words(d.front.layer[l]);
                critic.weights += packed_words(d.front.layer[l]);
                actor.from = actor.buffers + (l & 1) * d.wide * row;
                critic.from = critic.buffers + (l & 1) * d.wide * row;
                __syncthreads();
            }
            float* after = nets.h + (turn ^ 1) * buffer;
            float* kept = d.ring ? a.first_state.of(s) + u64(slot * d.n + first) * bodies(d) * state_words(d) : nullptr;
            stride(d, {packed + before_cell, skip, a.params.of(s), actor.from,
                       hidden_layers > 0 ? buffer_words(d.wide, d.envs) : 0,
                       whole4(d.front.layer[hidden_layers].input), nets.h + turn * buffer, after, nets.c, rests ? 1u : 0u,
                       !value_alone, kept, envs});
            __syncthreads();
            actor.weights = packed + body_words(d);
            actor.from = after;
            actor.layers = rests ? 0 : 1;
            critic.weights = packed + skip + body_words(d);
            critic.from = after + units * row;
            critic.layers = d.critic.layers > 0 && !d.ring ? 1 : 0;
            last(d.actor, d.critic, actor, critic, 0, d.envs);
            __syncthreads();
        }
        if (!value_alone) turn ^= 1;
        if (any_cut && mine && over[e] == Ended::TRUNCATED) to.bootstrap[(t - 1) * d.n + n] = nets.value[e];
        if (any_cut) {
            any_cut = false;
        } else {
            u32 at = slot * d.n + n;
            // the slot of value T lies behind the last one
            if (mine && !d.ring) to.value[t * d.n + n] = nets.value != nullptr ? nets.value[e] : 0.0f;
            if (t == d.t) break;

            slot = next_slot(d, slot);
            u32 ended = 0;
            if (mine) {
                u32 drawn[action_words(Env::ACTION)];
                float action[Env::ACTION];
                draw_action(n, to.steps.step + t, to.steps.key0, to.steps.key1, drawn);
                float* own = nets.out[0] + e;
                if (d.tempered) {
#pragma unroll 1
                    for (u32 j = 0; j < d.policy.n; j++) own[j * row] /= to.explore;
                }
                Outputs out = {own, row, to.free_log_std};
                float log_prob = sample(d.policy, out, drawn, d.greedy, action);
                if (!d.ring) to.log_prob[at] = log_prob;
                if (d.coin && unit(drawn[0]) < to.explore) action[0] = floorf(unit(drawn[1]) * float(d.actions));
#pragma unroll
                for (u32 i = 0; i < Env::ACTION; i++) {
                    if (d.uniform) action[i] = d.actions ? floorf(unit(drawn[i]) * float(d.actions)) : 2.0f * unit(drawn[i]) - 1.0f;
                    if (d.store_squashed) action[i] = trig::tanh(action[i]);
                }
                store_row(to.steps.action + at * Env::ACTION, action);
                take(d, action);
                bool cut = false;
                ended = advance(d, to.steps, at, n, t, action, live, [&](u32 how) {
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
                over[e] = ended;
                look(t + 1, at, ended == 0);
            }
            bool any_ended = __syncthreads_or(ended != 0);
            t++;
            if (!any_ended) continue;
            for (u32 i = 0; i < d.envs; i++) any_cut |= nets.value != nullptr && over[i] == Ended::TRUNCATED;
            if (any_cut) continue;
        }
        // a new episode begins without a memory
        each_word(d, nets, turn, first, envs, [&](float* word, bool there, u64, u32 column) {
            if (there && over[column] != 0) *word = 0.0f;
        });
        __syncthreads();
    }
    each_word(d, nets, turn, first, envs, [&](float* word, bool there, u64 at, u32) {
        if (there) a.state.of(s)[at] = *word;
    });
    if (mine) save(a, s, n, live);
}
