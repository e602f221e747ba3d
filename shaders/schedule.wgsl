// What the scheduled numbers are in this iteration. Twin of src/op/schedule.rs.
//
// A block of 32 lanes per session, a lane per number: some thousand operations each, as the pairs of floats that stand
// for f64, bound by the latency of the launch. No order to keep.

#import lib/core
#import lib/trig
#import lib/wide

struct Shape {
    t: u32,
    n: u32,
    groups: u32,
    // whether the entropy's weight is the exponential of that parameter
    learned: bool,
    log_alpha: u32,
}

struct Args {
    hyper: ReadF,      // [LEN + groups * GROUP_LEN]
    clock: ReadU,      // [4]
    params: ReadF,     // [params]
    schedule: WriteF,  // [LEN + groups]
    scratch: UpdateF,
}

// ln 0.9 and a whole turn
const LN_0_9 = Wide(-0.105360515, -2.4215779e-10);
const TURN = Wide(6.2831855, -1.7484553e-7);

// e^x for x in -4..0
fn exp_series(x: Wide) -> Wide {
    let eighth = x * 0.125;
    var root = wide(1.0);
    for (var k = 14u; k > 0u; k--) {
        root = wide_add_f32(wide_mul(wide_div(eighth, wide(f32(k))), root), 1.0);
    }
    return wide_square(wide_square(wide_square(root)));
}

// cos x for x in 0..60
fn cos_series(x: Wide) -> Wide {
    let turns = floor(x.x / TURN.x + 0.5);
    let left = wide_sub(x, wide_mul_f32(TURN, turns));
    let square = wide_square(left);
    var sum = wide(1.0);
    for (var k = 14u; k > 0u; k--) {
        let term = wide_mul(wide_div(square, wide(f32(2u * k * (2u * k - 1u)))), sum);
        sum = wide_add_f32(-term, 1.0);
    }
    return sum;
}

// Where in `hyper` the schedule of a word of `schedule` is.
fn words_of(word: u32) -> u32 {
    switch word {
        case SCHEDULED_CLIP_EPS: {
            return HYPER_CLIP_EPS;
        }
        case SCHEDULED_ENTROPY_COEF: {
            return HYPER_ENTROPY_COEF;
        }
        case SCHEDULED_EXPLORE: {
            return HYPER_EXPLORE;
        }
        case SCHEDULED_BETA: {
            return HYPER_BETA;
        }
        default: {
            return HYPER_TARGET_ENTROPY;
        }
    }
}

// A schedule's value at a frame, from its five words.
fn value(words: u32, frame: Wide) -> f32 {
    let start = get_f(words + HYPER_START_VAL);
    let end = get_f(words + HYPER_END_VAL);
    let first = wide(get_f(words + HYPER_START_STEP));
    let last = wide(get_f(words + HYPER_END_STEP));
    let kind = get_f(words + HYPER_KIND);
    if (kind == HYPER_NO_DECAY || !wide_less(first, frame)) {
        return start;
    }
    if (!wide_less(frame, last)) {
        return end;
    }
    let done = wide_div(wide_sub(frame, first), wide_sub(last, first));
    var now: Wide;
    if (kind == HYPER_LINEAR_DECAY) {
        now = wide_add_f32(wide_mul(two_sum(end, -start), done), start);
    } else if (kind == HYPER_RATE_DECAY) {
        now = wide_mul_f32(exp_series(wide_mul(wide_mul_f32(LN_0_9, 20.0), done)), start);
    } else {
        let left = wide_add_f32(-done, 1.0);
        let wave = wide_add_f32(cos_series(wide_mul_f32(done, 60.0)), 1.0) * 0.5;
        now = wide_add_f32(wide_mul(wide_mul(two_sum(start, -end), left), wave), end);
    }
    return clamp(narrow(now), min(start, end), max(start, end));
}

@compute @workgroup_size(THREADS)
fn schedule(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let hyper = a.hyper.at + s * a.hyper.stride;
    let out = a.schedule.at + s * a.schedule.stride;
    let step = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP);
    let began = u64_of_product(step, d.n);
    let ends = u64_add(began, u64_of_product(d.t, d.n));

    // exploration where the rollout begins, everything else that an update uses where it ends
    if (d.learned && lane == SCHEDULED_ENTROPY_COEF) {
        put(out + lane, exp_of(get_f(a.params.at + s * a.params.stride + d.log_alpha)));
        return;
    }
    if (lane < SCHEDULED_LEN) {
        var frame = ends;
        if (lane == SCHEDULED_EXPLORE) {
            frame = began;
        }
        put(out + lane, value(hyper + words_of(lane), wide_of_u64(frame)));
        return;
    }
    // learning rates where it began
    for (var g = lane - SCHEDULED_LEN; g < d.groups; g += THREADS - SCHEDULED_LEN) {
        let group = hyper + HYPER_LEN + g * HYPER_GROUP_LEN;
        var rate = wide(get_f(group + HYPER_LR));
        if (get_f(group + HYPER_LR_KIND) == HYPER_LR_LINEAR_TO_MIN) {
            let gone = wide_div(wide_of_u64(began), wide(get_f(group + HYPER_LR_FRAMES)));
            let left = wide_add_f32(-gone, 1.0);
            rate = wide_mul(wide_max(left, wide(get_f(group + HYPER_LR_MIN_FACTOR))), rate);
        }
        put(out + SCHEDULED_LEN + g, narrow(rate));
    }
}
