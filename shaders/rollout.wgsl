// T steps of N environments: policy ahead, sample, environment step, auto-reset, store. Twin of src/op/rollout.rs.
//
// With nets (`rollout_pack`, then `rollout`): a block owns `d.envs` environments (4, 8 or 16, a function of the shape
// and of a block's memory) for all T steps and never meets another block. Activations stay in the block's memory;
// weights are packed once and read through the caches. Lane e keeps state, steps and return of environment e in
// registers, samples its action, steps it and stores; all lanes compute the nets, layer by layer, actor and critic side
// by side, and while the first lanes step, others draw the random words of the step after. A step costs one barrier per
// layer and two more. Stores run along environments. Per environment and step: 4 (O + A + 7) bytes written, 2 x weights
// FLOPs. Few environments are bound by the latency of that chain, many by multiply-adds and reads of activations.
//
// Nets whose activations do not fit in the block's memory keep them in scratch (`d.spilled`).
//
// Without nets, or where they are not asked (`rollout_random`): one lane per environment, everything in registers,
// 4 (O + A + 4) bytes written per step.
//
// Into a replay ring (`d.ring`) go 4 (2 O + A + 2) bytes per step, and neither values nor log-probabilities.
//
// Repeatable: an environment's numbers depend on its own counter and state, and the order of a net's sums on the shape
// and on what an adapter gives a block.

#import lib/core
#import lib/net
#import lib/policy
#import env/ENV

struct Shape {
    t: u32,
    n: u32,
    limit: u32,
    // actions: the most likely ones; any, with the probability that is scheduled; of logits over what is scheduled
    greedy: bool,
    epsilon: bool,
    boltzmann: bool,
    // random actions from -1 to 1, which a policy learns from
    to_learn: bool,
    // vector steps of the replay ring that steps go to, 0 where they are records of this rollout
    ring: u32,
    normalize_obs: bool,
    // number of discrete actions, 0 where actions are real numbers
    actions: u32,
    // environments of a block
    envs: u32,
    // parts that a last layer's sum is cut in
    parts: u32,
    // lanes of a block that may step environments; the others draw
    steppers: u32,
    // lanes that pack
    pack_lanes: u32,
    // inputs of the nets, rounded up to fours
    seen: u32,
    // activations in each of two buffers, in fours of units; packed parameters, in fours of words
    actor_outputs: u32,
    actor_acts: array<u32, 2>,
    actor_packed: u32,
    critic_outputs: u32,
    critic_acts: array<u32, 2>,
    critic_packed: u32,
    spilled: bool,
    low: array<f32, ENV_ACTION>,
    high: array<f32, ENV_ACTION>,
    policy: Policy,
    actor: Net,
    critic: Net,
    env: Env,
}

struct Launch {
    // the first vector step, counted from the clock
    at: u32,
}

struct Args {
    params: ReadF,
    hyper: ReadF,
    schedule: ReadF,
    normalizer: ReadF,
    seed: ReadU,
    clock: ReadU,
    env_state: UpdateF,
    episode_return: UpdateF,
    episode_step: UpdateU,
    obs: UpdateF,
    next_obs: UpdateF,
    action: UpdateF,
    log_prob: WriteF,
    value: WriteF,
    bootstrap: WriteF,
    reward: UpdateF,
    ended: UpdateU,
    finished_return: UpdateF,
    finished_length: UpdateU,
    scratch: UpdateF,
}

alias State = array<f32, ENV_STATE>;
alias Obs = array<f32, ENV_OBS>;
alias Taken = array<f32, ENV_ACTION>;

struct Stepped {
    state: State,
    reward: f32,
    terminated: bool,
}

// What of an environment lives from step to step.
struct Live {
    state: State,
    steps: u32,
    episode_return: f32,
}

fn load_live(s: u32, n: u32) -> Live {
    var live: Live;
    let state = a.env_state.at + s * a.env_state.stride + n * ENV_STATE;
    for (var i = 0u; i < ENV_STATE; i++) { live.state[i] = get_f(state + i); }
    live.steps = get_u(a.episode_step.at + s * a.episode_step.stride + n);
    live.episode_return = get_f(a.episode_return.at + s * a.episode_return.stride + n);
    return live;
}

fn save_live(s: u32, n: u32, live: Live) {
    let state = a.env_state.at + s * a.env_state.stride + n * ENV_STATE;
    for (var i = 0u; i < ENV_STATE; i++) { put(state + i, live.state[i]); }
    put_u(a.episode_step.at + s * a.episode_step.stride + n, live.steps);
    put(a.episode_return.at + s * a.episode_return.stride + n, live.episode_return);
}

// Where vector step `t` of the rollout lies among records; `step` is its number in the session.
fn slot_of(t: u32, step: u32) -> u32 {
    if (d.ring > 0u) { return step % max(d.ring, 1u); }
    return t;
}

// Stores what an environment shows, from word `to` on; a row of whole fours begins at a multiple of four words.
fn store_words(to: u32, obs: Obs) {
    if (ENV_OBS % 4u == 0u) {
        for (var i = 0u; i < ENV_OBS / 4u; i++) {
            put4(to + i * 4u, vec4<f32>(obs[i * 4u], obs[i * 4u + 1u], obs[i * 4u + 2u], obs[i * 4u + 3u]));
        }
    } else {
        for (var i = 0u; i < ENV_OBS; i++) { put(to + i, obs[i]); }
    }
}

fn store_obs(s: u32, at: u32, obs: Obs) {
    store_words(a.obs.at + s * a.obs.stride + at * ENV_OBS, obs);
}

// What a step did to an environment: `ended` as stored.
struct Advanced {
    live: Live,
    ended: u32,
}

// Steps an environment with an action in its own units and stores what came of it at `at`, of an episode at `episode`.
fn advance(s: u32, at: u32, episode: u32, before: Live, taken: Taken) -> Advanced {
    let done = env_step(before.state, taken);
    let live = Live(done.state, before.steps + 1u, before.episode_return + done.reward);
    let ended = select(0u, ENDED_TERMINATED, done.terminated) | select(0u, ENDED_TRUNCATED, live.steps >= d.limit);
    put(a.reward.at + s * a.reward.stride + at, done.reward);
    put_u(a.ended.at + s * a.ended.stride + at, ended);
    if (d.ring > 0u) {
        // before a reset, so that what ended an episode is kept
        store_words(a.next_obs.at + s * a.next_obs.stride + at * ENV_OBS, env_observe(live.state));
    }
    let finished = select(0x7FC00000u, bitcast<u32>(live.episode_return), ended != 0u);
    put_u(a.finished_return.at + s * a.finished_return.stride + episode, finished);
    put_u(a.finished_length.at + s * a.finished_length.stride + episode, select(0u, live.steps, ended != 0u));
    return Advanced(live, ended);
}

// An action in the environment's units from one that is in -1..1 along each of its words.
fn to_env(action: Taken) -> Taken {
    var taken = action;
    if (d.actions == 0u) {
        for (var i = 0u; i < ENV_ACTION; i++) {
            taken[i] = d.low[i] + (d.high[i] - d.low[i]) * (0.5 * (action[i] + 1.0));
        }
    }
    return taken;
}

fn uniforms(words: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unit(words.x), unit(words.y), unit(words.z), unit(words.w));
}

fn key_of(s: u32) -> vec2<u32> {
    let seed = a.seed.at + s * a.seed.stride;
    return vec2<u32>(get_u(seed), get_u(seed + 1u));
}

// Packs the nets of a session into scratch. Bound by memory: 8 bytes per weight.
@compute @workgroup_size(THREADS)
fn rollout_pack(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let params = a.params.at + s * a.params.stride;
    // behind the actor's net and its free log standard deviations
    let critic_params = params + d.actor.params + d.policy.free_std * d.policy.n;
    let first = block.x * THREADS + lane;
    var packed = (a.scratch.at + s * a.scratch.stride) / 4u;
    // how many layers there are is kept from the compiler, which would copy all of this for each
    let layers = d.actor.layers + d.critic.layers + (sessions[0] >> 31u);
    for (var i = 0u; i < layers; i++) {
        let other = i >= d.actor.layers;
        let l = select(i, i - d.actor.layers, other);
        var y = d.actor.layer[select(l, 0u, other)];
        if (other) { y = d.critic.layer[l]; }
        let of_net = select(d.actor.layers, d.critic.layers, other);
        pack(first, of_net, y, l, select(params, critic_params, other), packed);
        packed += packed_layer(y, of_net, l);
    }
}

// Philox blocks of an environment and step: those of its action, then the one of a reset.
const DRAWS = POLICY_DRAWN / 4u + 1u;
// Where the value is among the outputs, and whether there is one.
const VALUE_AT = select(POLICY_OUTPUTS, d.actor_outputs, d.critic.layers > 0u);
const HAS_VALUE = d.ring == 0u && (d.critic.layers > 0u || d.actor_outputs > POLICY_OUTPUTS);

// Random words of this step and of the next in turns, [step][environment][block].
var<workgroup> drawn: array<vec4<u32>, 2u * ROWS * DRAWS>;
// Whether a time limit alone ended an episode of the block in this step.
var<workgroup> cut_flag: atomic<u32>;

// Draws the words of step `step`, in turn `turn`.
fn draw(first: u32, lanes: u32, turn: u32, n: u32, step: u32, key: vec2<u32>) {
    for (var i = first; i < ROWS * DRAWS; i += lanes) {
        let index = i % DRAWS;
        let reset = index + 1u == DRAWS;
        // a reset belongs to the step that it begins
        let purpose = select(PURPOSE_ACTION, PURPOSE_RESET, reset);
        let counter = vec4<u32>(n + i / DRAWS, step + select(0u, 1u, reset), purpose, select(index, 0u, reset));
        drawn[turn * ROWS * DRAWS + i] = philox(counter, key);
    }
}

// Shows an environment to the nets, as row `e` from `shown` on.
fn show(s: u32, obs: Obs, shown: u32, e: u32) {
    for (var i = 0u; i < ENV_OBS; i++) {
        var x = obs[i];
        if (d.normalize_obs) {
            let normalizer = a.normalizer.at + s * a.normalizer.stride + i;
            let hyper = a.hyper.at + s * a.hyper.stride;
            let scaled = (x - get_f(normalizer)) * get_f(normalizer + ENV_OBS);
            x = hold(scaled, get_f(hyper + HYPER_OBS_CLIP_LOW), get_f(hyper + HYPER_OBS_CLIP_HIGH));
        }
        seen[shown + i * ROWS + e] = x;
    }
}

@compute @workgroup_size(THREADS)
fn rollout(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let e = lane;
    let first = block.x * ROWS;
    let n = first + e;
    let mine = e < ROWS && n < d.n;
    let key = key_of(s);
    let step = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP) + launch.at;
    let explore = get_f(a.schedule.at + s * a.schedule.stride + SCHEDULED_EXPLORE);
    let scratch = (a.scratch.at + s * a.scratch.stride) / 4u;
    let packed_len = d.actor_packed + d.critic_packed;
    let p = Place(scratch, scratch + packed_len + block.x * ACTS);
    let final_seen = d.seen * ROWS;

    // rows that no environment fills and inputs that pad stay finite
    for (var i = lane; i < 2u * d.seen * ROWS; i += THREADS) { seen[i] = 0.0; }
    draw(lane, THREADS, 0u, first, step, key);
    synchronize();
    var live: Live;
    if (mine) {
        live = load_live(s, n);
        let obs = env_observe(live.state);
        show(s, obs, 0u, e);
        store_obs(s, slot_of(0u, step) * d.n + n, obs);
    }
    synchronize();

    // one pass of the nets per step; one more, of the value alone, after a step that cut an episode and after the last
    var cut = false;
    var any_cut = false;
    var t = 0u;
    loop {
        if (lane == 0u) { atomicStore(&cut_flag, 0u); }
        let value_alone = any_cut || t == d.t;
        if (HAS_VALUE || !value_alone) {
            ahead(lane, p, select(0u, final_seen, any_cut), !value_alone || d.critic.layers == 0u);
        }
        if (any_cut) {
            if (cut) { put(a.bootstrap.at + s * a.bootstrap.stride + (t - 1u) * d.n + n, output_at(VALUE_AT, e)); }
            any_cut = false;
            cut = false;
            // the outputs are read before the next pass writes them
            workgroupBarrier();
            continue;
        }
        let at = slot_of(t, step + t) * d.n + n;
        if (mine && d.ring == 0u) {
            var value = 0.0;
            if (HAS_VALUE) { value = output_at(VALUE_AT, e); }
            put(a.value.at + s * a.value.stride + at, value);
        }
        if (t == d.t) { break; }

        if (mine) {
            var out: Outputs;
            for (var j = 0u; j < POLICY_WORDS; j++) {
                if (j < POLICY_OUTPUTS) {
                    out[j] = output_at(j, e);
                } else {
                    out[j] = get_f(a.params.at + s * a.params.stride + d.actor.params + j - POLICY_OUTPUTS);
                }
            }
            let words_at = (t & 1u) * ROWS * DRAWS + e * DRAWS;
            var words: Drawn;
            for (var b = 0u; b + 1u < DRAWS; b++) {
                for (var w = 0u; w < 4u; w++) { words[b * 4u + w] = drawn[words_at + b][w]; }
            }
            if (d.boltzmann) {
                for (var j = 0u; j < POLICY_WORDS; j++) { out[j] /= explore; }
            }
            var action: Action;
            let log_prob = sample(&out, &words, d.greedy, &action);
            if (d.ring == 0u) { put(a.log_prob.at + s * a.log_prob.stride + at, log_prob); }
            if (d.epsilon) {
                // one coin decides, another word which action it is
                let any = floor(unit(words[1]) * f32(d.actions));
                action[0] = select(action[0], any, unit(words[0]) < explore);
            }

            // a critic learns from actions as they are when squashed, a policy from those before
            var taken: Taken;
            for (var i = 0u; i < ENV_ACTION; i++) {
                taken[i] = select(action[i], tanh_of(action[i]), d.policy.squashed != 0u);
                let stored = select(action[i], taken[i], d.ring > 0u);
                put(a.action.at + s * a.action.stride + at * ENV_ACTION + i, stored);
            }
            let done = advance(s, at, (launch.at + t) * d.n + n, live, to_env(taken));
            live = done.live;
            cut = HAS_VALUE && done.ended == ENDED_TRUNCATED;
            if (cut) {
                // what the agent would have seen without the reset still has a value
                show(s, env_observe(live.state), final_seen, e);
                atomicStore(&cut_flag, 1u);
            } else if (d.ring == 0u) {
                put(a.bootstrap.at + s * a.bootstrap.stride + at, 0.0);
            }
            if (done.ended != 0u) { live = Live(env_reset(uniforms(drawn[words_at + DRAWS - 1u])), 0u, 0.0); }
            // shown at the end of the step before, so that nothing has to be kept
            let obs = env_observe(live.state);
            show(s, obs, 0u, e);
            if (t + 1u < d.t) { store_obs(s, slot_of(t + 1u, step + t + 1u) * d.n + n, obs); }
        } else if (lane >= d.steppers) {
            draw(lane - d.steppers, THREADS - d.steppers, (t + 1u) & 1u, first, step + t + 1u, key);
        }
        any_cut = workgroupUniformLoad(&cut_flag) != 0u;
        t++;
    }
    if (mine) { save_live(s, n, live); }
}

@compute @workgroup_size(THREADS)
fn rollout_random(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let n = block.x * THREADS + lane;
    if (n >= d.n) { return; }
    let key = key_of(s);
    let first_step = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP) + launch.at;
    var live = load_live(s, n);
    for (var t = 0u; t < d.t; t++) {
        let step = first_step + t;
        let at = slot_of(t, step) * d.n + n;
        store_obs(s, at, env_observe(live.state));

        // uniformly random, already in the environment's units where nobody learns from it
        var action: Taken;
        var words: vec4<u32>;
        for (var i = 0u; i < ENV_ACTION; i++) {
            if (i % 4u == 0u) { words = philox(vec4<u32>(n, step, PURPOSE_ACTION, i / 4u), key); }
            let u = unit(words[i % 4u]);
            let real = select(d.low[i] + (d.high[i] - d.low[i]) * u, 2.0 * u - 1.0, d.to_learn);
            action[i] = select(real, floor(u * f32(d.actions)), d.actions > 0u);
            put(a.action.at + s * a.action.stride + at * ENV_ACTION + i, action[i]);
        }
        var taken = action;
        if (d.to_learn) { taken = to_env(action); }
        let done = advance(s, at, (launch.at + t) * d.n + n, live, taken);
        live = done.live;
        if (done.ended != 0u) {
            live = Live(env_reset(uniforms(philox(vec4<u32>(n, step + 1u, PURPOSE_RESET, 0u), key))), 0u, 0.0);
        }
    }
    save_live(s, n, live);
}
