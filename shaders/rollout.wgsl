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

#import lib/acting
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
    // activations that stay from step to step, of every four environments
    kept: u32,
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
            cut = act(s, n, e, t, step, explore, &live) == ENDED_TRUNCATED && HAS_VALUE;
            if (cut) { atomicStore(&cut_flag, 1u); }
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
