// Priorities of a replay ring, and the sums above them. Twin of src/op/prioritize.rs.
//
// One block per session, since a level of the tree waits for the one below: first the leaves, a lane per row, then
// level by level the nodes above them, a lane per node. What was learnt from has a node a row; new rows lie side by
// side and have a node for every `children` of them. Two lanes may compute one node: from the same children in the same
// order, so both write the same number. A node is 64 bytes read; the whole is bound by the latency of as many rounds as
// levels.

#import lib/core
#import lib/tree
#import lib/trig

struct Shape {
    // vector steps of the ring, and environments
    c: u32,
    n: u32,
    children: u32,
    levels: Levels,
}

struct Launch {
    // vector steps since the clock that are in the ring by now; the last `fresh` of them have no priority yet
    at: u32,
    fresh: u32,
    // rows that were learnt from, from `start` on of what was drawn
    start: u32,
    batch: u32,
}

struct Args {
    hyper: ReadF,   // [LEN + groups * GROUP_LEN]
    clock: ReadU,   // [4]
    index: ReadU,   // [samples]
    error: ReadF,   // [errors]
    tree: UpdateF,
    top: UpdateF,   // [1]
    scratch: UpdateF,
}

// The largest priority so far, as the bits of a number that is not negative: their order is that of the numbers.
var<workgroup> highest: atomic<u32>;

@compute @workgroup_size(THREADS)
fn prioritize(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let hyper = a.hyper.at + s * a.hyper.stride;
    let index = a.index.at + s * a.index.stride + launch.start;
    let error = a.error.at + s * a.error.stride;
    let tree = a.tree.at + s * a.tree.stride;
    let top = get_f(a.top.at + s * a.top.stride);
    let now = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP) + launch.at;
    let steps = min(launch.fresh, d.c);
    let first = now - steps;

    // new rows have the largest priority that ever was
    if (lane == 0u) { atomicStore(&highest, bitcast<u32>(top)); }
    let most = select(1.0, top, top > 1.0);
    for (var i = lane; i < steps * d.n; i += THREADS) { put(tree + (first + i / d.n) % d.c * d.n + i % d.n, most); }
    workgroupBarrier();
    storageBarrier();
    for (var b = lane; b < launch.batch; b += THREADS) {
        // not to be drawn, whatever is learnt from it
        if (get_f(tree + get_u(index + b)) == 0.0) { continue; }
        let raised = get_f(error + b) + get_f(hyper + HYPER_PRIORITY_EPSILON);
        let priority = exp_of(get_f(hyper + HYPER_PRIORITY_ALPHA) * ln_of(raised));
        put(tree + get_u(index + b), priority);
        // an error that is no number has no place among them; the optimizer has told of it
        if (priority > top) { atomicMax(&highest, bitcast<u32>(priority)); }
    }

    var share = 1u;
    for (var level = 1u; level < d.levels.count; level++) {
        workgroupBarrier();
        storageBarrier();
        share *= d.children;
        let below = tree + d.levels.start[level - 1u];
        let here = tree + d.levels.start[level];
        // nodes above a vector step of the ring, at most
        let across = (d.n - 1u) / share + 2u;
        for (var i = lane; i < steps * across; i += THREADS) {
            let leaf = (first + i / across) % d.c * d.n;
            let node = leaf / share + i % across;
            if (node <= (leaf + d.n - 1u) / share) { put(here + node, sum_of_children(below + node * d.children)); }
        }
        for (var b = lane; b < launch.batch; b += THREADS) {
            let node = get_u(index + b) / share;
            put(here + node, sum_of_children(below + node * d.children));
        }
    }
    workgroupBarrier();
    if (lane == 0u) { put_u(a.top.at + s * a.top.stride, atomicLoad(&highest)); }
}
