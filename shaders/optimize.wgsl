// One optimiser step. Twin of src/op/optimize.rs.
//
// Small problems take one launch, `optimize`: a block per session sums the tiles into scratch, reduces the squares, and
// steps; a lane reads back the words that it wrote itself. What bounds it is what one multiprocessor draws from its
// cache.
//
// Large ones take three. `optimize_sum` has a block for every chunk of parameters, `width` parameters side by side and
// THREADS / width tiles at once: 4 tiles P bytes and one addition a word; one more block adds up the losses.
// `optimize_step` has a block per chunk: each adds up the squares of all chunks again (a few hundred numbers, cheaper
// than a launch in between), then reads 16 P bytes and writes 12 P, with a square root and a division per parameter.
// `optimize_finish`, one block, writes what all of the others read: clock, fault, sums of the update.
//
// A chunk lies inside one group. Tiles are added in the order (way, tile), squares lane by lane, chunk by chunk: the
// order is a function of P, the groups, the number of tiles and the size of blocks.

#import lib/core
#import lib/sums
#import lib/trig

struct Group {
    // which of all parameters
    begin: u32,
    end: u32,
    kind: u32,
    // chunks of the groups before this one
    chunks_before: u32,
}

struct Groups {
    count: u32,
    group: array<Group, OPTIMIZERS_GROUPS>,
}

struct Shape {
    // all parameters; those that the gradient is of, `p` from `at` on
    params: u32,
    at: u32,
    p: u32,
    tiles: u32,
    rows: u32,
    // number of the first group among all
    first_group: u32,
    // a bit for every group that is held within the bounds of log alpha
    bounded: u32,
    // how much the losses count in an update's sums, and whether the step counts as a minibatch
    share: f32,
    counts: bool,
    // whether what is minimised has an entropy bonus beside the policy's loss
    bonus: bool,
    // parameters that a block of `optimize_sum` reads side by side; a power of two
    width: u32,
    // parameters of a block, and blocks
    chunk: u32,
    chunks: u32,
    groups: Groups,
}

struct Args {
    partial: ReadF,       // [tiles, P]
    partial_loss: ReadF,  // [tiles, LOSSES]
    hyper: ReadF,         // [LEN + all groups * GROUP_LEN]
    schedule: ReadF,      // [LEN + all groups]
    params: UpdateF,      // [params]
    slots: UpdateF,       // [2, params]
    steps: UpdateU,       // [all groups]
    clock: UpdateU,       // [4]
    update: UpdateF,      // [LEN]
    fault: UpdateU,       // [LEN]
    scratch: UpdateF,
}

// Words of scratch: the gradient, the squares of every chunk, whether its parameters stayed finite, the losses.
const SQUARES = d.p;
const FLAGS = SQUARES + d.chunks;
const SCRATCH_LOSSES = FLAGS + d.chunks;

const NO_GROUP = 0xffffffffu;
// Parameters whose words a lane has under way at once.
const BATCH = 4u;

// Numbers of a group that one step needs.
struct Step {
    lr: f32,
    b1: f32,
    b2: f32,
    eps: f32,
    weight_decay: f32,
    momentum: f32,
    clip: f32,
    // lr / (1 - b1^t), 1 / sqrt(1 - b2^t)
    rate: f32,
    correction: f32,
}

var<workgroup> losses: array<f32, SUMS_LOSSES + 1u>;
var<workgroup> squares: array<f32, OPTIMIZERS_GROUPS>;
var<workgroup> steps: array<Step, OPTIMIZERS_GROUPS>;
var<workgroup> told: u32;

// Whether the session has had no fault before; the same for the whole block.
fn sound(s: u32, lane: u32) -> bool {
    if (lane == 0u) { told = get_u(a.fault.at + s * a.fault.stride + FAULT_OP); }
    return workgroupUniformLoad(&told) == 0u;
}

// 1 - base^exponent by squaring. What is carried is the distance from 1, so nothing cancels.
fn one_less_power(base: f32, exponent: u32) -> f32 {
    var square = 1.0 - base;
    var product = 0.0;
    for (var left = exponent; left > 0u; left >>= 1u) {
        if ((left & 1u) == 1u) { product += square * (1.0 - product); }
        square *= 2.0 - square;
    }
    return product;
}

// Lanes that are left when lanes have met once, and lanes side by side that add up one tile's losses.
const FEW = 64u;
const COLUMNS = 8u;

// Means over the minibatch's rows, then what is minimised, into `losses`. All lanes must come here.
fn mean_losses(s: u32, lane: u32) {
    let partial_loss = a.partial_loss.at + s * a.partial_loss.stride;
    var sum = 0.0;
    if (lane % COLUMNS < SUMS_LOSSES) {
        for (var tile = lane / COLUMNS; tile < d.tiles; tile += THREADS / COLUMNS) {
            sum += get_f(partial_loss + tile * SUMS_LOSSES + lane % COLUMNS);
        }
    }
    lane_parts[lane] = sum;
    workgroupBarrier();
    if (lane < FEW) {
        for (var other = lane + FEW; other < THREADS; other += FEW) { sum += lane_parts[other]; }
        lane_parts[lane] = sum;
    }
    workgroupBarrier();
    if (lane < SUMS_LOSSES) {
        for (var other = lane + COLUMNS; other < FEW; other += COLUMNS) { sum += lane_parts[other]; }
        losses[lane] = sum / f32(d.rows);
    }
    workgroupBarrier();
    if (lane == 0u) {
        let hyper = a.hyper.at + s * a.hyper.stride;
        let entropy_coef = select(0.0, get_f(a.schedule.at + s * a.schedule.stride + SCHEDULED_ENTROPY_COEF), d.bonus);
        losses[SUMS_LOSS] = get_f(hyper + HYPER_POLICY_LOSS_COEF) * losses[SUMS_POLICY]
            + get_f(hyper + HYPER_VAL_LOSS_COEF) * losses[SUMS_VALUE] - entropy_coef * losses[SUMS_ENTROPY];
    }
    workgroupBarrier();
}

// Numbers of a group, whose squared norm is in `squares`.
fn step_of(s: u32, g: u32) -> Step {
    let of_all = d.first_group + g;
    let group = a.hyper.at + s * a.hyper.stride + HYPER_LEN + of_all * HYPER_GROUP_LEN;
    let lr = get_f(a.schedule.at + s * a.schedule.stride + SCHEDULED_LEN + of_all);
    let t = get_u(a.steps.at + s * a.steps.stride + of_all) + 1u;
    var step: Step;
    step.lr = lr;
    step.b1 = get_f(group + HYPER_B1);
    step.b2 = get_f(group + HYPER_B2);
    step.eps = get_f(group + HYPER_EPS);
    step.weight_decay = get_f(group + HYPER_WEIGHT_DECAY);
    step.momentum = get_f(group + HYPER_MOMENTUM);
    // a limit that is infinite clips nothing
    let limit = get_f(group + HYPER_CLIP_NORM);
    let clip = limit / (sqrt(squares[g]) + CLIP_NORM_EPSILON);
    step.clip = select(1.0, clip, is_finite(limit) && clip < 1.0);
    step.rate = lr / one_less_power(step.b1, t);
    step.correction = 1.0 / sqrt(one_less_power(step.b2, t));
    return step;
}

// With `losses` and `squares` known: steps of every group. The first group whose gradient is not finite comes back, 0
// where only the loss is not finite, NO_GROUP where all is well.
fn prepare(s: u32, lane: u32) -> u32 {
    if (lane < d.groups.count) { steps[lane] = step_of(s, lane); }
    if (lane == 0u) {
        var bad = select(0u, NO_GROUP, is_finite(losses[SUMS_LOSS]));
        for (var g = d.groups.count; g > 0u; g--) { bad = select(g - 1u, bad, is_finite(squares[g - 1u])); }
        told = bad;
    }
    return workgroupUniformLoad(&told);
}

// Steps one parameter of a group of that kind; `x`, first and second slot.
fn advance(kind: u32, step: Step, grad: f32, now: vec3<f32>) -> vec3<f32> {
    var x = now.x;
    var first = now.y;
    var second = now.z;
    let decoupled = kind == OPTIMIZERS_ADAM_W;
    // a parameter that is not finite must not reach the slots by way of a decay of 0
    let decay = select(step.weight_decay * x, 0.0, decoupled);
    let g = grad * step.clip + decay;
    if (kind == OPTIMIZERS_ADAM || decoupled) {
        let shrink = select(1.0, 1.0 - step.lr * step.weight_decay, decoupled);
        first += (g - first) * (1.0 - step.b1);
        second = step.b2 * second + (1.0 - step.b2) * g * g;
        x = x * shrink - step.rate * first / (sqrt(second) * step.correction + step.eps);
    } else if (kind == OPTIMIZERS_RMS_PROP) {
        first = step.b1 * first + (1.0 - step.b1) * g * g;
        second = step.momentum * second + g / (sqrt(first) + step.eps);
        x -= step.lr * second;
    } else {
        let ahead = kind == OPTIMIZERS_NESTEROV;
        first = step.momentum * first + g;
        x -= step.lr * (select(0.0, g, ahead) + select(1.0, step.momentum, ahead) * first);
    }
    return vec3<f32>(x, first, second);
}

// Steps the parameters of group `g` whose gradient is from `begin` to `end` of `grad`, with the whole block; false
// where a lane's are no longer finite.
fn advance_all(s: u32, g: u32, grad: u32, begin: u32, end: u32, lane: u32) -> bool {
    let params = a.params.at + s * a.params.stride + d.at;
    let slots = a.slots.at + s * a.slots.stride + d.at;
    let hyper = a.hyper.at + s * a.hyper.stride;
    let step = steps[g];
    let kind = d.groups.group[g].kind;
    let bounded = (d.bounded >> g & 1u) == 1u;
    var fine = true;
    for (var p = begin + lane; p < end; p += THREADS) {
        let now = vec3<f32>(get_f(params + p), get_f(slots + p), get_f(slots + d.params + p));
        let next = advance(kind, step, get_f(grad + p), now);
        var x = next.x;
        if (bounded) { x = hold(x, get_f(hyper + HYPER_LOG_ALPHA_LOW), get_f(hyper + HYPER_LOG_ALPHA_HIGH)); }
        put(params + p, x);
        put(slots + p, next.y);
        put(slots + d.params + p, next.z);
        fine = fine && is_finite(x);
    }
    return fine;
}

// What one lane writes when all parameters are stepped, or none because of `bad`.
fn finish(s: u32, bad: u32, worst: u32) {
    let clock = a.clock.at + s * a.clock.stride;
    let fault = a.fault.at + s * a.fault.stride;
    if (bad != NO_GROUP || worst != NO_GROUP) {
        put_u(fault + FAULT_OP, select(FAULT_PARAMS, FAULT_GRADIENT, bad != NO_GROUP));
        put_u(fault + FAULT_STEP, get_u(clock + CLOCK_STEP));
        put_u(fault + FAULT_OPT, get_u(clock + CLOCK_OPT));
        put_u(fault + FAULT_GROUP, d.first_group + select(worst, bad, bad != NO_GROUP));
    }
    if (bad != NO_GROUP) { return; }
    let sums = a.update.at + s * a.update.stride;
    for (var i = 0u; i <= SUMS_LOSSES; i++) { put(sums + i, get_f(sums + i) + losses[i] * d.share); }
    let steps_done = a.steps.at + s * a.steps.stride + d.first_group;
    var square = 0.0;
    for (var g = 0u; g < d.groups.count; g++) {
        square += squares[g];
        put_u(steps_done + g, get_u(steps_done + g) + 1u);
    }
    if (d.counts) {
        put(sums + SUMS_GRAD_NORM, get_f(sums + SUMS_GRAD_NORM) + sqrt(square));
        put(sums + SUMS_COUNT, get_f(sums + SUMS_COUNT) + 1.0);
    }
    put_u(clock + CLOCK_OPT, get_u(clock + CLOCK_OPT) + d.groups.count);
}

@compute @workgroup_size(THREADS)
fn optimize(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    if (!sound(s, lane)) { return; }
    let partial = a.partial.at + s * a.partial.stride;
    let grad = a.scratch.at + s * a.scratch.stride;

    // the gradient, and its squares group by group
    for (var g = 0u; g < d.groups.count; g++) {
        let end = d.groups.group[g].end - d.at;
        var square = 0.0;
        for (var first = d.groups.group[g].begin - d.at + lane; first < end; first += THREADS * BATCH) {
            var x = vec4<f32>();
            // a lane beyond the end takes the last word and leaves it out
            let at = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) * THREADS, vec4<u32>(end - 1u));
            for (var tile = 0u; tile < d.tiles; tile++) {
                let source = vec4<u32>(partial + tile * d.p) + at;
                x += vec4<f32>(get_f(source.x), get_f(source.y), get_f(source.z), get_f(source.w));
            }
            put(grad + first, x.x);
            square += x.x * x.x;
            if (first + THREADS < end) {
                put(grad + first + THREADS, x.y);
                square += x.y * x.y;
            }
            if (first + 2u * THREADS < end) {
                put(grad + first + 2u * THREADS, x.z);
                square += x.z * x.z;
            }
            if (first + 3u * THREADS < end) {
                put(grad + first + 3u * THREADS, x.w);
                square += x.w * x.w;
            }
        }
        square = block_sum(square, lane);
        if (lane == 0u) { squares[g] = square; }
    }
    mean_losses(s, lane);

    let bad = prepare(s, lane);
    var worst = NO_GROUP;
    if (bad == NO_GROUP) {
        for (var g = d.groups.count; g > 0u; g--) {
            let group = d.groups.group[g - 1u];
            if (!advance_all(s, g - 1u, grad, group.begin - d.at, group.end - d.at, lane)) { worst = g - 1u; }
        }
    }
    worst = block_min(worst, lane);
    if (lane == 0u) { finish(s, bad, worst); }
}

// The group that a chunk lies in.
fn group_of(chunk: u32) -> u32 {
    var g = 0u;
    for (var next = 1u; next < d.groups.count; next++) {
        if (chunk >= d.groups.group[next].chunks_before) { g = next; }
    }
    return g;
}

// Where the gradient of a chunk of group `g` begins, and where it ends.
fn range_of(chunk: u32, g: u32) -> vec2<u32> {
    let group = d.groups.group[g];
    let begin = group.begin - d.at + (chunk - group.chunks_before) * d.chunk;
    return vec2<u32>(begin, min(begin + d.chunk, group.end - d.at));
}

@compute @workgroup_size(THREADS)
fn optimize_sum(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    if (!sound(s, lane)) { return; }
    let partial = a.partial.at + s * a.partial.stride;
    let scratch = a.scratch.at + s * a.scratch.stride;
    if (block.x == d.chunks) {
        mean_losses(s, lane);
        if (lane <= SUMS_LOSSES) { put(scratch + SCRATCH_LOSSES + lane, losses[lane]); }
        return;
    }
    let range = range_of(block.x, group_of(block.x));
    let column = lane % d.width;
    let way = lane / d.width;
    const WAYS = max(THREADS / d.width, 1u);
    const AHEAD = clamp(d.tiles / WAYS, 1u, 8u);
    var square = 0.0;
    for (var start = range.x; start < range.y; start += d.width) {
        let p = start + column;
        var x = 0.0;
        if (p < range.y) {
            // several loads under way; tiles beyond the last count nothing
            for (var tile = way; tile < d.tiles; tile += WAYS * AHEAD) {
                for (var i = 0u; i < AHEAD; i++) {
                    let next = tile + i * WAYS;
                    x += select(0.0, get_f(partial + min(next, d.tiles - 1u) * d.p + p), next < d.tiles);
                }
            }
        }
        // the ways in order
        if (WAYS > 1u) {
            lane_parts[lane] = x;
            workgroupBarrier();
            if (way == 0u) {
                for (var other = 1u; other < WAYS; other++) { x += lane_parts[other * d.width + column]; }
            }
            workgroupBarrier();
        }
        if (way == 0u && p < range.y) {
            put(scratch + p, x);
            square += x * x;
        }
    }
    square = block_sum(square, lane);
    if (lane == 0u) { put(scratch + SQUARES + block.x, square); }
}

// Losses, and squares of every group from those of its chunks; a fourth of the lanes has a group.
fn gather_squares(s: u32, lane: u32) {
    const SHARE = THREADS / OPTIMIZERS_GROUPS;
    let scratch = a.scratch.at + s * a.scratch.stride;
    let g = lane / SHARE;
    var sum = 0.0;
    if (g < d.groups.count) {
        var end = d.chunks;
        if (g + 1u < d.groups.count) { end = d.groups.group[g + 1u].chunks_before; }
        for (var chunk = d.groups.group[g].chunks_before + lane % SHARE; chunk < end; chunk += SHARE) {
            sum += get_f(scratch + SQUARES + chunk);
        }
    }
    lane_parts[lane] = sum;
    if (lane <= SUMS_LOSSES) { losses[lane] = get_f(scratch + SCRATCH_LOSSES + lane); }
    workgroupBarrier();
    if (lane < d.groups.count) {
        sum = 0.0;
        for (var other = lane * SHARE; other < (lane + 1u) * SHARE; other++) { sum += lane_parts[other]; }
        squares[lane] = sum;
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn optimize_step(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    if (!sound(s, lane)) { return; }
    let scratch = a.scratch.at + s * a.scratch.stride;
    gather_squares(s, lane);
    let bad = prepare(s, lane);
    var worst = NO_GROUP;
    if (bad == NO_GROUP) {
        let g = group_of(block.x);
        let range = range_of(block.x, g);
        if (!advance_all(s, g, scratch, range.x, range.y, lane)) { worst = g; }
    }
    worst = block_min(worst, lane);
    if (lane == 0u) { put_u(scratch + FLAGS + block.x, worst); }
}

@compute @workgroup_size(THREADS)
fn optimize_finish(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    if (!sound(s, lane)) { return; }
    let flags = a.scratch.at + s * a.scratch.stride + FLAGS;
    gather_squares(s, lane);
    let bad = prepare(s, lane);
    var worst = NO_GROUP;
    for (var chunk = lane; chunk < d.chunks; chunk += THREADS) { worst = min(worst, get_u(flags + chunk)); }
    worst = block_min(worst, lane);
    if (lane == 0u) { finish(s, bad, worst); }
}
