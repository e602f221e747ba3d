// Rows of the replay ring for some batches, and what their targets need. Twin of src/op/sample.rs.
//
// A block per batch, a lane per row; lanes go round where a batch has more rows than a block has lanes. A row costs one
// block of Philox, up to n steps of 8 scattered bytes, and where rows have priorities a walk down the tree, one node of
// 64 bytes a level. Bound by the latency of these reads. Rows are independent but for the smallest priority of a batch,
// a minimum of words, which has no order.

#import lib/core
#import lib/rng
#import lib/tree
#import lib/trig
#import lib/wide

struct Shape {
    // vector steps of the ring, and environments
    c: u32,
    n: u32,
    batch: u32,
    // rows by priority; the last rollout in order; sequences; else all alike
    prioritized: bool,
    ordered: bool,
    // steps of sequences that are drawn whole, or 0
    sequence: u32,
    n_step: u32,
    children: u32,
    levels: Levels,
}

struct Launch {
    // vector steps since the clock that are in the ring by now
    at: u32,
    // number of the first batch within the iteration
    first: u32,
    // newest rows that take the last places of the first batch
    newest: u32,
    // 1 where the sums of the last update are to be cleared
    begins: u32,
}

struct Args {
    seed: ReadU,       // [2]
    clock: ReadU,      // [4]
    hyper: ReadF,      // [LEN + groups * GROUP_LEN]
    schedule: ReadF,   // [LEN + groups]
    reward: ReadF,     // [C, N]
    ended: ReadU,      // [C, N]
    tree: ReadF,
    index: WriteU,     // [batches * B]
    last: WriteU,
    returns: WriteF,
    discount: WriteF,
    weight: WriteF,
    update: UpdateF,   // [LEN]
    scratch: UpdateF,
}

// The smallest priority of the batch, as the bits of a number that is not negative: their order is that of the numbers.
var<workgroup> least: atomic<u32>;

const INFINITY = 0x7F800000u;

// A row, and whether there is one.
struct Row {
    index: u32,
    known: bool,
}

// Draws of a batch.
fn draws() -> u32 { return d.batch / max(d.sequence, 1u); }

// Row `b` of batch `k` of this launch, when `now` vector steps were ever stored.
fn drawn(s: u32, b: u32, k: u32, now: u32, word: u32) -> Row {
    let begin = get_u(a.clock.at + s * a.clock.stride + CLOCK_RING);
    let filled = min(now - begin, d.c);
    let newest = select(0u, min(min(launch.newest, d.batch), filled * d.n), k == 0u);
    let tree = a.tree.at + s * a.tree.stride;
    if (b + newest >= d.batch) {
        // counted back from the newest row, where that may be drawn
        let back = d.batch - 1u - b;
        let row = (now - 1u - back / d.n) % d.c * d.n + back % d.n;
        if (!d.prioritized) { return Row(row, true); }
        if (get_f(tree + row) > 0.0) { return Row(row, true); }
    }
    if (d.prioritized) {
        // rounded as a division should be, so that the place is the definition's
        let part = narrow(wide_div(wide(keep(f32(b) + unit(word))), wide(f32(d.batch))));
        let row = tree_find(tree, keep(part * tree_total(tree)));
        return Row(row, get_f(tree + row) > 0.0);
    }
    if (d.ordered) {
        let back = d.batch / d.n + 1u - b / d.n;
        if (back > now) { return Row(0u, false); }
        return Row((now - back) % d.c * d.n + b % d.n, true);
    }
    if (d.sequence > 0u) {
        if (filled < d.sequence) { return Row(0u, false); }
        // counted from the oldest row
        let start = wide_product(word, (filled + 1u - d.sequence) * d.n).x;
        return Row((now - filled + start / d.n + b / draws()) % d.c * d.n + start % d.n, true);
    }
    return Row((begin % d.c * d.n + wide_product(word, filled * d.n).x) % (d.c * d.n), true);
}

// Walks from row `index` up to `n_step` steps ahead and stores what is found there for sample `i`.
fn follow(s: u32, i: u32, index: u32, now: u32) {
    let hyper = a.hyper.at + s * a.hyper.stride;
    let reward = a.reward.at + s * a.reward.stride;
    let ended = a.ended.at + s * a.ended.stride;
    let newest = (now + d.c - 1u) % d.c;
    var at = index;
    var sum = 0.0;
    var factor = 1.0;
    for (var step = 1u; step <= d.n_step; step++) {
        let scaled = get_f(reward + at) * get_f(hyper + HYPER_REWARD_SCALE);
        sum += factor * hold(scaled, get_f(hyper + HYPER_REWARD_CLIP_LOW), get_f(hyper + HYPER_REWARD_CLIP_HIGH));
        factor *= get_f(hyper + HYPER_GAMMA);
        if (step == d.n_step || get_u(ended + at) != 0u || at / d.n == newest) { break; }
        at = (at + d.n) % (d.c * d.n);
    }
    put_u(a.last.at + s * a.last.stride + i, at);
    put(a.returns.at + s * a.returns.stride + i, sum);
    let terminated = (get_u(ended + at) & ENDED_TERMINATED) != 0u;
    put(a.discount.at + s * a.discount.stride + i, select(factor, 0.0, terminated));
}

@compute @workgroup_size(THREADS)
fn sample(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let k = block.x;
    let seed = a.seed.at + s * a.seed.stride;
    let key = vec2<u32>(get_u(seed), get_u(seed + 1u));
    let now = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP) + launch.at;
    let index = a.index.at + s * a.index.stride;
    let weight = a.weight.at + s * a.weight.stride;
    if (k == 0u && lane < SUMS_LEN && launch.begins != 0u) { put(a.update.at + s * a.update.stride + lane, 0.0); }
    if (lane == 0u) { atomicStore(&least, INFINITY); }
    workgroupBarrier();

    for (var b = lane; b < d.batch; b += THREADS) {
        let i = k * d.batch + b;
        let word = philox(vec4<u32>(b % draws(), now, PURPOSE_SAMPLE, launch.first + k), key).x;
        let row = drawn(s, b, k, now, word);
        put_u(index + i, row.index);
        put(weight + i, select(0.0, 1.0, row.known));
        follow(s, i, row.index, now);
        if (d.prioritized && row.known) { atomicMin(&least, get_u(a.tree.at + s * a.tree.stride + row.index)); }
    }
    if (!d.prioritized) { return; }

    let beta = get_f(a.schedule.at + s * a.schedule.stride + SCHEDULED_BETA);
    let smallest = bitcast<f32>(workgroupUniformLoad(&least));
    for (var b = lane; b < d.batch; b += THREADS) {
        let i = k * d.batch + b;
        let leaf = get_f(a.tree.at + s * a.tree.stride + get_u(index + i));
        if (beta > 0.0 && leaf > 0.0) { put(weight + i, exp_of(-beta * ln_of(leaf / smallest))); }
    }
}
