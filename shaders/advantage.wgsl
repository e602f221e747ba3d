// Rewards as the agent sees them, advantages, value targets and their running moments. Twin of src/op/advantage.rs.
//
// A block of 256 lanes takes a tile of up to 32 environments, or 256 where T is small, through all T steps, 1,024
// places (step, environment) at a time, backwards. The work on a place that needs no other (reward, bootstrap, error)
// is done by all lanes, neighbours in memory by neighbours in the block; what is left of the recursion, one
// multiplication and one addition a step, goes through workgroup memory, one lane per environment; then all lanes
// write. 17 to 21 bytes read and 8 written per place, some 200 operations, most of them for the sums: pairs of floats
// stand for f64. Bound by memory's latency.
//
// Where one tile holds all environments, `advantage_scan` is the only launch without percentiles. Otherwise
//   advantage_carry, advantage_scale   moments of the discounted return, only with normalised rewards
//   advantage_scan                     advantages and targets, and their moments tile by tile
//   advantage_finish                   a block per session: joins the moments, writes the statistics
//   advantage_center                   subtracts the mean, only where asked for
// and with percentiles
//   advantage_percentiles              a block per session, for few advantages
//   (advantage_count, advantage_find) x 4   for many: blocks that count, and one that joins the counts
//
// A percentile is found digit by digit, eight of the float's ordered bits at a time: each pass counts how often each
// digit comes among the values that share the digits before. The counts are integers, so that the order of atomic
// additions is no matter. Sums go over a tree of lanes and a tree of tiles, fixed by T and N.

#import lib/core
#import lib/sums

struct Shape {
    t: u32,
    n: u32,
    mode: u32,
    // rewards of an n-step return
    steps: u32,
    center: bool,
    normalize_reward: bool,
    normalize_values: bool,
    percentile: bool,
    // environments of a tile, as a power of two; number of tiles
    tile_bits: u32,
    tiles: u32,
    // blocks of `advantage_count`, and values of each
    counters: u32,
    counted: u32,
    // ranks of the values that the percentiles lie between, and how far behind the first of each two
    ranks: array<u32, 4>,
    shares: array<f32, 2>,
}

struct Launch {
    // of `advantage_count` and `advantage_find`
    digit: u32,
}

struct Args {
    reward: ReadF,            // [T, N]
    value: ReadF,             // [T + 1, N]
    bootstrap: ReadF,         // [T, N]
    ended: ReadU,             // [T, N]
    hyper: ReadF,             // [LEN + groups * GROUP_LEN]
    discounted: UpdateF,      // [N]
    reward_moments: UpdateF,  // [4]
    value_moments: UpdateF,   // [4]
    percentiles: UpdateF,     // [4]
    advantage: WriteF,        // [T, N]
    returns: WriteF,          // [T, N]
    update: WriteF,           // [LEN]
    scratch: UpdateF,
}

// Places of a block at a time, and steps of that many environments.
const PLACES = 4u * THREADS;
const TILE = 1u << d.tile_bits;
const ROWS = PLACES / TILE;

// Digits of a percentile and values that a digit can have.
const PASSES = 4u;
const DIGITS = 256u;
const RANKS = 4u;

const REWARD_ROOM = Wide(MOMENTS_EPSILON, MOMENTS_EPSILON_LOW);

var<workgroup> terms: array<f32, PLACES>;
var<workgroup> cuts: array<u32, PLACES>;
// First numbers of the sums, and the factor of rewards.
var<workgroup> pivots: array<Wide, 2>;
var<workgroup> shared_scale: f32;

var<workgroup> counts: array<atomic<u32>, RANKS * DIGITS>;
// For each value that is looked for the digits known so far, and its rank among the values that have them.
var<workgroup> picks: array<vec2<u32>, RANKS>;

// Scratch: mean and squares of three things for every tile, picks, counts of every block.
fn moments_in(s: u32, kind: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + 4u * d.tiles * kind;
}
fn picks_in(s: u32) -> u32 {
    return moments_in(s, 3u);
}
fn counts_in(s: u32) -> u32 {
    return picks_in(s) + 2u * RANKS;
}

// Environments of a tile that there are.
fn envs_of(tile: u32) -> u32 {
    return min(d.n - (tile << d.tile_bits), TILE);
}

fn count_of(tile: u32) -> Wide {
    return wide_of_u32(envs_of(tile) * d.t);
}

// Joins what every tile found. All lanes must come here.
fn join_tiles(s: u32, kind: u32, lane: u32) -> Moments {
    var all = no_moments();
    for (var tile = lane; tile < d.tiles; tile += THREADS) {
        let found = get4(moments_in(s, kind) + 4u * tile);
        all = merge(all, Moments(count_of(tile), found.xy, found.zw));
    }
    return block_merge(all, lane);
}

// Joins moments to running ones. One lane.
fn take_in(moments: u32, now: Moments) -> Moments {
    let old = Moments(wide(get_f(moments + MOMENTS_COUNT)), wide(get_f(moments + MOMENTS_MEAN)),
                      wide(get_f(moments + MOMENTS_M2)));
    let joined = merge(old, now);
    put(moments + MOMENTS_COUNT, narrow(joined.count));
    put(moments + MOMENTS_MEAN, narrow(joined.mean));
    put(moments + MOMENTS_M2, narrow(joined.m2));
    return joined;
}

// Adds the discounted returns to the reward's moments; the factor for rewards. One lane.
fn scale_rewards(s: u32, now: Moments) -> f32 {
    let moments = a.reward_moments.at + s * a.reward_moments.stride;
    let all = take_in(moments, now);
    // one number has no variance yet
    var variance = wide(1.0);
    if (all.count.x > 1.0) {
        variance = wide_div(all.m2, all.count);
    }
    let scale = narrow(wide_div(wide(1.0), wide_sqrt(wide_add(variance, REWARD_ROOM))));
    put(moments + MOMENTS_SCALE, scale);
    return scale;
}

// Discounted returns of a tile's environments, forwards; their moments. All lanes must come here.
fn carry(s: u32, tile: u32, lane: u32) -> Moments {
    let first = tile << d.tile_bits;
    let reward = a.reward.at + s * a.reward.stride + first;
    let ended = a.ended.at + s * a.ended.stride + first;
    let discounted = a.discounted.at + s * a.discounted.stride + first;
    let gamma = get_f(a.hyper.at + s * a.hyper.stride + HYPER_GAMMA);
    let envs = envs_of(tile);
    var sum = 0.0;
    if (lane < envs) {
        sum = get_f(discounted + lane);
    }
    var sums = vec4<f32>();
    for (var begin = 0u; begin < d.t; begin += ROWS) {
        let here = min(d.t - begin, ROWS);
        for (var place = lane; place < PLACES; place += THREADS) {
            let at = (begin + place / TILE) * d.n + place % TILE;
            if (place / TILE < here && place % TILE < envs) {
                terms[place] = get_f(reward + at);
                cuts[place] = get_u(ended + at);
            }
        }
        workgroupBarrier();
        if (lane < envs) {
            for (var t = 0u; t < here; t++) {
                let carried = sum * gamma + terms[t * TILE + lane];
                terms[t * TILE + lane] = carried;
                sum = select(carried, 0.0, cuts[t * TILE + lane] != 0u);
            }
            if (lane == 0u && begin == 0u) {
                pivots[0] = wide(terms[0]);
            }
        }
        workgroupBarrier();
        for (var place = lane; place < PLACES; place += THREADS) {
            if (place / TILE < here && place % TILE < envs) {
                sums = add_distance(sums, two_sum(terms[place], -pivots[0].x));
            }
        }
        workgroupBarrier();
    }
    if (lane < envs) {
        put(discounted + lane, sum);
    }
    return moments_about(pivots[0], count_of(tile), block_sums(sums, lane));
}

// Keeps a NaN, so that the fault is seen.
fn clip(x: f32, low: f32, high: f32) -> f32 {
    return select(select(x, high, x > high), low, x < low);
}

// Statistics of the whole rollout. One lane.
fn write_statistics(s: u32, returns: Moments, errors: Moments) {
    let moments = a.value_moments.at + s * a.value_moments.stride;
    var scale = 1.0;
    if (d.normalize_values) {
        let all = take_in(moments, returns);
        let deviation = wide_sqrt(wide_div(all.m2, all.count));
        scale = narrow(wide_div(wide(1.0), wide_max(deviation, wide(1.0))));
    }
    put(moments + MOMENTS_SCALE, scale);
    if (!d.normalize_reward) {
        put(a.reward_moments.at + s * a.reward_moments.stride + MOMENTS_SCALE, 1.0);
    }
    let update = a.update.at + s * a.update.stride;
    for (var i = 0u; i < SUMS_LEN; i++) {
        put(update + i, 0.0);
    }
    // nothing predicts returns where values are ignored
    if (d.mode != MODES_RETURNS && returns.m2.x > 0.0) {
        put(update + SUMS_EXPLAINED_VAR, narrow(wide_add_f32(-wide_div(errors.m2, returns.m2), 1.0)));
    } else {
        put_u(update + SUMS_EXPLAINED_VAR, 0x7fc00000u);
    }
}

@compute @workgroup_size(THREADS)
fn advantage_carry(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let found = carry(s, block.x, lane);
    if (lane == 0u) {
        put4(moments_in(s, 0u) + 4u * block.x, vec4<f32>(found.mean, found.m2));
    }
}

@compute @workgroup_size(THREADS)
fn advantage_scale(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let all = join_tiles(s, 0u, lane);
    if (lane == 0u) {
        scale_rewards(s, all);
    }
}

@compute @workgroup_size(THREADS)
fn advantage_scan(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let first = block.x << d.tile_bits;
    let hyper = a.hyper.at + s * a.hyper.stride;
    let reward = a.reward.at + s * a.reward.stride + first;
    let value = a.value.at + s * a.value.stride + first;
    let bootstrap = a.bootstrap.at + s * a.bootstrap.stride + first;
    let ended = a.ended.at + s * a.ended.stride + first;
    let advantage = a.advantage.at + s * a.advantage.stride + first;
    let returns = a.returns.at + s * a.returns.stride + first;
    let envs = envs_of(block.x);

    // the factor of rewards
    var scale = 1.0;
    if (d.normalize_reward && d.tiles == 1u) {
        let found = carry(s, block.x, lane);
        if (lane == 0u) {
            shared_scale = scale_rewards(s, found);
        }
        workgroupBarrier();
        scale = shared_scale;
    } else if (d.normalize_reward) {
        scale = get_f(a.reward_moments.at + s * a.reward_moments.stride + MOMENTS_SCALE);
    }
    scale = scale * get_f(hyper + HYPER_REWARD_SCALE);
    let low = get_f(hyper + HYPER_REWARD_CLIP_LOW);
    let high = get_f(hyper + HYPER_REWARD_CLIP_HIGH);
    let gamma = get_f(hyper + HYPER_GAMMA);

    const gae = d.mode == MODES_GAE;
    const values = d.mode != MODES_RETURNS;
    // an n-step return that always reaches the end is a recursion too; others are added up place by place
    const recursive = d.mode != MODES_N_STEP || d.steps >= d.t;
    var keep_on = gamma;
    if (gae) {
        keep_on = gamma * get_f(hyper + HYPER_LAM);
    }
    var x = 0.0;
    if (lane < envs && values && !gae) {
        x = get_f(value + d.t * d.n + lane);
    }
    var target_sums = vec4<f32>();
    var error_sums = vec4<f32>();
    for (var last = d.t; last > 0u;) {
        let here = min(last, ROWS);
        let begin = last - here;
        for (var place = lane; place < PLACES; place += THREADS) {
            let t = begin + place / TILE;
            let at = t * d.n + place % TILE;
            if (place / TILE >= here || place % TILE >= envs) {
                continue;
            }
            if (recursive) {
                // the end of an episode cuts the recursion: what follows is in the term
                let end = get_u(ended + at);
                var term = clip(get_f(reward + at) * scale, low, high);
                var next = 0.0;
                if (values && end == ENDED_TRUNCATED) {
                    next = get_f(bootstrap + at);
                }
                if (gae && end == 0u) {
                    next = get_f(value + at + d.n);
                }
                term = term + gamma * next;
                if (gae) {
                    term = term - get_f(value + at);
                }
                terms[place] = term;
                cuts[place] = end;
            } else {
                let behind = min(t + d.steps, d.t);
                var sum = get_f(value + behind * d.n + place % TILE);
                for (var k = behind; k > t; k--) {
                    let then = (k - 1u) * d.n + place % TILE;
                    let end = get_u(ended + then);
                    if (end != 0u) {
                        sum = 0.0;
                        if (end == ENDED_TRUNCATED) {
                            sum = get_f(bootstrap + then);
                        }
                    }
                    sum = clip(get_f(reward + then) * scale, low, high) + gamma * sum;
                }
                terms[place] = sum;
            }
        }
        workgroupBarrier();
        if (recursive && lane < envs) {
            // the next operands are fetched before this step's result is stored
            var at = (here - 1u) * TILE + lane;
            var term = terms[at];
            var cut = cuts[at];
            for (var left = here; left > 0u; left--) {
                let behind = select(at - TILE, lane, left == 1u);
                let next_term = terms[behind];
                let next_cut = cuts[behind];
                x = select(term + keep_on * x, term, cut != 0u);
                terms[at] = x;
                at = behind;
                term = next_term;
                cut = next_cut;
            }
        }
        // moments are taken about the first place of the last steps
        if (lane == 0u && last == d.t) {
            var v = 0.0;
            if (values) {
                v = get_f(value + begin * d.n);
            }
            let found = select(terms[0], keep(terms[0] + v), gae);
            pivots[0] = wide(found);
            pivots[1] = two_sum(found, -v);
        }
        workgroupBarrier();
        for (var place = lane; place < PLACES; place += THREADS) {
            if (place / TILE >= here || place % TILE >= envs) {
                continue;
            }
            let at = (begin + place / TILE) * d.n + place % TILE;
            let found = terms[place];
            var v = 0.0;
            if (values) {
                v = get_f(value + at);
            }
            let total = select(found, keep(found + v), gae);
            put(advantage + at, select(found - v, found, gae));
            put(returns + at, total);
            target_sums = add_distance(target_sums, two_sum(total, -pivots[0].x));
            error_sums = add_distance(error_sums, wide_sub(two_sum(total, -v), pivots[1]));
        }
        last = begin;
        workgroupBarrier();
    }
    let count = count_of(block.x);
    let targets = moments_about(pivots[0], count, block_sums(target_sums, lane));
    let errors = moments_about(pivots[1], count, block_sums(error_sums, lane));
    if (d.tiles > 1u) {
        if (lane == 0u) {
            put4(moments_in(s, 1u) + 4u * block.x, vec4<f32>(targets.mean, targets.m2));
            put4(moments_in(s, 2u) + 4u * block.x, vec4<f32>(errors.mean, errors.m2));
        }
    } else {
        // one tile is the whole rollout
        if (lane == 0u) {
            write_statistics(s, targets, errors);
        }
        if (d.center) {
            storageBarrier();
            workgroupBarrier();
            for (var i = lane; i < d.t * d.n; i += THREADS) {
                put(advantage + i, narrow(wide_add_f32(-targets.mean, get_f(advantage + i))));
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn advantage_finish(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let returns = join_tiles(s, 1u, lane);
    let errors = join_tiles(s, 2u, lane);
    if (lane == 0u) {
        write_statistics(s, returns, errors);
        // for the blocks that subtract it
        put4(moments_in(s, 0u), vec4<f32>(returns.mean, returns.m2));
    }
}

@compute @workgroup_size(THREADS)
fn advantage_center(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let mean = get4(moments_in(s, 0u)).xy;
    let advantage = a.advantage.at + s * a.advantage.stride;
    let begin = block.x * d.counted;
    for (var i = begin + lane; i < min(begin + d.counted, d.t * d.n); i += THREADS) {
        put(advantage + i, narrow(wide_add_f32(-mean, get_f(advantage + i))));
    }
}

// A float's bits in the order of all floats (-NaN < -inf < .. < inf < NaN), and back.
fn ordered(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

// Counts a digit among some advantages, a list of counts for each pick; the first has one list for all. All lanes must
// come here.
fn count_digits(s: u32, begin: u32, end: u32, digit: u32, lane: u32) {
    let advantage = a.advantage.at + s * a.advantage.stride;
    let shift = 24u - 8u * digit;
    for (var i = lane; i < RANKS * DIGITS; i += THREADS) {
        atomicStore(&counts[i], 0u);
    }
    workgroupBarrier();
    for (var i = begin + lane; i < end; i += THREADS) {
        let key = ordered(get_u(advantage + i));
        let here = (key >> shift) & (DIGITS - 1u);
        if (digit == 0u) {
            atomicAdd(&counts[here], 1u);
        } else {
            for (var k = 0u; k < RANKS; k++) {
                if ((key >> (shift + 8u)) == picks[k].x) {
                    atomicAdd(&counts[k * DIGITS + here], 1u);
                }
            }
        }
    }
    workgroupBarrier();
}

// Extends a pick by a digit, of which this lane's value comes `own` times. All lanes must come here, as many as values.
fn find_digit(k: u32, own: u32, lane: u32) {
    let pick = picks[k];
    let scan = block_scan(own, lane);
    if (scan.before <= pick.y && pick.y - scan.before < own) {
        picks[k] = vec2<u32>(pick.x * DIGITS + lane, pick.y - scan.before);
    }
    workgroupBarrier();
}

// The picks before any digit is known. All lanes must come here.
fn first_picks(lane: u32) {
    var ranks = d.ranks;
    if (lane < RANKS) {
        picks[lane] = vec2<u32>(0u, ranks[lane]);
    }
    workgroupBarrier();
}

// The moving averages, from picks with all digits. One lane.
fn move_percentiles(s: u32) {
    let state = a.percentiles.at + s * a.percentiles.stride;
    let seen = get_f(state + MOMENTS_SEEN);
    let kept = select(MOMENTS_PERCENTILE_KEEP, 0.0, seen == 0.0);
    var shares = d.shares;
    for (var which = 0u; which < 2u; which++) {
        let low = value_of(picks[2u * which].x);
        let high = value_of(picks[2u * which + 1u].x);
        let now = low + (high - low) * shares[which];
        let at = state + select(MOMENTS_HIGH, MOMENTS_LOW, which == 0u);
        put(at, kept * get_f(at) + (1.0 - kept) * now);
    }
    put(state + MOMENTS_SEEN, seen + 1.0);
}

@compute @workgroup_size(THREADS)
fn advantage_percentiles(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    first_picks(lane);
    for (var digit = 0u; digit < PASSES; digit++) {
        count_digits(s, 0u, d.t * d.n, digit, lane);
        for (var k = 0u; k < RANKS; k++) {
            find_digit(k, atomicLoad(&counts[select(k * DIGITS, 0u, digit == 0u) + lane]), lane);
        }
    }
    if (lane == 0u) {
        move_percentiles(s);
    }
}

@compute @workgroup_size(THREADS)
fn advantage_count(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    if (launch.digit > 0u && lane < RANKS) {
        let at = picks_in(s) + 2u * lane;
        picks[lane] = vec2<u32>(get_u(at), get_u(at + 1u));
    }
    let begin = block.x * d.counted;
    count_digits(s, begin, min(begin + d.counted, d.t * d.n), launch.digit, lane);
    for (var i = lane; i < RANKS * DIGITS; i += THREADS) {
        put_u(counts_in(s) + block.x * RANKS * DIGITS + i, atomicLoad(&counts[i]));
    }
}

@compute @workgroup_size(THREADS)
fn advantage_find(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let mine = picks_in(s) + 2u * min(lane, RANKS - 1u);
    first_picks(lane);
    if (launch.digit > 0u && lane < RANKS) {
        picks[lane] = vec2<u32>(get_u(mine), get_u(mine + 1u));
    }
    workgroupBarrier();
    for (var k = 0u; k < RANKS; k++) {
        let list = counts_in(s) + select(k * DIGITS, 0u, launch.digit == 0u) + lane;
        var own = 0u;
        for (var counter = 0u; counter < d.counters; counter++) {
            own += get_u(list + counter * RANKS * DIGITS);
        }
        find_digit(k, own, lane);
    }
    if (lane < RANKS) {
        put_u(mine, picks[lane].x);
        put_u(mine + 1u, picks[lane].y);
    }
    if (launch.digit == PASSES - 1u && lane == 0u) {
        move_percentiles(s);
    }
}
