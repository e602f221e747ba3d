// Rewards as the agent sees them, advantages, value targets and their running moments. Twin of src/op/advantage.rs.
//
// A block of 512 lanes takes a tile of up to 32 environments through all T steps, 4,096 places (step, environment) at a
// time, backwards. The work on a place that needs no other (reward, bootstrap, error) is done by all lanes, neighbours
// in memory by neighbours in the warp; what is left of the recursion, one multiplication and one addition a step, goes
// through shared memory, one lane per environment; then all lanes write. So a rollout of one environment costs some 12
// cycles a step, not a trip to memory, and the bits are those of the cpu. 17 to 21 bytes read and 8 written per place,
// about 30 operations: bound by memory from some 100 environments on, by the recursion's latency below.
//
// Where one tile holds all environments, `advantage_scan` does everything and is the only launch. Otherwise
//   advantage_carry, advantage_scale   moments of the discounted return, only with normalised rewards
//   advantage_scan                     advantages and targets, and their moments tile by tile
//   advantage_count x 3                digits of the percentiles, only with them
//   advantage_finish                   a block per session: joins the moments, writes the statistics
//   advantage_center                   subtracts the mean, only where asked for
//
// A percentile is found digit by digit (11, 11 and 10 bits of the float's ordered bits): each pass counts how often each
// digit comes among the values that share the digits before. The counts are integers, so that their order is no matter:
// atomic additions are exact here. Sums are f64, over a butterfly of lanes and a tree of tiles, fixed by T and N.

#include "lib/core.cuh"
#include "lib/sums.cuh"

struct AdvantageShape {
    u32 t;
    u32 n;
    u32 mode;
    // rewards of an n-step return
    u32 steps;
    u32 center;
    u32 normalize_reward;
    u32 normalize_values;
    u32 percentile;
    // environments of a tile, as a power of two; number of tiles
    u32 tile_bits;
    u32 tiles;
    // of `advantage_count`
    u32 pass;
};

struct AdvantageArgs {
    Read<float> reward;            // [T, N]
    Read<float> value;             // [T + 1, N]
    Read<float> bootstrap;         // [T, N]
    Read<u32> ended;               // [T, N]
    Read<float> hyper;             // [LEN + groups * GROUP_LEN]
    Update<float> discounted;      // [N]
    Update<float> reward_moments;  // [4]
    Update<float> value_moments;   // [4]
    Update<float> percentiles;     // [4]
    Write<float> advantage;        // [T, N]
    Write<float> returns;          // [T, N]
    Write<float> update;           // [LEN]
    Update<float> scratch;
};

constexpr u32 THREADS = 512;
// Places of a lane, and of a block at a time.
constexpr u32 EACH = 8;
constexpr u32 PLACES = THREADS * EACH;
// Steps of the recursion whose operands are loaded together.
constexpr u32 BATCH = 8;

// Digits of a percentile: bits below the digit of each pass, and numbers that a digit can be.
constexpr u32 PASSES = 3;
constexpr u32 DIGITS = 2048;
// Values that two percentiles lie between.
constexpr u32 RANKS = 4;
// Values that a lane of `advantage_count` looks at.
constexpr u32 COUNT_EACH = 16;

__device__ __forceinline__ u32 shift_of(u32 pass) { return pass == 0 ? 21 : pass == 1 ? 10 : 0; }
__device__ __forceinline__ u32 digits_of(u32 pass) { return pass == PASSES - 1 ? DIGITS / 2 : DIGITS; }

// A value that is looked for: the digits known so far, and its rank among the values that have them.
struct Pick {
    u32 prefix;
    u32 rank;
};

// Scratch of several tiles: moments of every tile, the mean, picks and counts of every pass.
struct TileMoments {
    double mean;
    double m2;
};
__device__ __forceinline__ TileMoments* tile_moments(const AdvantageShape& d, float* scratch, u32 kind) {
    return reinterpret_cast<TileMoments*>(scratch) + kind * d.tiles;
}
__device__ __forceinline__ double* mean_in(const AdvantageShape& d, float* scratch) {
    return reinterpret_cast<double*>(tile_moments(d, scratch, 3));
}
__device__ __forceinline__ Pick* picks_in(const AdvantageShape& d, float* scratch, u32 pass) {
    return reinterpret_cast<Pick*>(mean_in(d, scratch) + 1) + pass * RANKS;
}
__device__ __forceinline__ u32* counts_in(const AdvantageShape& d, float* scratch, u32 pass) {
    return reinterpret_cast<u32*>(picks_in(d, scratch, PASSES)) + pass * RANKS * DIGITS;
}

// Environments of a tile that there are.
__device__ __forceinline__ u32 envs_of(const AdvantageShape& d, u32 tile) {
    u32 first = tile << d.tile_bits, whole = 1u << d.tile_bits;
    return d.n - first < whole ? d.n - first : whole;
}

// Joins what every tile found; lane 0 of the block has the result.
__device__ Moments3 join_tiles(const AdvantageShape& d, const TileMoments* tiles) {
    Moments3 all = {0.0, 0.0, 0.0};
    for (u32 tile = threadIdx.x; tile < d.tiles; tile += blockDim.x) {
        all = merge(all, {double(envs_of(d, tile)) * double(d.t), tiles[tile].mean, tiles[tile].m2});
    }
    return block_merge(all);
}

// Joins moments to running ones. One lane.
__device__ Moments3 take_in(float* moments, Moments3 now) {
    Moments3 joined = merge({moments[Moments::COUNT], moments[Moments::MEAN], moments[Moments::M2]}, now);
    moments[Moments::COUNT] = float(joined.count);
    moments[Moments::MEAN] = float(joined.mean);
    moments[Moments::M2] = float(joined.m2);
    return joined;
}

// Adds the discounted returns to the reward's moments, and the factor for rewards. One lane.
__device__ void scale_rewards(float* moments, Moments3 now) {
    Moments3 all = take_in(moments, now);
    // one number has no variance yet
    double variance = all.count > 1.0 ? all.m2 / all.count : 1.0;
    moments[Moments::SCALE] = float(1.0 / sqrt(variance + Moments::EPSILON));
}

// Discounted returns of a tile's environments, forwards; their moments, which lane 0 has.
__device__ Moments3 carry(const AdvantageShape& d, const AdvantageArgs& a, u32 s, float* terms, u32* cuts) {
    __shared__ double pivot;
    const float* reward = a.reward.of(s);
    const u32* ended = a.ended.of(s);
    float* discounted = a.discounted.of(s);
    float gamma = a.hyper.of(s)[Hyper::GAMMA];
    u32 first = blockIdx.x << d.tile_bits, mask = (1u << d.tile_bits) - 1, envs = envs_of(d, blockIdx.x);
    u32 rows = PLACES >> d.tile_bits;
    float sum = threadIdx.x < envs ? discounted[first + threadIdx.x] : 0.0f;
    double moments[2] = {0.0, 0.0};
    for (u32 begin = 0; begin < d.t; begin += rows) {
        u32 here = d.t - begin < rows ? d.t - begin : rows;
#pragma unroll 4
        for (u32 j = 0; j < EACH; j++) {
            u32 place = j * THREADS + threadIdx.x, t = place >> d.tile_bits, env = place & mask;
            if (t < here && env < envs) {
                terms[place] = reward[(begin + t) * d.n + first + env];
                cuts[place] = ended[(begin + t) * d.n + first + env];
            }
        }
        __syncthreads();
        if (threadIdx.x < envs) {
            for (u32 t = 0; t < here; t += BATCH) {
                float x[BATCH];
                u32 cut[BATCH];
#pragma unroll
                for (u32 k = 0; k < BATCH; k++) {
                    u32 at = ((t + k < here ? t + k : here - 1) << d.tile_bits) + threadIdx.x;
                    x[k] = terms[at];
                    cut[k] = cuts[at];
                }
#pragma unroll
                for (u32 k = 0; k < BATCH; k++) {
                    if (t + k < here) {
                        x[k] = sum * gamma + x[k];
                        sum = cut[k] != 0 ? 0.0f : x[k];
                        terms[((t + k) << d.tile_bits) + threadIdx.x] = x[k];
                    }
                }
            }
            if (threadIdx.x == 0 && begin == 0) pivot = terms[0];
        }
        __syncthreads();
#pragma unroll 4
        for (u32 j = 0; j < EACH; j++) {
            u32 place = j * THREADS + threadIdx.x, t = place >> d.tile_bits, env = place & mask;
            if (t < here && env < envs) {
                double off = double(terms[place]) - pivot;
                moments[0] += off;
                moments[1] += off * off;
            }
        }
    }
    if (threadIdx.x < envs) discounted[first + threadIdx.x] = sum;
    block_sums(moments);
    return moments_about(pivot, double(envs) * double(d.t), moments[0], moments[1]);
}

// Keeps a NaN, so that the fault is seen.
__device__ __forceinline__ float clip(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

// A float's bits in the order of all floats (-NaN < -inf < .. < inf < NaN), and back.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(u32 key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// Counts the digits of `pass` among `count` values, a list of counts for each pick.
__device__ void count_digits(const float* x, u32 count, u32 pass, const Pick* picks, u32* counts) {
    u32 shift = shift_of(pass), digits = digits_of(pass);
    for (u32 i = threadIdx.x; i < count; i += THREADS) {
        u32 key = ordered(x[i]), digit = (key >> shift) & (digits - 1);
        if (pass == 0) {
            atomicAdd(&counts[digit], 1u);
        } else {
#pragma unroll
            for (u32 k = 0; k < RANKS; k++) {
                if (key >> shift_of(pass - 1) == picks[k].prefix) atomicAdd(&counts[k * DIGITS + digit], 1u);
            }
        }
    }
}

// Extends every pick by its digit of `pass`. All lanes must come here; a barrier has passed since the counts.
__device__ void find_digits(u32 pass, const u32* counts, Pick* picks) {
    u32 digits = digits_of(pass), each = digits / THREADS;
    for (u32 k = 0; k < RANKS; k++) {
        // the first pass has one list for all
        const u32* list = counts + (pass == 0 ? 0 : k * DIGITS);
        u32 total, own = 0, rank = picks[k].rank;
        for (u32 i = 0; i < each; i++) own += list[threadIdx.x * each + i];
        u32 before = block_scan(own, total);
        if (before <= rank && rank - before < own) {
            u32 digit = threadIdx.x * each;
            for (; rank - before >= list[digit]; digit++) before += list[digit];
            picks[k] = {picks[k].prefix * digits + digit, rank - before};
        }
        __syncthreads();
    }
}

// Ranks of the values that the two percentiles of `rows` values lie between. One lane per rank.
__device__ __forceinline__ double place_of(u32 rows, u32 which) {
    return (which == 0 ? Moments::LOW_QUANTILE : Moments::HIGH_QUANTILE) * double(rows - 1);
}
__device__ __forceinline__ Pick first_pick(u32 rows, u32 k) {
    double place = place_of(rows, k / 2);
    return {0, u32(k % 2 == 0 ? place : ceil(place))};
}

// The moving averages, from picks with all digits. One lane.
__device__ void move_percentiles(const AdvantageShape& d, const Pick* picks, double mean, float* state) {
    float keep = state[Moments::SEEN] == 0.0f ? 0.0f : Moments::PERCENTILE_KEEP;
    for (u32 which = 0; which < 2; which++) {
        float low = value_of(picks[2 * which].prefix), high = value_of(picks[2 * which + 1].prefix);
        // the picks are from before the mean was subtracted, which keeps the order
        if (d.center) {
            low = float(double(low) - mean);
            high = float(double(high) - mean);
        }
        double place = place_of(d.t * d.n, which);
        float now = low + (high - low) * float(place - floor(place));
        float& old = state[which == 0 ? Moments::LOW : Moments::HIGH];
        old = keep * old + (1.0f - keep) * now;
    }
    state[Moments::SEEN] += 1.0f;
}

// Statistics of the whole rollout. One lane.
__device__ void write_statistics(const AdvantageShape& d, const AdvantageArgs& a, u32 s, Moments3 returns,
                                 Moments3 errors) {
    float* moments = a.value_moments.of(s);
    moments[Moments::SCALE] = 1.0f;
    if (d.normalize_values) {
        Moments3 all = take_in(moments, returns);
        double deviation = sqrt(all.m2 / all.count);
        moments[Moments::SCALE] = float(1.0 / (deviation > 1.0 ? deviation : 1.0));
    }
    if (!d.normalize_reward) a.reward_moments.of(s)[Moments::SCALE] = 1.0f;
    float* update = a.update.of(s);
    for (u32 i = 0; i < Sums::LEN; i++) update[i] = 0.0f;
    // nothing predicts returns where values are ignored
    bool known = d.mode != Modes::RETURNS && returns.m2 > 0.0;
    update[Sums::EXPLAINED_VAR] = known ? float(1.0 - errors.m2 / returns.m2) : __uint_as_float(0x7fc00000u);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    advantage_carry(__grid_constant__ const AdvantageShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const AdvantageArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Moments3 found = carry(d, a, s, shared, reinterpret_cast<u32*>(shared) + PLACES);
    if (threadIdx.x == 0) tile_moments(d, a.scratch.of(s), 0)[blockIdx.x] = {found.mean, found.m2};
}

extern "C" __global__ void __launch_bounds__(THREADS)
    advantage_scale(__grid_constant__ const AdvantageShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const AdvantageArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    Moments3 all = join_tiles(d, tile_moments(d, a.scratch.of(s), 0));
    if (threadIdx.x == 0) scale_rewards(a.reward_moments.of(s), all);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    advantage_scan(__grid_constant__ const AdvantageShape d, __grid_constant__ const Sessions sessions,
                   __grid_constant__ const AdvantageArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, terms);  // [PLACES], then the cuts
    u32* cuts = reinterpret_cast<u32*>(terms) + PLACES;
    __shared__ double pivots[2];
    __shared__ float shared_scale;
    __shared__ Pick picks[RANKS];
    const float* hyper = a.hyper.of(s);
    const float* reward = a.reward.of(s);
    const float* value = a.value.of(s);
    const float* bootstrap = a.bootstrap.of(s);
    const u32* ended = a.ended.of(s);
    float* advantage = a.advantage.of(s);
    float* returns = a.returns.of(s);
    float* scratch = a.scratch.of(s);

    // nothing is counted yet
    if (d.percentile && d.tiles > 1) {
        u32* counts = counts_in(d, scratch, 0);
        for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < PASSES * RANKS * DIGITS; i += d.tiles * THREADS) counts[i] = 0;
    }

    // the factor of rewards
    float scale = 1.0f;
    if (d.normalize_reward) {
        if (d.tiles == 1) {
            Moments3 found = carry(d, a, s, terms, cuts);
            if (threadIdx.x == 0) {
                scale_rewards(a.reward_moments.of(s), found);
                shared_scale = a.reward_moments.of(s)[Moments::SCALE];
            }
            __syncthreads();
            scale = shared_scale;
        } else {
            scale = a.reward_moments.of(s)[Moments::SCALE];
        }
    }
    scale = scale * hyper[Hyper::REWARD_SCALE];
    float low = hyper[Hyper::REWARD_CLIP_LOW], high = hyper[Hyper::REWARD_CLIP_HIGH], gamma = hyper[Hyper::GAMMA];

    bool gae = d.mode == Modes::GAE, values = d.mode != Modes::RETURNS;
    // an n-step return that always reaches the end is a recursion too; others are added up place by place
    bool recursive = d.mode != Modes::N_STEP || d.steps >= d.t;
    float keep = gae ? gamma * hyper[Hyper::LAM] : gamma;
    u32 first = blockIdx.x << d.tile_bits, mask = (1u << d.tile_bits) - 1, envs = envs_of(d, blockIdx.x);
    u32 rows = PLACES >> d.tile_bits;
    float x = threadIdx.x < envs && values && !gae ? value[d.t * d.n + first + threadIdx.x] : 0.0f;
    double moments[4] = {};
    for (u32 last = d.t; last > 0;) {
        u32 here = last < rows ? last : rows, begin = last - here;
        if (recursive) {
#pragma unroll 4
            for (u32 j = 0; j < EACH; j++) {
                u32 place = j * THREADS + threadIdx.x, t = place >> d.tile_bits, env = place & mask;
                if (t >= here || env >= envs) continue;
                u32 at = (begin + t) * d.n + first + env, end = ended[at];
                // the end of an episode cuts the recursion: what follows is in the term
                float over = end == Ended::TRUNCATED && values ? bootstrap[at] : 0.0f;
                float term = clip(reward[at] * scale, low, high);
                if (gae) {
                    term = term + gamma * (end == 0 ? value[at + d.n] : over) - value[at];
                    if (end != 0) term = term + keep * 0.0f;
                } else if (end != 0) {
                    term = term + gamma * over;
                }
                terms[place] = term;
                cuts[place] = end;
            }
        } else {
#pragma unroll 1
            for (u32 j = 0; j < EACH; j++) {
                u32 place = j * THREADS + threadIdx.x, t = place >> d.tile_bits, env = place & mask;
                if (t >= here || env >= envs) continue;
                u32 t0 = begin + t, behind = t0 + d.steps < d.t ? t0 + d.steps : d.t;
                float target = value[behind * d.n + first + env];
                for (u32 k = behind; k-- > t0;) {
                    u32 then = k * d.n + first + env, end = ended[then];
                    float over = end == Ended::TRUNCATED ? bootstrap[then] : 0.0f;
                    target = clip(reward[then] * scale, low, high) + gamma * (end == 0 ? target : over);
                }
                terms[place] = target;
            }
        }
        __syncthreads();
        if (recursive && threadIdx.x < envs) {
            for (u32 left = here; left > 0;) {
                // operands first, so that their loads overlap
                float term[BATCH];
                u32 cut[BATCH];
#pragma unroll
                for (u32 k = 0; k < BATCH; k++) {
                    u32 at = ((left > k ? left - 1 - k : 0) << d.tile_bits) + threadIdx.x;
                    term[k] = terms[at];
                    cut[k] = cuts[at];
                }
#pragma unroll
                for (u32 k = 0; k < BATCH; k++) {
                    if (k < left) {
                        x = cut[k] != 0 ? term[k] : term[k] + keep * x;
                        terms[((left - 1 - k) << d.tile_bits) + threadIdx.x] = x;
                    }
                }
                left -= left < BATCH ? left : BATCH;
            }
        }
        // moments are taken about the first place of the last steps
        if (threadIdx.x == 0 && last == d.t) {
            float v = values ? value[begin * d.n + first] : 0.0f, target = gae ? terms[0] + v : terms[0];
            pivots[0] = target;
            pivots[1] = double(target) - double(v);
        }
        __syncthreads();
#pragma unroll 4
        for (u32 j = 0; j < EACH; j++) {
            u32 place = j * THREADS + threadIdx.x, t = place >> d.tile_bits, env = place & mask;
            if (t >= here || env >= envs) continue;
            u32 at = (begin + t) * d.n + first + env;
            float v = values ? value[at] : 0.0f, found = terms[place], target = gae ? found + v : found;
            advantage[at] = gae ? found : found - v;
            returns[at] = target;
            double off = double(target) - pivots[0], error = double(target) - double(v) - pivots[1];
            moments[0] += off;
            moments[1] += off * off;
            moments[2] += error;
            moments[3] += error * error;
        }
        last = begin;
    }
    block_sums(moments);
    double count = double(envs) * double(d.t);
    Moments3 target = moments_about(pivots[0], count, moments[0], moments[1]);
    Moments3 error = moments_about(pivots[1], count, moments[2], moments[3]);
    if (d.tiles > 1) {
        if (threadIdx.x == 0) {
            tile_moments(d, scratch, 1)[blockIdx.x] = {target.mean, target.m2};
            tile_moments(d, scratch, 2)[blockIdx.x] = {error.mean, error.m2};
        }
        return;
    }

    // one tile is the whole rollout; the advantages of other lanes are there since the sums
    u32 all = d.t * d.n;
    if (threadIdx.x == 0) write_statistics(d, a, s, target, error);
    if (d.percentile) {
        u32* counts = reinterpret_cast<u32*>(terms);
        if (threadIdx.x < RANKS) picks[threadIdx.x] = first_pick(all, threadIdx.x);
        for (u32 pass = 0; pass < PASSES; pass++) {
            for (u32 i = threadIdx.x; i < RANKS * DIGITS; i += THREADS) counts[i] = 0;
            __syncthreads();
            count_digits(advantage, all, pass, picks, counts);
            __syncthreads();
            find_digits(pass, counts, picks);
        }
        if (threadIdx.x == 0) move_percentiles(d, picks, target.mean, a.percentiles.of(s));
    }
    if (d.center) {
        __syncthreads();
        for (u32 i = threadIdx.x; i < all; i += THREADS) advantage[i] = float(double(advantage[i]) - target.mean);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    advantage_count(__grid_constant__ const AdvantageShape d, __grid_constant__ const Sessions sessions,
                    __grid_constant__ const AdvantageArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(u32, counts);  // [RANKS, DIGITS]
    __shared__ Pick picks[RANKS];
    float* scratch = a.scratch.of(s);
    u32 all = d.t * d.n, begin = blockIdx.x * THREADS * COUNT_EACH;
    u32 here = all - begin < THREADS * COUNT_EACH ? all - begin : THREADS * COUNT_EACH;

    // the digits known so far: every block finds the last one for itself, one keeps it for the next pass
    for (u32 i = threadIdx.x; i < RANKS * DIGITS; i += THREADS) counts[i] = 0;
    if (threadIdx.x < RANKS) {
        picks[threadIdx.x] =
            d.pass < 2 ? first_pick(all, threadIdx.x) : picks_in(d, scratch, d.pass - 1)[threadIdx.x];
    }
    __syncthreads();
    if (d.pass > 0) {
        find_digits(d.pass - 1, counts_in(d, scratch, d.pass - 1), picks);
        if (blockIdx.x == 0 && threadIdx.x < RANKS) picks_in(d, scratch, d.pass)[threadIdx.x] = picks[threadIdx.x];
    }

    count_digits(a.advantage.of(s) + begin, here, d.pass, picks, counts);
    __syncthreads();
    u32* total = counts_in(d, scratch, d.pass);
    for (u32 i = threadIdx.x; i < RANKS * DIGITS; i += THREADS) {
        if (counts[i] > 0) atomicAdd(&total[i], counts[i]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    advantage_finish(__grid_constant__ const AdvantageShape d, __grid_constant__ const Sessions sessions,
                     __grid_constant__ const AdvantageArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    __shared__ Pick picks[RANKS];
    float* scratch = a.scratch.of(s);
    Moments3 returns = join_tiles(d, tile_moments(d, scratch, 1));
    Moments3 errors = join_tiles(d, tile_moments(d, scratch, 2));
    if (threadIdx.x == 0) {
        write_statistics(d, a, s, returns, errors);
        *mean_in(d, scratch) = returns.mean;
    }
    if (d.percentile) {
        if (threadIdx.x < RANKS) picks[threadIdx.x] = picks_in(d, scratch, PASSES - 1)[threadIdx.x];
        __syncthreads();
        find_digits(PASSES - 1, counts_in(d, scratch, PASSES - 1), picks);
        if (threadIdx.x == 0) move_percentiles(d, picks, returns.mean, a.percentiles.of(s));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    advantage_center(__grid_constant__ const AdvantageShape d, __grid_constant__ const Sessions sessions,
                     __grid_constant__ const AdvantageArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    double mean = *mean_in(d, a.scratch.of(s));
    float* advantage = a.advantage.of(s);
    u32 all = d.t * d.n, begin = blockIdx.x * THREADS * COUNT_EACH;
    for (u32 j = 0; j < COUNT_EACH; j++) {
        u32 i = begin + j * THREADS + threadIdx.x;
        if (i < all) advantage[i] = float(double(advantage[i]) - mean);
    }
}
