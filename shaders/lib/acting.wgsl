// Environments of a rollout: what lives from step to step, the random words of a block, acting and storing. What
// rollout and recurrent_rollout share; the op has in its shape what both have, and its arguments by the same names.

#import lib/core
#import lib/net
#import lib/policy
#import env/ENV

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

// Acts on the outputs for environment `e` of a block, `n` of the session, in step `t` of a rollout that begins with
// step `step`; steps it, stores what came of it and shows what comes next. Returns how the episode ended, as stored.
fn act(s: u32, n: u32, e: u32, t: u32, step: u32, explore: f32, live: ptr<function, Live>) -> u32 {
    let at = slot_of(t, step + t) * d.n + n;
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
        if (d.uniform) {
            let u = unit(words[i]);
            taken[i] = select(2.0 * u - 1.0, floor(u * f32(d.actions)), d.actions > 0u);
        }
        let stored = select(action[i], taken[i], d.ring > 0u);
        put(a.action.at + s * a.action.stride + at * ENV_ACTION + i, stored);
    }
    let done = advance(s, at, (launch.at + t) * d.n + n, *live, to_env(taken));
    *live = done.live;
    if (HAS_VALUE && done.ended == ENDED_TRUNCATED) {
        // what the agent would have seen without the reset still has a value
        show(s, env_observe((*live).state), d.seen * ROWS, e);
    } else if (d.ring == 0u) {
        put(a.bootstrap.at + s * a.bootstrap.stride + at, 0.0);
    }
    if (done.ended != 0u) { *live = Live(env_reset(uniforms(drawn[words_at + DRAWS - 1u])), 0u, 0.0); }
    // shown at the end of the step before, so that nothing has to be kept
    let obs = env_observe((*live).state);
    show(s, obs, 0u, e);
    if (t + 1u < d.t) { store_obs(s, slot_of(t + 1u, step + t + 1u) * d.n + n, obs); }
    return done.ended;
}
