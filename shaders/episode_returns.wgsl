// The steps of a rollout go to a ring of episodes, and every row of an episode that has ended gets its return. Twin of
// src/op/episode_returns.rs.
//
// Two kernels. `keep`: a block per vector step copies observations and actions, 8 (O + A + 2) bytes a row, side by side;
// bound by memory. `walk`: one block, a lane per environment, which goes back from the newest step to where the last
// episode that is known already ended, 12 bytes a step; bound by the latency of one step behind the other. Then the sums
// above all leaves, level by level, a lane per node. Lanes share nothing but the tree, whose nodes are computed in a fixed
// order from their children.

#import lib/core
#import lib/tree
#import lib/trig

struct Shape {
    // vector steps of the rollout, environments, vector steps of the ring
    t: u32,
    n: u32,
    c: u32,
    // words of an observation and of an action
    obs: u32,
    action: u32,
    // new rows have the largest priority there is
    prioritized: bool,
    children: u32,
    levels: Levels,
}

struct Args {
    clock: ReadU,            // [4]
    hyper: ReadF,            // [LEN + groups * GROUP_LEN]
    reward_moments: ReadF,   // [4]
    obs: ReadF,              // [T, N, O]
    action: ReadF,           // [T, N, A]
    reward: ReadF,           // [T, N]
    ended: ReadU,            // [T, N]
    bootstrap: ReadF,        // [T, N]
    top: ReadF,              // [1]
    ring_obs: UpdateF,       // [C, N, O]
    ring_action: UpdateF,    // [C, N, A]
    ring_reward: UpdateF,    // [C, N]
    ring_ended: UpdateU,     // [C, N]
    ring_returns: UpdateF,   // [C, N]
    tree: UpdateF,
    scratch: UpdateF,
}

@compute @workgroup_size(THREADS)
fn episode_returns_keep(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let hyper = a.hyper.at + s * a.hyper.stride;
    let t = block.x;
    let step = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP) - d.t + t;
    let before = t * d.n;
    let row = step % d.c * d.n;
    let obs = a.obs.at + s * a.obs.stride + before * d.obs;
    let action = a.action.at + s * a.action.stride + before * d.action;
    let ring_obs = a.ring_obs.at + s * a.ring_obs.stride + row * d.obs;
    let ring_action = a.ring_action.at + s * a.ring_action.stride + row * d.action;
    for (var i = lane; i < d.n * d.obs; i += THREADS) { put_u(ring_obs + i, get_u(obs + i)); }
    for (var i = lane; i < d.n * d.action; i += THREADS) { put_u(ring_action + i, get_u(action + i)); }

    // rewards as the agent sees them; nothing is known of the episodes yet
    let moments = a.reward_moments.at + s * a.reward_moments.stride;
    let scale = get_f(moments + MOMENTS_SCALE) * get_f(hyper + HYPER_REWARD_SCALE);
    for (var n = lane; n < d.n; n += THREADS) {
        let reward = get_f(a.reward.at + s * a.reward.stride + before + n) * scale;
        let seen = hold(reward, get_f(hyper + HYPER_REWARD_CLIP_LOW), get_f(hyper + HYPER_REWARD_CLIP_HIGH));
        put(a.ring_reward.at + s * a.ring_reward.stride + row + n, seen);
        put_u(a.ring_ended.at + s * a.ring_ended.stride + row + n,
              get_u(a.ended.at + s * a.ended.stride + before + n));
        put(a.tree.at + s * a.tree.stride + row + n, 0.0);
    }
}

@compute @workgroup_size(THREADS)
fn episode_returns_walk(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let rewards = a.ring_reward.at + s * a.ring_reward.stride;
    let ends = a.ring_ended.at + s * a.ring_ended.stride;
    let bootstrap = a.bootstrap.at + s * a.bootstrap.stride;
    let returns = a.ring_returns.at + s * a.ring_returns.stride;
    let tree = a.tree.at + s * a.tree.stride;
    let top = get_f(a.top.at + s * a.top.stride);
    let priority = select(1.0, top, d.prioritized && top > 1.0);
    let gamma = get_f(a.hyper.at + s * a.hyper.stride + HYPER_GAMMA);
    let now = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP);
    let known = min(now, d.c);

    for (var n = lane; n < d.n; n += THREADS) {
        // the return behind a step, once the end of its episode has been met
        var inside = false;
        var behind = 0.0;
        for (var back = 0u; back < known; back++) {
            let row = (now - 1u - back) % d.c * d.n + n;
            let how = get_u(ends + row);
            // what ended in an earlier rollout is known, and so is that no episode has ended in this one
            if (back >= d.t && (how != 0u || !inside)) { break; }
            if (how != 0u) {
                inside = true;
                behind = 0.0;
                if (how == ENDED_TRUNCATED) { behind = get_f(bootstrap + (d.t - 1u - back) * d.n + n); }
            }
            if (inside) {
                behind = get_f(rewards + row) + gamma * behind;
                put(returns + row, behind);
                put(tree + row, priority);
            }
        }
    }

    var nodes = d.c * d.n;
    for (var level = 1u; level < d.levels.count; level++) {
        workgroupBarrier();
        storageBarrier();
        nodes = (nodes + d.children - 1u) / d.children;
        let below = tree + d.levels.start[level - 1u];
        let here = tree + d.levels.start[level];
        for (var node = lane; node < nodes; node += THREADS) {
            put(here + node, sum_of_children(below + node * d.children));
        }
    }
}
