// Gradient of Soft Actor-Critic's two critics on a batch from the replay ring. Twin of src/op/critic_grad.rs.
//
// Kernels in order: gather; the actor ahead at the next observations (lib/soft.wgsl); its actions; then side by side (z
// of the grid) critics 0 and 1 at what was done, and as 2 and 3 the target critics at what the actor would do next;
// losses; then the two critics back: for every layer from the last, gradient of its weights, and slopes at the units
// below it.
//
// Blocks of 64 lanes make tiles of 64 x 64 numbers (lib/layers.wgsl). Per row 1 fused multiply-add for each of the
// actor's weights and 8 for each of a critic's. Small batches are bound by the latency of the launches, large ones by
// the f32 units and workgroup memory. Orders depend on shapes alone.

#import lib/core
#import lib/distance
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
    distance: u32,
    beta: f32,
    symlog: bool,
}

struct Args {
    index: ReadU,         // [samples]
    last: ReadU,          // [samples]
    returns: ReadF,       // [samples]
    discount: ReadF,      // [samples]
    weight: ReadF,        // [samples]
    obs: ReadF,           // [R, O]
    next_obs: ReadF,      // [R, O]
    action: ReadF,        // [R, A]
    normalizer: ReadF,    // [2, O]
    hyper: ReadF,         // [LEN + groups * GROUP_LEN]
    schedule: ReadF,      // [LEN + groups]
    seed: ReadU,          // [2]
    clock: ReadU,         // [4]
    params: ReadF,        // [P]
    target_: ReadF,       // [2, critic]
    partial: WriteF,      // [tiles, 2, critic]
    partial_loss: WriteF, // [tiles, LOSSES]
    error: WriteF,        // [B]
    scratch: UpdateF,
}

// Numbers of a row in scratch behind `d.rest`: what the entropy of its next action costs, its loss.
const BONUS = 0u;
const LOSS = 1u;

fn critic_params(s: u32, z: u32) -> u32 {
    if (z >= 2u) { return a.target_.at + s * a.target_.stride + (z - 2u) * d.critic.params; }
    return params_of(s) + d.actor.params + 1u + z * d.critic.params;
}

// The row of the ring that is row `i` of the batch.
fn row_of(s: u32, i: u32) -> u32 {
    return get_u(a.index.at + s * a.index.stride + launch.start + i);
}

// Word `j` of what critics see of the action of row `m` of the ring.
fn action_word(s: u32, m: u32, j: u32) -> f32 {
    let action = a.action.at + s * a.action.stride + m * POLICY_ACTION;
    if (DISCRETE) { return select(0.0, 1.0, u32(get_f(action)) == j); }
    return get_f(action + j);
}

// Words that a lane gathers.
const GATHERED = 16u;

@compute @workgroup_size(THREADS)
fn critic_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    // what critics see next, and the actor; the action behind it comes later
    let after = block.z == 1u;
    let obs = select(a.obs.at + s * a.obs.stride, a.next_obs.at + s * a.next_obs.stride, after);
    let to = critic_input(s, select(0u, 2u, after));
    for (var i = 0u; i < GATHERED; i++) {
        let word = (block.x * GATHERED + i) * THREADS + lane;
        if (word < d.batch * WIDTH) {
            let row = word / WIDTH;
            let o = word % WIDTH;
            if (after && o < OBS) {
                let m = get_u(a.last.at + s * a.last.stride + launch.start + row);
                let x = seen_word(s, obs, m, o);
                put(to + word, x);
                put(scratch_of(s, 0u) + row * OBS + o, x);
            }
            if (!after) {
                let m = row_of(s, row);
                var x = 0.0;
                if (o < OBS) {
                    x = seen_word(s, obs, m, o);
                } else {
                    x = action_word(s, m, o - OBS);
                }
                put(to + word, x);
            }
        }
    }
}

// What the actor does at the next observations, a lane per row: actions behind them, or probabilities of all actions in
// the place of its outputs.
@compute @workgroup_size(THREADS)
fn critic_grad_act(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    var out: Outputs;
    load_actor(s, row, &out);
    var log_prob = 0.0;
    if (VALUES_ALL) {
        let sums = log_sum_exp(&out);
        let here = actor_outputs(s, row);
        for (var j = 0u; j < POLICY_WORDS; j++) {
            let log_p = out[j] - sums.x - sums.y;
            let p = exp_of(log_p);
            put(here + j, p);
            log_prob += p * log_p;
        }
    } else if (DISCRETE) {
        var soft: Outputs;
        let sums = log_sum_exp(&out);
        let chosen = sample_relaxed(s, PURPOSE_NEXT_ACTION, row, &out, &soft);
        let to = critic_input(s, 2u) + row * WIDTH + OBS;
        for (var j = 0u; j < SEEN; j++) { put(to + j, select(0.0, 1.0, j == chosen)); }
        log_prob = out[chosen] - sums.x - sums.y;
    } else {
        var action: Action;
        var offset: Action;
        log_prob = sample_squashed(s, PURPOSE_NEXT_ACTION, row, &out, &action, &offset);
        let to = critic_input(s, 2u) + row * WIDTH + OBS;
        for (var j = 0u; j < POLICY_ACTION; j++) { put(to + j, action[j]); }
    }
    put(scratch_of(s, d.rest + BONUS) + row, alpha_of(s) * log_prob);
}

// What the target critics say to that.
fn next_value(s: u32, row: u32) -> f32 {
    if (!VALUES_ALL) { return min(value_of(s, 2u, row, 0u), value_of(s, 3u, row, 0u)); }
    let here = actor_outputs(s, row);
    var sum = 0.0;
    for (var j = 0u; j < POLICY_WORDS; j++) {
        sum += get_f(here + j) * 0.5 * (value_of(s, 2u, row, j) + value_of(s, 3u, row, j));
    }
    return sum;
}

// Loss of a value, and its slope.
fn value_loss(q: f32, goal: f32) -> vec2<f32> {
    if (d.symlog) { return symlog_distance(q, goal); }
    return distance_of(q - goal);
}

// A lane per row: its target, the losses of both critics, and their slopes in the place of their values.
@compute @workgroup_size(THREADS)
fn critic_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x * THREADS + lane;
    if (row >= d.batch) { return; }
    let i = launch.start + row;
    let next = next_value(s, row) - get_f(scratch_of(s, d.rest + BONUS) + row);
    let goal = get_f(a.returns.at + s * a.returns.stride + i) + get_f(a.discount.at + s * a.discount.stride + i) * next;
    let weight = get_f(a.weight.at + s * a.weight.stride + i);
    var done = 0u;
    if (VALUES_ALL) { done = u32(get_f(a.action.at + s * a.action.stride + row_of(s, row))); }
    let first = value_of(s, 0u, row, done);
    let second = value_of(s, 1u, row, done);
    put(a.error.at + s * a.error.stride + row, abs(min(first, second) - goal));
    let one = value_loss(first, goal);
    let two = value_loss(second, goal);
    put(scratch_of(s, d.rest + LOSS) + row, weight * one.x + weight * two.x);
    let share = weight * (1.0 / f32(d.batch));
    for (var j = 0u; j < CRITIC_OUTPUT.output; j++) {
        put(critic_outputs(s, 0u, row) + j, select(0.0, one.y * share, j == done));
        put(critic_outputs(s, 1u, row) + j, select(0.0, two.y * share, j == done));
    }
}

@compute @workgroup_size(THREADS)
fn critic_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let tile = block.x / launch.across;
    let place = block.x % launch.across;
    let begin = tile * d.tile_rows;
    let count = min(d.tile_rows, d.batch - begin);
    if ((launch.flags & 2u) != 0u && block.z == 0u && place == 0u) {
        let to = a.partial_loss.at + s * a.partial_loss.stride + tile * SUMS_LOSSES;
        add_value_losses(to, scratch_of(s, d.rest + LOSS) + begin, count, lane);
    }
    let grad = a.partial.at + s * a.partial.stride + (2u * tile + block.z) * d.critic.params + launch.weight;
    layer_weights(side_of(s, block.z), begin, count, place, grad, lane);
}
