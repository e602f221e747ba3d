// Episode statistics and log rows of the rollout that just ended. Twin of src/op/log.rs.
//
// Episodes are numbered in the order of the records [T, N], so that the list of finished episodes is the records without
// the NaNs. A block of 1,024 lanes lists 8,192 records: ballots count the episodes of a warp, a scan over the warps
// numbers them, and each goes to its place in the list; a lane that holds the last record of a vector step notes how
// many there were by then. From the list any row can be written alone: a warp per row fetches the last 100 episodes,
// from the list or from `recent`, and adds them up in the order of their slots, which are the bits of the cpu.
//
// Up to 8,192 records `log_rows` is the only launch, a block per session; for more, `log_list` has a block per 8,192 and
// `log_rows` joins their counts. 4 T N bytes read; bound by the latency of some ten trips to memory.

#include "lib/core.cuh"
#include "lib/sums.cuh"

struct LogShape {
    u32 t;
    u32 n;
    // low and high half
    u32 log_frequency;
    u32 log_frequency_high;
    u32 max_frame;
    u32 max_frame_high;
    u32 rows;
    // blocks of `log_list`
    u32 tiles;
};

struct LogArgs {
    Read<float> ep_return;  // [T, N]
    Read<u32> ep_length;    // [T, N]
    Read<float> update;     // [LEN]
    Read<float> schedule;   // [LEN + groups]
    Update<float> recent;   // [2, WINDOW]
    Update<u32> clock;      // [4]
    Write<u32> row_count;   // [1]
    Write<u32> row_ints;    // [rows, INTS]
    Write<float> row_nums;  // [rows, NUMS]
    Update<float> scratch;
};

constexpr u32 THREADS = 1024;
constexpr u32 WARPS = THREADS / WARP;
// Records of a lane and of a tile.
constexpr u32 EACH = 8;
constexpr u32 TILE = THREADS * EACH;

// Scratch: records of the finished episodes, tile by tile; episodes of the tile up to the end of every vector step;
// episodes of every tile, then of all tiles before it; vector steps that get a row.
struct Lists {
    u32* episode;
    u32* ends;
    u32* tile;
    u32* due;
};
__device__ __forceinline__ Lists lists_in(const LogShape& d, float* scratch) {
    u32* words = reinterpret_cast<u32*>(scratch);
    u32* ends = words + d.t * d.n;
    return {words, ends, ends + d.t, ends + d.t + d.tiles};
}

// Lists the episodes of a tile. All lanes must come here.
__device__ void list(const LogShape& d, const LogArgs& a, u32 s, u32 tile, const Lists& lists) {
    __shared__ u32 counts[EACH * WARPS];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, all = d.t * d.n, begin = tile * TILE;
    const float* ep_return = a.ep_return.of(s);

    // episodes of each warp's 32 neighbours, eight times
    u32 ended[EACH];
#pragma unroll
    for (u32 j = 0; j < EACH; j++) {
        u32 i = begin + j * THREADS + threadIdx.x;
        float total = i < all ? ep_return[i] : __uint_as_float(0x7fc00000u);
        ended[j] = __ballot_sync(ALL_LANES, total == total);
        if (lane == 0) counts[j * WARPS + warp] = __popc(ended[j]);
    }
    __syncthreads();
    u32 total, own = threadIdx.x < EACH * WARPS ? counts[threadIdx.x] : 0, before = block_scan(own, total);
    if (threadIdx.x < EACH * WARPS) counts[threadIdx.x] = before;
    __syncthreads();

#pragma unroll
    for (u32 j = 0; j < EACH; j++) {
        u32 i = begin + j * THREADS + threadIdx.x;
        if (i >= all) continue;
        u32 number = counts[j * WARPS + warp] + __popc(ended[j] & ((1u << lane) - 1)), here = ended[j] >> lane & 1;
        if (here) lists.episode[begin + number] = i;
        if ((i + 1) % d.n == 0) lists.ends[i / d.n] = number + here;
    }
    if (threadIdx.x == 0) lists.tile[tile] = total;
}

// The columns from `loss` on: means over the minibatches of the last update, NaN before the first.
__device__ __forceinline__ float number(u32 column, const float* sums, const float* schedule) {
    constexpr u32 OF[8] = {Sums::LOSS, Sums::POLICY, Sums::VALUE, Sums::ENTROPY, Sums::KL, Sums::CLIP_FRAC,
                           Sums::EXPLAINED_VAR, Sums::GRAD_NORM};
    if (column == 8) return schedule[Scheduled::LEN];
    if (column == 9) return schedule[Scheduled::CLIP_EPS];
    if (column == 10) return schedule[Scheduled::ENTROPY_COEF];
    float count = sums[Sums::COUNT], sum = sums[OF[column]];
    if (count <= 0.0f) return __uint_as_float(0x7fc00000u);
    return OF[column] == Sums::EXPLAINED_VAR ? sum : sum / count;
}

// The last of `count` episodes that lies in a slot.
__device__ __forceinline__ u32 last_in(u32 slot, u32 count) {
    return count - 1 - (count - 1 - slot) % Rows::WINDOW;
}

// The record of the rollout's episode `at`; `lists.tile` has the episodes before each tile.
__device__ __forceinline__ u32 record_of(const LogShape& d, const Lists& lists, u32 at) {
    // its tile is the last one that begins with it or before
    u32 tile = 0;
    for (u32 last = d.tiles - 1; tile < last;) {
        u32 middle = (tile + last + 1) / 2;
        if (lists.tile[middle] <= at) {
            tile = middle;
        } else {
            last = middle - 1;
        }
    }
    return lists.episode[tile * TILE + at - lists.tile[tile]];
}

extern "C" __global__ void __launch_bounds__(THREADS)
    log_list(__grid_constant__ const LogShape d, __grid_constant__ const Sessions sessions,
             __grid_constant__ const LogArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    list(d, a, s, blockIdx.x, lists_in(d, a.scratch.of(s)));
}

extern "C" __global__ void __launch_bounds__(THREADS)
    log_rows(__grid_constant__ const LogShape d, __grid_constant__ const Sessions sessions,
             __grid_constant__ const LogArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    __shared__ float windows[WARPS][2][Rows::WINDOW];
    Lists lists = lists_in(d, a.scratch.of(s));
    const float* ep_return = a.ep_return.of(s);
    const u32* ep_length = a.ep_length.of(s);
    float* recent = a.recent.of(s);
    u32* clock = a.clock.of(s);
    u32* row_ints = a.row_ints.of(s);
    float* row_nums = a.row_nums.of(s);
    u32 first_step = clock[Clock::CLOCK_STEP], first_episode = clock[Clock::CLOCK_EPISODES];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (d.tiles == 1) list(d, a, s, 0, lists);
    __syncthreads();

    // episodes before each tile
    u32 episodes = 0;
    for (u32 start = 0; start < d.tiles; start += THREADS) {
        u32 tile = start + threadIdx.x, here;
        u32 before = block_scan(tile < d.tiles ? lists.tile[tile] : 0, here);
        if (tile < d.tiles) lists.tile[tile] = episodes + before;
        episodes += here;
    }

    // vector steps that are due
    double frequency = double(u64(d.log_frequency_high) << 32 | d.log_frequency);
    u64 max_frame = u64(d.max_frame_high) << 32 | d.max_frame;
    u32 rows = 0;
    for (u32 start = 0; start < d.t; start += THREADS) {
        u32 t = start + threadIdx.x, here;
        u64 before = (u64(first_step) + t) * d.n, frame = before + d.n;
        // frames are below 2^53, where a rounded quotient never reaches the next whole number
        bool passed = floor(double(frame) / frequency) > floor(double(before) / frequency) ||
                      (before < max_frame && max_frame <= frame);
        u32 due = t < d.t && passed, row = rows + block_scan(due, here);
        if (due) lists.due[row] = t;
        rows += here;
    }
    __syncthreads();

    // a warp per row
    for (u32 row = warp; row < rows; row += WARPS) {
        u32 t = lists.due[row];
        u32 count = first_episode + lists.tile[((t + 1) * d.n - 1) / TILE] + lists.ends[t];
        u32 seen = count < Rows::WINDOW ? count : Rows::WINDOW;
        for (u32 slot = lane; slot < seen; slot += WARP) {
            u32 episode = last_in(slot, count);
            float total = recent[slot], length = recent[Rows::WINDOW + slot];
            if (episode >= first_episode) {
                u32 i = record_of(d, lists, episode - first_episode);
                total = ep_return[i];
                length = float(ep_length[i]);
            }
            windows[warp][0][slot] = total;
            windows[warp][1][slot] = length;
        }
        __syncwarp();
        float* nums = row_nums + row * Rows::NUMS;
        if (lane < 2) {
            double sum = 0.0;
            for (u32 slot = 0; slot < seen; slot++) sum += double(windows[warp][lane][slot]);
            nums[lane] = float(sum / double(seen));
        } else if (lane < Rows::NUMS) {
            nums[lane] = number(lane - 2, a.update.of(s), a.schedule.of(s));
        } else if (lane < Rows::NUMS + Rows::INTS) {
            u32 word = lane - Rows::NUMS;
            row_ints[row * Rows::INTS + word] = word == 0   ? first_step + t + 1
                                                : word == 1 ? clock[Clock::CLOCK_OPT]
                                                : word == 2 ? count
                                                            : 0;
        }
        __syncwarp();
    }
    // rows that were not due
    for (u32 i = rows * Rows::INTS + threadIdx.x; i < d.rows * Rows::INTS; i += THREADS) row_ints[i] = 0;
    for (u32 i = rows * Rows::NUMS + threadIdx.x; i < d.rows * Rows::NUMS; i += THREADS) row_nums[i] = 0.0f;

    // the window and the clock are read no more
    __syncthreads();
    u32 count = first_episode + episodes, slot = threadIdx.x;
    if (slot < Rows::WINDOW && slot < count) {
        u32 episode = last_in(slot, count);
        if (episode >= first_episode) {
            u32 i = record_of(d, lists, episode - first_episode);
            recent[slot] = ep_return[i];
            recent[Rows::WINDOW + slot] = float(ep_length[i]);
        }
    }
    if (threadIdx.x == 0) {
        a.row_count.of(s)[0] = rows;
        clock[Clock::CLOCK_STEP] = first_step + d.t;
        clock[Clock::CLOCK_ITER] += 1;
        clock[Clock::CLOCK_EPISODES] = count;
    }
}
