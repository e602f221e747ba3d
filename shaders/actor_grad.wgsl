// Gradient of Soft Actor-Critic's actor and of its entropy weight on a batch from the replay ring. Twin of
// src/op/actor_grad.rs.
//
// Kernels in order: gather; the actor ahead (lib/soft.wgsl); its actions; both critics ahead side by side (z of the
// grid); where actions are sampled both back to the action: a slope of 1 at the value, slopes at the units below layer by
// layer, then at the action alone; losses; then the actor back: for every layer from the last, gradient of its weights,
// and slopes at the units below it.
//
// Blocks of 64 lanes make tiles of 64 x 64 numbers (lib/layers.wgsl). Per row 3 fused multiply-adds for each of the
// actor's weights and 4 for each of a critic's. Small batches are bound by the latency of the launches, large ones by
// the f32 units and workgroup memory. Orders depend on shapes alone.

#import lib/core
#import lib/layers
#import lib/soft
#import lib/trig

struct Shape {
    actor: Net,
    critic: Net,
    policy: Policy,
    batch: u32,
    joint: bool,
    tile_rows: u32,
    actor_words: u32,
    critic_words: u32,
    actor_at: u32,
    critics_at: u32,
    actor_before: u32,
    critics_before: u32,
    // words per row of scratch before the numbers that rows have beside their layers
    rest: u32,
    learned: bool,
    normalize_obs: bool,
    // whether the critics are those of the target, not those of the parameters
    folded: bool,
}

struct Args {
    index: ReadU,         // [samples]
    obs: ReadF,           // [R, O]
    normalizer: ReadF,    // [2, O]
    hyper: ReadF,         // [LEN + groups * GROUP_LEN]
    schedule: ReadF,      // [LEN + groups]
    seed: ReadU,          // [2]
    clock: ReadU,         // [4]
    params: ReadF,        // [P]
    target_: ReadF,       // [2, critic]
    partial: WriteF,      // [tiles, actor + 1]
    partial_loss: WriteF, // [tiles, LOSSES]
    scratch: UpdateF,
}

// Numbers of a row in scratch behind `d.rest`: the actor's loss, the log-probability, the value of each critic, and
// their slopes at the action.
const LOSS = 0u;
const LOG_PROB = 1u;
const VALUES = 2u;
const SLOPES = 4u;

// Parameters that move: the actor's and log_alpha.
const MOVED = d.actor.params + 1u;

fn critic_params(s: u32, z: u32) -> u32 {
    if (d.folded) { return a.target_.at + s * a.target_.stride + z * d.critic.params; }
    return params_of(s) + MOVED + z * d.critic.params;
}

// Words that a lane gathers.
const GATHERED = 16u;

@compute @workgroup_size(THREADS)
fn actor_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let obs = a.obs.at + s * a.obs.stride;
    for (var i = 0u; i < GATHERED; i++) {
        let word = (block.x * GATHERED + i) * THREADS + lane;
        if (word < d.batch * OBS) {
            let row = word / OBS;
            let o = word % OBS;
            let x = seen_word(s, obs, get_u(a.index.at + s * a.index.stride + launch.start + row), o);
            put(scratch_of(s, 0u) + word, x);
            put(critic_input(s, 0u) + row * WIDTH + o, x);
        }
    }
}

// Actions behind the observations, a lane per row.
@compute @workgroup_size(THREADS)
fn actor_grad_act(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    var out: Outputs;
    load_actor(s, row, &out);
    let to = critic_input(s, 0u) + row * WIDTH + OBS;
    if (DISCRETE) {
        var soft: Outputs;
        let chosen = sample_relaxed(s, PURPOSE_ACTOR_ACTION, row, &out, &soft);
        for (var j = 0u; j < SEEN; j++) { put(to + j, select(0.0, 1.0, j == chosen)); }
        return;
    }
    var action: Action;
    var offset: Action;
    let log_prob = sample_squashed(s, PURPOSE_ACTOR_ACTION, row, &out, &action, &offset);
    for (var j = 0u; j < POLICY_ACTION; j++) { put(to + j, action[j]); }
    put(scratch_of(s, d.rest + LOG_PROB) + row, log_prob);
}

// Values of a critic (z of the grid), which give way to slopes of 1; a lane per row.
@compute @workgroup_size(THREADS)
fn actor_grad_ones(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    put(scratch_of(s, d.rest + VALUES + block.z) + row, value_of(s, block.z, row, 0u));
    put(critic_outputs(s, block.z, row), 1.0);
}

// Slopes of a critic (z of the grid) at the action, a lane per word: [row, word].
@compute @workgroup_size(THREADS)
fn actor_grad_slopes(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let word = block.x * THREADS + lane;
    if (word >= d.batch * SEEN) { return; }
    let side = side_of(s, block.z);
    let above = side.here + word / SEEN * side.output;
    let column = OBS + word % SEEN;
    var sum = 0.0;
    for (var u = 0u; u < side.output; u++) {
        let weight = side.weight + select(column * side.output + u, u * side.input + column, side.last);
        sum = fma(get_f(above + u), get_f(weight), sum);
    }
    put(scratch_of(s, d.rest + SLOPES + block.z * SEEN) + word, sum);
}

// Value that critic `k` gave a row, and where its slopes at the action begin.
fn judged(s: u32, k: u32, row: u32) -> f32 {
    return get_f(scratch_of(s, d.rest + VALUES + k) + row);
}

fn slopes_of(s: u32, k: u32, row: u32) -> u32 {
    return scratch_of(s, d.rest + SLOPES + k * SEEN) + row * SEEN;
}

// The critic with the smaller value.
fn smaller(s: u32, row: u32) -> u32 {
    return select(1u, 0u, judged(s, 0u, row) <= judged(s, 1u, row));
}

// Loss of a sampled real action, and slopes at the actor's outputs.
fn squash(s: u32, row: u32, alpha: f32, slopes: ptr<function, Outputs>) -> f32 {
    var out: Outputs;
    var action: Action;
    var offset: Action;
    load_actor(s, row, &out);
    let log_prob = sample_squashed(s, PURPOSE_ACTOR_ACTION, row, &out, &action, &offset);
    let judge = smaller(s, row);
    let d_action = slopes_of(s, judge, row);
    for (var j = 0u; j < POLICY_ACTION; j++) {
        // ln pi falls with the sample's ln(1 - tanh^2)
        let x = action[j];
        let of_sample = 2.0 * alpha * x - get_f(d_action + j) * (1.0 - x * x);
        let raw = out[d.policy.n + j];
        let inside = raw > POLICIES_LOG_STD_LOW && raw < POLICIES_LOG_STD_HIGH;
        (*slopes)[j] = of_sample;
        (*slopes)[d.policy.n + j] = select(0.0, of_sample * offset[j] - alpha, inside);
    }
    return alpha * log_prob - judged(s, judge, row);
}

// Loss of a sampled discrete action, and slopes at the actor's outputs, which the critics' part takes from the
// relaxation; the mean log-probability goes to scratch.
fn borrow(s: u32, row: u32, alpha: f32, slopes: ptr<function, Outputs>) -> f32 {
    var out: Outputs;
    var soft: Outputs;
    load_actor(s, row, &out);
    let sums = log_sum_exp(&out);
    sample_relaxed(s, PURPOSE_ACTOR_ACTION, row, &out, &soft);
    let judge = smaller(s, row);
    let d_action = slopes_of(s, judge, row);
    var log_prob = 0.0;
    var mean = 0.0;
    for (var j = 0u; j < POLICY_WORDS; j++) {
        let log_p = out[j] - sums.x - sums.y;
        log_prob += exp_of(log_p) * log_p;
        mean += soft[j] * get_f(d_action + j);
    }
    for (var j = 0u; j < POLICY_WORDS; j++) {
        let log_p = out[j] - sums.x - sums.y;
        let entropy = exp_of(log_p) * (log_p - log_prob);
        (*slopes)[j] = alpha * entropy - soft[j] * (get_f(d_action + j) - mean);
    }
    put(scratch_of(s, d.rest + LOG_PROB) + row, log_prob);
    return alpha * log_prob - judged(s, judge, row);
}

// Expected loss over all actions, and slopes at the actor's outputs; the mean log-probability goes to scratch.
fn choose(s: u32, row: u32, alpha: f32, slopes: ptr<function, Outputs>) -> f32 {
    var out: Outputs;
    load_actor(s, row, &out);
    let sums = log_sum_exp(&out);
    var loss = 0.0;
    var log_prob = 0.0;
    for (var j = 0u; j < POLICY_WORDS; j++) {
        let log_p = out[j] - sums.x - sums.y;
        let p = exp_of(log_p);
        let value = 0.5 * (value_of(s, 0u, row, j) + value_of(s, 1u, row, j));
        (*slopes)[j] = alpha * log_p - value;
        loss += p * (*slopes)[j];
        log_prob += p * log_p;
    }
    for (var j = 0u; j < POLICY_WORDS; j++) {
        (*slopes)[j] = exp_of(out[j] - sums.x - sums.y) * ((*slopes)[j] - loss);
    }
    put(scratch_of(s, d.rest + LOG_PROB) + row, log_prob);
    return loss;
}

// A lane per row: its loss, and slopes in the place of the actor's outputs.
@compute @workgroup_size(THREADS)
fn actor_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    let alpha = alpha_of(s);
    var slopes: Outputs;
    var loss = 0.0;
    if (VALUES_ALL) {
        loss = choose(s, row, alpha, &slopes);
    } else if (DISCRETE) {
        loss = borrow(s, row, alpha, &slopes);
    } else {
        loss = squash(s, row, alpha, &slopes);
    }
    put(scratch_of(s, d.rest + LOSS) + row, loss);
    let here = actor_outputs(s, row);
    for (var j = 0u; j < POLICY_WORDS; j++) { put(here + j, slopes[j] * (1.0 / f32(d.batch))); }
}

@compute @workgroup_size(THREADS)
fn actor_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let tile = block.x / launch.across;
    let place = block.x % launch.across;
    let begin = tile * d.tile_rows;
    let count = min(d.tile_rows, d.batch - begin);
    let grad = a.partial.at + s * a.partial.stride + tile * MOVED;
    if ((launch.flags & 2u) != 0u && place == 0u) {
        let losses = scratch_of(s, d.rest + LOSS) + begin;
        let log_probs = scratch_of(s, d.rest + LOG_PROB) + begin;
        let loss = sum_of_words(losses, losses + count, lane);
        let log_prob = sum_of_words(log_probs, log_probs + count, lane);
        if (lane == 0u) {
            let to = a.partial_loss.at + s * a.partial_loss.stride + tile * SUMS_LOSSES;
            for (var c = 0u; c < SUMS_LOSSES; c++) { put(to + c, 0.0); }
            put(to + SUMS_POLICY, loss);
            put(to + SUMS_ENTROPY, -log_prob);
            let aim = get_f(a.schedule.at + s * a.schedule.stride + SCHEDULED_TARGET_ENTROPY);
            let short = log_prob + f32(count) * aim;
            put(grad + d.actor.params, select(0.0, -alpha_of(s) * short * (1.0 / f32(d.batch)), d.learned));
        }
    }
    layer_weights(side_of(s, 0u), begin, count, place, grad + launch.weight, lane);
}
