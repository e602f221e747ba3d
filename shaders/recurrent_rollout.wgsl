// T steps of N environments by a recurrent agent: layers, cells and heads ahead, sample, environment step, auto-reset,
// store. Twin of src/op/recurrent_rollout.rs.
//
// As `rollout` in shaders/rollout.wgsl: a block owns `d.envs` environments (4, 8 or 16) for all T steps and never meets
// another block; weights are packed once (`recurrent_rollout_pack`) and read through the caches. States stay in the
// block's memory beside the activations, or with them in scratch (`d.spilled`); an episode's end is a flag, at which
// the next step takes 0 for its state. A step costs a barrier per hidden layer, one each for the cells and the heads,
// and two more. What is only looked at (the observation after the last step, or after a time limit) goes through the
// bodies of the values, whose states it leaves as they are. Few environments are bound by the latency of that chain,
// many by multiply-adds and reads of states and activations.
//
// Repeatable: an environment's numbers depend on its own counter and state, and the order of sums on the shape and on
// what an adapter gives a block.

#import lib/acting
#import lib/bodies
#import lib/core
#import lib/net

struct Shape {
    t: u32,
    n: u32,
    limit: u32,
    // actions: the most likely ones; any, with the probability that is scheduled; of logits over what is scheduled
    greedy: bool,
    epsilon: bool,
    boltzmann: bool,
    // uniformly random, though nets go ahead
    uniform: bool,
    // random actions from -1 to 1, which a policy learns from
    to_learn: bool,
    // vector steps of the replay ring that steps go to, 0 where they are records of this rollout
    ring: u32,
    normalize_obs: bool,
    // number of discrete actions, 0 where actions are real numbers
    actions: u32,
    // environments of a block
    envs: u32,
    // parts that a head's sum is cut in
    parts: u32,
    // lanes of a block that may step environments; the others draw
    steppers: u32,
    // lanes that pack
    pack_lanes: u32,
    // inputs of the nets, rounded up to fours
    seen: u32,
    // activations of hidden layers in each of two buffers, in fours of units; packed parameters, in fours of words
    actor_outputs: u32,
    actor_acts: array<u32, 2>,
    actor_packed: u32,
    critic_outputs: u32,
    critic_acts: array<u32, 2>,
    critic_packed: u32,
    // states of every four environments, both turns
    kept: u32,
    spilled: bool,
    low: array<f32, ENV_ACTION>,
    high: array<f32, ENV_ACTION>,
    policy: Policy,
    // hidden layers, cell, head; `params` are those of the head
    actor: Net,
    critic: Net,
    env: Env,
    lstm: bool,
    units: u32,
    // parameters before the critic's
    actor_params: u32,
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
    state: UpdateF,
    first_state: UpdateF,
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

// Packs the nets of a session into scratch. Bound by memory: 8 bytes per weight.
@compute @workgroup_size(THREADS)
fn recurrent_rollout_pack(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let params = a.params.at + s * a.params.stride;
    var packed = (a.scratch.at + s * a.scratch.stride) / 4u;
    for (var z = 0u; z < BODIES; z++) {
        packed = pack_body(block.x * THREADS + lane, z, params + z * d.actor_params, packed);
    }
}

@compute @workgroup_size(THREADS)
fn recurrent_rollout(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
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
    let states = a.state.at + s * a.state.stride;
    let first_states = a.first_state.at + s * a.first_state.stride;

    // rows that no environment fills, inputs and units that pad stay finite
    for (var i = lane; i < 2u * d.seen * ROWS; i += THREADS) { seen[i] = 0.0; }
    for (var i = KEPT_AT + lane; i < ACTS; i += THREADS) { acts_put(p, i, vec4<f32>()); }
    draw(lane, THREADS, 0u, first, step, key);
    synchronize();
    for (var i = lane; i < BODIES * CELL_TASKS; i += THREADS) {
        let z = i / CELL_TASKS;
        let q = i % CELL_TASKS / d.units;
        let unit = i % d.units;
        var state: State4;
        for (var r = 0u; r < 4u; r++) {
            let from_env = first + 4u * q + r;
            if (from_env < d.n) {
                let at = states + from_env * STATES + z * STATE + unit;
                state.h[r] = get_f(at);
                if (d.lstm) { state.c[r] = get_f(at + d.units); }
            }
        }
        acts_put(p, h_at(0u, z) + unit * QUADS + q, state.h);
        if (d.lstm) { acts_put(p, c_at(z) + unit * QUADS + q, state.c); }
    }
    var live: Live;
    if (e < ROWS) { forgotten[e] = 0u; }
    if (mine) {
        live = load_live(s, n);
        let obs = env_observe(live.state);
        show(s, obs, 0u, e);
        store_obs(s, slot_of(0u, step) * d.n + n, obs);
    }
    synchronize();

    // one pass of the bodies per step; one more, of the value alone, after a step that cut an episode and after the
    // last
    var cut = false;
    var any_cut = false;
    var turn = 0u;
    var t = 0u;
    loop {
        if (lane == 0u) { atomicStore(&cut_flag, 0u); }
        let value_alone = any_cut || t == d.t;
        if (HAS_VALUE || !value_alone) {
            var way: Pass;
            way.turn = turn;
            way.forgets = !any_cut;
            way.with_actor = !value_alone || d.critic.layers == 0u;
            way.acts = !value_alone;
            way.keeps = !value_alone && (d.ring > 0u || t == 0u);
            way.row = first_states + select(0u, slot_of(t, step + t), d.ring > 0u) * d.n * STATES;
            way.first = first;
            bodies_ahead(lane, p, select(0u, final_seen, any_cut), way);
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
        turn = 1u - turn;

        if (mine) {
            let ended = act(s, n, e, t, step, explore, &live);
            forgotten[e] = ended;
            cut = ended == ENDED_TRUNCATED && HAS_VALUE;
            if (cut) { atomicStore(&cut_flag, 1u); }
        } else if (lane >= d.steppers) {
            draw(lane - d.steppers, THREADS - d.steppers, (t + 1u) & 1u, first, step + t + 1u, key);
        }
        any_cut = workgroupUniformLoad(&cut_flag) != 0u;
        t++;
    }
    if (mine) { save_live(s, n, live); }
    var way: Pass;
    way.turn = turn;
    way.forgets = true;
    for (var i = lane; i < BODIES * CELL_TASKS; i += THREADS) {
        let z = i / CELL_TASKS;
        let q = i % CELL_TASKS / d.units;
        let unit = i % d.units;
        store_state(states, first, q, z, unit, remembered(p, way, z, unit, q));
    }
}
