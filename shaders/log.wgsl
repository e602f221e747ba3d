// Episode statistics and log rows of the rollout that just ended. Twin of src/op/log.rs.
//
// Episodes are numbered in the order of the records [T, N], so that the list of finished episodes is the records
// without the NaNs. A block of 256 lanes lists 4,096 records: a bit for each says whether an episode ended there, a
// scan over words of bits numbers the episodes, and each goes to its place in the list; a lane that holds the last
// record of a vector step notes how many there were by then. From the list any row can be written alone: 32 lanes per
// row fetch the last 100 episodes, from the list or from `recent`, and add them up as pairs of floats, four slots a
// lane, then in a tree.
//
// Up to 4,096 records `log_rows` is the only launch, a block per session; for more, `log_list` has a block per 4,096
// and `log_rows` joins their counts. 4 T N bytes read; bound by the latency of some ten trips to memory.

#import lib/core
#import lib/sums

struct Shape {
    t: u32,
    n: u32,
    // low and high half
    log_frequency: u32,
    log_frequency_high: u32,
    max_frame: u32,
    max_frame_high: u32,
    rows: u32,
    // blocks of `log_list`
    tiles: u32,
}

struct Args {
    ep_return: ReadF,    // [T, N]
    ep_length: ReadU,    // [T, N]
    update: ReadF,       // [LEN]
    schedule: ReadF,     // [LEN + groups]
    recent: UpdateF,     // [2, WINDOW]
    clock: UpdateU,      // [4]
    row_count: WriteU,   // [1]
    row_ints: WriteU,    // [rows, INTS]
    row_nums: WriteF,    // [rows, NUMS]
    scratch: UpdateF,
}

// Records of a tile, and words of their bits.
const TILE = 16u * THREADS;
const BIT_WORDS = TILE / 32u;
// Lanes of a row, and rows that a block writes at a time.
const ROW_LANES = 32u;
const ROWS = THREADS / ROW_LANES;

// Which records of a tile end an episode, and how many do before each word.
var<workgroup> ended_bits: array<atomic<u32>, BIT_WORDS>;
var<workgroup> ended_before: array<u32, BIT_WORDS>;

// Scratch: records of the finished episodes, tile by tile; episodes of the tile up to the end of every vector step;
// episodes of every tile, then of all tiles before it; vector steps that get a row.
fn episodes_in(s: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride;
}
fn ends_in(s: u32) -> u32 {
    return episodes_in(s) + d.t * d.n;
}
fn tiles_in(s: u32) -> u32 {
    return ends_in(s) + d.t;
}
fn due_in(s: u32) -> u32 {
    return tiles_in(s) + d.tiles;
}

// Whether an episode ended there: NaN by its bits, for a compiler may take every number for one.
fn is_episode(total: u32) -> bool {
    return (total & 0x7fffffffu) <= 0x7f800000u;
}

// Lists the episodes of a tile. All lanes must come here.
fn list(s: u32, tile: u32, lane: u32) {
    let ep_return = a.ep_return.at + s * a.ep_return.stride;
    let begin = tile * TILE;
    for (var word = lane; word < BIT_WORDS; word += THREADS) {
        atomicStore(&ended_bits[word], 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < TILE; i += THREADS) {
        if (begin + i < d.t * d.n && is_episode(get_u(ep_return + begin + i))) {
            atomicOr(&ended_bits[i / 32u], 1u << (i % 32u));
        }
    }
    workgroupBarrier();
    var own = 0u;
    if (lane < BIT_WORDS) {
        own = countOneBits(atomicLoad(&ended_bits[lane]));
    }
    let scan = block_scan(own, lane);
    if (lane < BIT_WORDS) {
        ended_before[lane] = scan.before;
    }
    workgroupBarrier();

    for (var i = lane; i < TILE && begin + i < d.t * d.n; i += THREADS) {
        let bits = atomicLoad(&ended_bits[i / 32u]);
        let number = ended_before[i / 32u] + countOneBits(bits & ((1u << (i % 32u)) - 1u));
        let here = (bits >> (i % 32u)) & 1u;
        let record = begin + i;
        if (here == 1u) {
            put_u(episodes_in(s) + begin + number, record);
        }
        if ((record + 1u) % d.n == 0u) {
            put_u(ends_in(s) + record / d.n, number + here);
        }
    }
    if (lane == 0u) {
        put_u(tiles_in(s) + tile, scan.total);
    }
}

// Writes one of the columns from `loss` on: means over the minibatches of the last update, NaN before the first.
fn write_number(s: u32, column: u32, to: u32) {
    let sums = a.update.at + s * a.update.stride;
    let schedule = a.schedule.at + s * a.schedule.stride;
    var columns = array<u32, 8>(SUMS_LOSS, SUMS_POLICY, SUMS_VALUE, SUMS_ENTROPY, SUMS_KL, SUMS_CLIP_FRAC,
                                SUMS_EXPLAINED_VAR, SUMS_GRAD_NORM);
    if (column >= 8u) {
        // the first group's rate is behind the other two
        var scheduled = array<u32, 3>(SCHEDULED_LEN, SCHEDULED_CLIP_EPS, SCHEDULED_ENTROPY_COEF);
        put_u(to, get_u(schedule + scheduled[column - 8u]));
        return;
    }
    let count = get_f(sums + SUMS_COUNT);
    let sum = sums + columns[column];
    if (!(count > 0.0)) {
        put_u(to, 0x7fc00000u);
    } else if (columns[column] == SUMS_EXPLAINED_VAR) {
        put_u(to, get_u(sum));
    } else {
        put(to, get_f(sum) / count);
    }
}

// The last of `count` episodes that lies in a slot.
fn last_in(slot: u32, count: u32) -> u32 {
    return count - 1u - (count - 1u - slot) % ROWS_WINDOW;
}

// The record of the rollout's episode `at`; the words of `tiles_in` have the episodes before each tile.
fn record_of(s: u32, at: u32) -> u32 {
    // its tile is the last one that begins with it or before
    var tile = 0u;
    for (var last = d.tiles - 1u; tile < last;) {
        let middle = (tile + last + 1u) / 2u;
        if (get_u(tiles_in(s) + middle) <= at) {
            tile = middle;
        } else {
            last = middle - 1u;
        }
    }
    return get_u(episodes_in(s) + tile * TILE + at - get_u(tiles_in(s) + tile));
}

// Return and length of the last of `count` episodes that lies in a slot, of which the rollout found those from
// `first_episode` on.
fn episode_in(s: u32, slot: u32, count: u32, first_episode: u32) -> vec2<f32> {
    let episode = last_in(slot, count);
    if (episode >= first_episode) {
        let record = record_of(s, episode - first_episode);
        let length = f32(get_u(a.ep_length.at + s * a.ep_length.stride + record));
        return vec2<f32>(get_f(a.ep_return.at + s * a.ep_return.stride + record), length);
    }
    let recent = a.recent.at + s * a.recent.stride;
    return vec2<f32>(get_f(recent + slot), get_f(recent + ROWS_WINDOW + slot));
}

@compute @workgroup_size(THREADS)
fn log_list(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    list(sessions[1u + block.y], block.x, lane);
}

@compute @workgroup_size(THREADS)
fn log_rows(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let recent = a.recent.at + s * a.recent.stride;
    let clock = a.clock.at + s * a.clock.stride;
    let row_ints = a.row_ints.at + s * a.row_ints.stride;
    let row_nums = a.row_nums.at + s * a.row_nums.stride;
    let first_step = get_u(clock + CLOCK_STEP);
    let first_episode = get_u(clock + CLOCK_EPISODES);
    if (d.tiles == 1u) {
        list(s, 0u, lane);
        storageBarrier();
        workgroupBarrier();
    }

    // episodes before each tile
    var episodes = 0u;
    for (var start = 0u; start < d.tiles; start += THREADS) {
        let tile = start + lane;
        var here = 0u;
        if (tile < d.tiles) {
            here = get_u(tiles_in(s) + tile);
        }
        let scan = block_scan(here, lane);
        if (tile < d.tiles) {
            put_u(tiles_in(s) + tile, episodes + scan.before);
        }
        episodes += scan.total;
    }

    // vector steps that are due: a multiple of the frequency is passed where the frame's rest is below what a step adds
    let frequency = U64(d.log_frequency, d.log_frequency_high);
    let max_frame = U64(d.max_frame, d.max_frame_high);
    var rows = 0u;
    for (var start = 0u; start < d.t; start += THREADS) {
        let t = start + lane;
        var due = false;
        if (t < d.t) {
            let before = u64_add(u64_of_product(first_step, d.n), u64_of_product(t, d.n));
            let frame = u64_add(before, U64(d.n, 0u));
            due = u64_less(u64_rem(frame, frequency), U64(d.n, 0u));
            due = due || (u64_less(before, max_frame) && !u64_less(frame, max_frame));
        }
        let scan = block_scan(u32(due), lane);
        if (due) {
            put_u(due_in(s) + rows + scan.before, t);
        }
        rows += scan.total;
    }
    storageBarrier();
    workgroupBarrier();

    // some lanes per row; the loop goes on to the room there is, so that all lanes meet at its barriers
    let worker = lane % ROW_LANES;
    for (var first = 0u; first < d.rows; first += ROWS) {
        let row = first + lane / ROW_LANES;
        var t = 0u;
        var count = 0u;
        var seen = 0u;
        var sums = vec4<f32>();
        if (row < rows) {
            t = get_u(due_in(s) + row);
            let tile = ((t + 1u) * d.n - 1u) / TILE;
            count = first_episode + get_u(tiles_in(s) + tile) + get_u(ends_in(s) + t);
            seen = min(count, ROWS_WINDOW);
            for (var slot = worker; slot < seen; slot += ROW_LANES) {
                let episode = episode_in(s, slot, count, first_episode);
                sums = vec4<f32>(wide_add_f32(sums.xy, episode.x), wide_add_f32(sums.zw, episode.y));
            }
        }
        sums = block_group_sums(sums, lane, ROW_LANES);
        let nums = row_nums + row * ROWS_NUMS;
        if (row >= rows && row < d.rows) {
            // not due
            if (worker < ROWS_NUMS) {
                put(nums + worker, 0.0);
            } else if (worker < ROWS_NUMS + ROWS_INTS) {
                put_u(row_ints + row * ROWS_INTS + worker - ROWS_NUMS, 0u);
            }
        } else if (row < rows && worker < 2u) {
            if (seen == 0u) {
                put_u(nums + worker, 0x7fc00000u);
            } else {
                put(nums + worker, narrow(wide_div(select(sums.xy, sums.zw, worker == 1u), wide(f32(seen)))));
            }
        } else if (row < rows && worker < ROWS_NUMS) {
            write_number(s, worker - 2u, nums + worker);
        } else if (row < rows && worker < ROWS_NUMS + ROWS_INTS) {
            var words = array<u32, 4>(first_step + t + 1u, get_u(clock + CLOCK_OPT), count, 0u);
            put_u(row_ints + row * ROWS_INTS + worker - ROWS_NUMS, words[worker - ROWS_NUMS]);
        }
    }

    // the window and the clock are read no more
    let count = first_episode + episodes;
    var last = vec2<f32>();
    let fresh = lane < min(ROWS_WINDOW, count) && last_in(lane, count) >= first_episode;
    if (fresh) {
        last = episode_in(s, lane, count, first_episode);
    }
    storageBarrier();
    workgroupBarrier();
    if (fresh) {
        put(recent + lane, last.x);
        put(recent + ROWS_WINDOW + lane, last.y);
    }
    if (lane == 0u) {
        put_u(a.row_count.at + s * a.row_count.stride, rows);
        put_u(clock + CLOCK_STEP, first_step + d.t);
        put_u(clock + CLOCK_ITER, get_u(clock + CLOCK_ITER) + 1u);
        put_u(clock + CLOCK_EPISODES, count);
    }
}
