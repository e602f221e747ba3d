// Gradient of one batch of temporal-difference errors of a recurrent Q net: sequences out of the replay ring forward from
// the states that were stored with them, losses, and back through time. Twin of src/op/sequence_td_grad.rs.
//
// Kernels in order: gather (observations before and behind steps, what follows every step, packed matrices); forward,
// once per hidden layer in front of the cell; see, what the gates get from their inputs; steps, all steps of the cell;
// next, the outputs of what follows a step; losses; back, from the last step that is learned from to the first; weights of
// head and cell; then for every hidden layer from the last: slopes at its units, weights. The net and the target net go
// ahead side by side (z of the grid); only the net goes back.
//
// Sequences go in tiles, each with its own rows of `partial`. A row of a tile is a step of one of its sequences, steps one
// after the other, whole blocks of 64; those that are learned from lie together, and have rows of their own for what
// follows them. That is mostly the next row; only where an episode or the sequence ends does a net take a step aside, for
// which `next` has a block per four rows, and most of these find nothing to do and copy.
//
// steps and back: a block takes 4 or 8 sequences of a tile, four lanes per unit of the cell, as `next` does;
// lib/sequences.cuh says what they are bound by: with the few sequences of a usual batch, the latency of a step. The others
// make tiles of 64 x 64 numbers in blocks of 128 lanes, as td_grad_layered.cu does, and are too small to fill a large GPU
// but in cohorts. 2 x weights FLOPs for every row and net, and 4 more for rows that are learned from. Gates, states and
// slopes of all rows pass through scratch, once per kernel. Orders depend on shapes alone.

#include "lib/core.cuh"
#include "lib/layered.cuh"
#include "lib/sequences.cuh"
#include "lib/td.cuh"

typedef layered::Single Product;

struct SequenceTdGradShape {
    // the linear head, and the layers in front of the cell, of which the last is its input's matrix
    Net head;
    Net front;
    // gates of a unit of the cell, and its units
    u32 gates;
    u32 hidden;
    // an output per action; a dueling head has the state's value as one more
    u32 actions;
    u32 dueling;
    // rows of the ring, and environments
    u32 rows;
    u32 envs;
    // first of the batch's samples; its sequences, those of a tile, and of a block of it
    u32 start;
    u32 count;
    u32 tile;
    u32 block;
    // steps of a sequence, those that only bring its state up to date, those behind them that are learned from
    u32 steps;
    u32 burn_in;
    u32 learned;
    // rows that are learned from
    u32 batch;
    // the next state's value: chosen by the net itself; told by a target net
    u32 asks_itself;
    u32 has_target;
    u32 distance;
    float beta;
    u32 normalize_obs;
    // of kernels that go layer by layer
    u32 layer;
};

struct SequenceTdGradArgs {
    Read<u32> index;            // [samples]
    Read<u32> last;             // [samples]
    Read<float> returns;        // [samples]
    Read<float> discount;       // [samples]
    Read<float> weight;         // [samples]
    Read<float> obs;            // [R, O]
    Read<float> next_obs;       // [R, O]
    Read<u32> ended;            // [R]
    Read<float> first_state;    // [R, S]
    Read<float> action;         // [R]
    Read<float> normalizer;     // [2, O]
    Read<float> hyper;          // [LEN + groups * GROUP_LEN]
    Read<float> params;         // [P]
    Read<float> target;         // [P], empty where no target net is asked
    Write<float> partial;       // [tiles, P]
    Write<float> partial_loss;  // [tiles, LOSSES]
    Write<float> error;         // [B]
    Update<float> scratch;
};

// Lanes of the blocks that go through time or take a step, and rows of a block that takes one.
constexpr u32 STEP_LANES = 512, BESIDE = 4;

__device__ __forceinline__ u32 whole_blocks(u32 rows) { return (rows + layered::ROWS - 1) / layered::ROWS * layered::ROWS; }

// The net, or the target net, and its body.
__device__ __forceinline__ const float* params_of(const SequenceTdGradArgs& a, u32 s, u32 z) {
    return z == 0 ? a.params.of(s) : a.target.of(s);
}
__device__ __forceinline__ const float* body_of(const SequenceTdGradShape& d, const SequenceTdGradArgs& a, u32 s, u32 z) {
    return params_of(a, s, z) + d.head.params;
}
// The matrix of the state, as a layer of the body.
__device__ __forceinline__ Layer state_layer(const SequenceTdGradShape& d) {
    u32 rows = d.gates * d.hidden;
    return {d.hidden, rows, d.front.params, d.front.params + rows * d.hidden};
}
// Whether a net is asked what the next state is worth.
__device__ __forceinline__ bool asked(const SequenceTdGradShape& d, u32 z) { return z > 0 || d.asks_itself; }
// Words that the cell sees.
__device__ __forceinline__ u32 seen_words(const SequenceTdGradShape& d) { return d.front.layer[d.front.layers - 1].input; }

// Parts of a session's scratch: for every row whether its episode goes on, for every row that is learned from where to
// look for what follows; observations of both. Of each net the activations of hidden layers, of both; gates, what a GRU's
// gates got from the state, outputs before and after every step, an LSTM's cells; outputs of what follows; packed matrices.
// Of the net itself what was before the activation where slopes need it, and slopes at the outputs; then the losses of
// every block of rows.
struct Scratch {
    float* at;
    // rows of a tile, and how many whole blocks of them are learned from; of all tiles
    u32 tile_rows;
    u32 tile_learned;
    u32 rows;
    u32 learned;

    __device__ __forceinline__ Scratch(const SequenceTdGradShape& d, const SequenceTdGradArgs& a, u32 s) {
        at = a.scratch.of(s);
        tile_learned = whole_blocks(d.learned * d.tile);
        tile_rows = whole_blocks(max(d.steps * d.tile, d.burn_in * d.tile + tile_learned));
        u32 tiles = (d.count + d.tile - 1) / d.tile;
        rows = tiles * tile_rows;
        learned = tiles * tile_learned;
    }

    // blocks of 64 of both kinds of rows
    __device__ __forceinline__ u32 blocks() const { return (rows + learned) / layered::ROWS; }
    // of a tile, the first row that is learned from; of a row that is learned from, its place among all rows
    __device__ __forceinline__ u32 first_learned(const SequenceTdGradShape& d, u32 tile) const {
        return tile * tile_rows + d.burn_in * d.tile;
    }
    __device__ __forceinline__ u32 row_of(const SequenceTdGradShape& d, u32 row) const {
        return first_learned(d, row / tile_learned) + row % tile_learned;
    }

    __device__ __forceinline__ u32 units(const SequenceTdGradShape& d, u32 layers) const {
        u32 sum = 0;
        for (u32 l = 0; l < layers; l++) sum += pad4(d.front.layer[l].output);
        return sum;
    }
    __device__ __forceinline__ u32 packed_words(const SequenceTdGradShape& d) const {
        return cell::ahead_words(d.hidden, d.hidden, d.gates) + cell::ahead_words(seen_words(d), d.hidden, d.gates) +
               cell::back_words(d.hidden, d.gates);
    }

    __device__ __forceinline__ u32* goes_on() const { return reinterpret_cast<u32*>(at); }
    // twice the row of the outputs that are meant, plus 1 where they are those of one step aside
    __device__ __forceinline__ u32* behind() const { return goes_on() + rows; }
    __device__ __forceinline__ float* seen() const { return at + rows + learned; }
    // activations of layer l, from 0; those of what follows come behind all rows
    __device__ __forceinline__ float* acts(const SequenceTdGradShape& d, u32 z, u32 l) const {
        bool gru = d.gates == cell::GRU;
        u32 row = pad4(d.gates * d.hidden) * (gru ? 2 : 1) + pad4(d.hidden) * (gru ? 2 : 3), hidden = d.front.layers - 1;
        u64 net = u64(rows) * row + u64(learned) * pad4(d.hidden) + packed_words(d);
        u64 both = rows + learned;
        return seen() + both * pad4(d.front.layer[0].input) + z * (both * units(d, hidden) + net) + both * units(d, l);
    }
    __device__ __forceinline__ float* gates(const SequenceTdGradShape& d, u32 z) const {
        return acts(d, z, d.front.layers - 1);
    }
    // slopes at what the gates got from the state: an LSTM's are those at what they got from the input
    __device__ __forceinline__ float* recurrent(const SequenceTdGradShape& d, u32 z) const {
        return gates(d, z) + (d.gates == cell::GRU ? u64(rows) * pad4(d.gates * d.hidden) : 0);
    }
    __device__ __forceinline__ float* before(const SequenceTdGradShape& d, u32 z) const {
        return recurrent(d, z) + u64(rows) * pad4(d.gates * d.hidden);
    }
    __device__ __forceinline__ float* after(const SequenceTdGradShape& d, u32 z) const {
        return before(d, z) + u64(rows) * pad4(d.hidden);
    }
    __device__ __forceinline__ float* cells(const SequenceTdGradShape& d, u32 z) const {
        return after(d, z) + u64(rows) * pad4(d.hidden);
    }
    __device__ __forceinline__ float* next(const SequenceTdGradShape& d, u32 z) const {
        return cells(d, z) + (d.gates == cell::GRU ? 0 : u64(rows) * pad4(d.hidden));
    }
    // the matrix of the state, of the input, of the state for the way back
    __device__ __forceinline__ float* packed(const SequenceTdGradShape& d, u32 z) const {
        return next(d, z) + u64(learned) * pad4(d.hidden);
    }
    __device__ __forceinline__ float* unactivated(const SequenceTdGradShape& d, u32 l) const {
        if (!needs_input(d.front.activation)) return nullptr;
        return acts(d, d.has_target ? 2 : 1, 0) + u64(rows) * units(d, l);
    }
    __device__ __forceinline__ float* d_out(const SequenceTdGradShape& d) const {
        u32 kept = needs_input(d.front.activation) ? units(d, d.front.layers - 1) : 0;
        return acts(d, d.has_target ? 2 : 1, 0) + u64(rows) * kept;
    }
    __device__ __forceinline__ float* losses(const SequenceTdGradShape& d) const {
        return d_out(d) + u64(learned) * pad4(d.head.layer[0].output);
    }
};

extern "C" __global__ void __launch_bounds__(128)
    sequence_td_grad_gather(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                            __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    Scratch scratch(d, a, s);
    u32 blocks = scratch.blocks(), lane = threadIdx.x;
    if (blockIdx.x >= blocks) {
        u32 lanes = (gridDim.x - blocks) * layered::LANES, mine = (blockIdx.x - blocks) * layered::LANES + lane;
        for (u32 z = 0; z < (d.has_target ? 2 : 1); z++) {
            const float* body = body_of(d, a, s, z);
            const float* weight = body + d.front.params;
            u32 seen = seen_words(d);
            float* to = scratch.packed(d, z);
            cell::pack_ahead(weight, d.hidden, d.hidden, d.gates, to, mine, lanes);
            to += cell::ahead_words(d.hidden, d.hidden, d.gates);
            cell::pack_ahead(body + d.front.layer[d.front.layers - 1].weight, seen, d.hidden, d.gates, to, mine, lanes);
            to += cell::ahead_words(seen, d.hidden, d.gates);
            if (z == 0) cell::pack_back(weight, d.hidden, d.gates, to, mine, lanes);
        }
        return;
    }

    // rows of sequences that are not there hold some other's numbers, and rows behind the last step zeros
    __shared__ u32 index[layered::ROWS];
    u32 row = blockIdx.x * layered::ROWS, x_row = pad4(d.front.layer[0].input);
    bool follows = row >= scratch.rows;
    u32 mine = follows ? row - scratch.rows : row, in_tile = follows ? scratch.tile_learned : scratch.tile_rows;
    u32 tile = mine / in_tile, first = mine % in_tile, all = (follows ? d.learned : d.steps) * d.tile;
    u32 left = first < all ? all - first : 0, rows = min(left, layered::ROWS);
    if (lane < rows) {
        u32 e = (first + lane) % d.tile, place = tile * d.tile + e, step = (first + lane) / d.tile;
        if (follows) step += d.burn_in;
        u32 sample = d.start + step * d.count + min(place, d.count - 1), m = a.index.of(s)[sample];
        bool there = place < d.count;
        if (follows) {
            // round the seam of the ring
            u32 n = a.last.of(s)[sample], last = step + (n >= m ? n - m : n + d.rows - m) / d.envs;
            bool aside = a.ended.of(s)[n] != 0 || last + 1 == d.steps;
            u32 to = tile * scratch.tile_rows + (there && !aside ? last + 1 : last) * d.tile + e;
            scratch.behind()[mine + lane] = 2 * to + (there && aside ? 1 : 0);
            m = n;
        } else {
            scratch.goes_on()[mine + lane] = there && a.ended.of(s)[m] == 0 ? 1 : 0;
        }
        index[lane] = m;
    } else if (follows && lane < layered::ROWS) {
        scratch.behind()[mine + lane] = 2 * tile * scratch.tile_rows;
    }
    __syncthreads();
    gather_rows<layered::ROWS, layered::LANES>((follows ? a.next_obs : a.obs).of(s), d.front.layer[0].input,
                                               normalizing(d, a, s), index, rows, scratch.seen() + u64(row) * x_row, x_row,
                                               lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_td_grad_forward(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                             __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / scratch.blocks(), z = blockIdx.z, l = d.layer, lane = threadIdx.x;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    bool follows = at.row >= scratch.rows;
    if (follows) {
        // only steps aside see what the cell has not seen
        bool mine = lane < layered::ROWS && asked(d, z) && (scratch.behind()[at.row - scratch.rows + lane] & 1);
        if (!__syncthreads_or(mine)) return;
    }
    const float* from = l == 0 ? scratch.seen() : scratch.acts(d, z, l - 1);
    layered::forward_tile<Product>(d.front.layer[l], d.front.activation, body_of(d, a, s, z), from, scratch.acts(d, z, l),
                                   z == 0 && !follows ? scratch.unactivated(d, l) : nullptr, at, shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_td_grad_see(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                         __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), z = blockIdx.z, last = d.front.layers - 1;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    const float* from = last == 0 ? scratch.seen() : scratch.acts(d, z, last - 1);
    layered::linear_tile<Product>(d.front.layer[last], body_of(d, a, s, z), from, scratch.gates(d, z), at, shared,
                                  threadIdx.x);
}

// A block's sequences.
struct Block {
    const SequenceTdGradShape& d;
    // of the first sequence: its row in scratch; and how many there are
    u32 row;
    u32 count;
    // rows of the ring where they begin, and the states there
    const u32* index;
    const float* states;
    const u32* ongoing;
    // slopes at the outputs of the first step that is learned from
    const float* d_out;
    const float* weight;

    __device__ __forceinline__ Block(const SequenceTdGradShape& d, const SequenceTdGradArgs& a, u32 s,
                                     const Scratch& scratch)
        : d(d) {
        u32 place = blockIdx.x * d.block, tile = place / d.tile, e = place % d.tile;
        row = tile * scratch.tile_rows + e;
        count = place < d.count ? d.count - place : 0;
        index = a.index.of(s) + d.start + place;
        states = a.first_state.of(s);
        ongoing = scratch.goes_on() + row;
        d_out = scratch.d_out(d) + u64(tile * scratch.tile_learned + e) * pad4(d.head.layer[0].output);
        weight = a.params.of(s);
    }

    __device__ __forceinline__ const float* first(u32 e) const {
        u32 words = d.hidden * (d.gates == cell::LSTM ? 2 : 1);
        return e < count ? states + u64(index[e]) * words : nullptr;
    }
    __device__ __forceinline__ bool goes_on(u32 step, u32 e) const { return ongoing[step * d.tile + e] != 0; }
    __device__ __forceinline__ float slope(u32 step, u32 e, u32 unit) const {
        u32 outputs = d.head.layer[0].output;
        const float* slopes = d_out + u64((step - d.burn_in) * d.tile + e) * pad4(outputs);
        float sum = 0.0f;
#pragma unroll 1
        for (u32 o = 0; o < outputs; o++) sum = fmaf(slopes[o], __ldg(weight + o * d.hidden + unit), sum);
        return sum;
    }
};

// Its steps up to step `end`.
__device__ __forceinline__ Unrolled unrolled(const SequenceTdGradShape& d, const SequenceTdGradArgs& a, u32 s,
                                             const Scratch& scratch, u32 z, u32 row, u32 end) {
    u32 units = pad4(d.hidden), wide = pad4(d.gates * d.hidden);
    const float* packed = scratch.packed(d, z);
    u64 of_units = u64(row) * units, of_gates = u64(row) * wide;
    return {scratch.gates(d, z) + of_gates,
            scratch.recurrent(d, z) + of_gates,
            scratch.before(d, z) + of_units,
            scratch.after(d, z) + of_units,
            scratch.cells(d, z) + of_units,
            packed,
            packed + scratch.packed_words(d) - cell::back_words(d.hidden, d.gates),
            body_of(d, a, s, z) + state_layer(d).bias,
            d.hidden,
            end,
            d.tile};
}

// Zeros in a matrix's rows of this block's tile from `begin` up to `end`; one block of a tile does so.
__device__ __forceinline__ void clear(const SequenceTdGradShape& d, float* matrix, u32 words, u32 begin, u32 end) {
    if (blockIdx.x * d.block % d.tile != 0) return;
    for (u64 at = u64(begin) * words + threadIdx.x; at < u64(end) * words; at += blockDim.x) matrix[at] = 0.0f;
}

extern "C" __global__ void __launch_bounds__(STEP_LANES, 1)
    sequence_td_grad_steps(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                           __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    u32 z = blockIdx.z;
    Scratch scratch(d, a, s);
    Block block(d, a, s, scratch);
    Unrolled y = unrolled(d, a, s, scratch, z, block.row, d.steps);
    // products with slopes of 0 must stay 0
    u32 tile = block.row / scratch.tile_rows * scratch.tile_rows, units = pad4(d.hidden);
    clear(d, scratch.before(d, z), units, tile + d.steps * d.tile, tile + scratch.tile_rows);
    clear(d, scratch.after(d, z), units, tile + d.steps * d.tile, tile + scratch.tile_rows);
    bool gru = d.gates == cell::GRU;
    if (d.block == 4) {
        gru ? steps_ahead<cell::GRU, 1>(y, block, shared) : steps_ahead<cell::LSTM, 1>(y, block, shared);
    } else {
        gru ? steps_ahead<cell::GRU, 2>(y, block, shared) : steps_ahead<cell::LSTM, 2>(y, block, shared);
    }
}

// Outputs of what follows the BESIDE rows of a block, by net z: those of another row, or of one step from there.
template <u32 GATES>
__device__ __forceinline__ void follow(const SequenceTdGradShape& d, const SequenceTdGradArgs& a, u32 s, u32 z,
                                       float* shared) {
    static_assert(BESIDE == cell::PARTS, "four lanes share a unit, and end with a row each");
    const u32 row = unit_row(BESIDE);
    Scratch scratch(d, a, s);
    u32 first = blockIdx.x * BESIDE, units = pad4(d.hidden), last = d.front.layers - 1;
    const u32* behind = scratch.behind() + first;
    const float* after = scratch.after(d, z);
    float* to = scratch.next(d, z) + u64(first) * units;
    bool aside = threadIdx.x < BESIDE && (behind[threadIdx.x] & 1);
    if (!__syncthreads_or(aside)) {
        for (u32 at = threadIdx.x; at < BESIDE * units; at += blockDim.x) {
            to[at] = after[u64(behind[at / units] >> 1) * units + at % units];
        }
        return;
    }

    // what the cells remember, and what they see
    u32 depth = pad4(seen_words(d));
    const float* seen = (last == 0 ? scratch.seen() : scratch.acts(d, z, last - 1)) + u64(scratch.rows + first) * depth;
    float* h = shared;
    float* x = shared + units * row;
    for (u32 at = threadIdx.x; at < BESIDE * units; at += blockDim.x) {
        h[at % units * row + at / units] = after[u64(behind[at / units] >> 1) * units + at % units];
    }
    for (u32 at = threadIdx.x; at < BESIDE * depth; at += blockDim.x) x[at % depth * row + at / depth] = seen[at];
    __syncthreads();

    u32 tasks = cell::PARTS * units, wide = pad4(GATES * d.hidden);
    const float* packed = scratch.packed(d, z);
    const float* of_input = packed + cell::ahead_words(d.hidden, d.hidden, GATES);
    const float* body = body_of(d, a, s, z);
    u32 input_bias = d.front.layer[last].bias, state_bias = state_layer(d).bias;
#pragma unroll 1
    for (u32 base = 0; base < tasks; base += blockDim.x) {
        // lanes without a unit go along with the first one and write nothing
        u32 task = base + threadIdx.x, part = task % cell::PARTS;
        bool live = task < tasks;
        u32 unit = live ? task / cell::PARTS : 0, word = min(unit, d.hidden - 1), column = cell::PARTS * unit + part;
        float in[GATES][1], got[GATES][1], gate[GATES], had[GATES];
        cell::Sums<GATES, 1> sums;
        sums.multiply(of_input + column, tasks, depth, x + part * row, row);
        sums.join(part, in);
        sums.multiply(packed + column, tasks, units, h + part * row, row);
        sums.join(part, got);
        u64 r = behind[part] >> 1;
        float old = h[unit * row + part], c = 0.0f;
        if (GATES == cell::LSTM) {
            // the cell after the step, which is kept nowhere where an episode ended
            const float* open = scratch.gates(d, z) + r * wide + word;
            c = fmaf(open[d.hidden], scratch.cells(d, z)[r * units + word], open[0] * open[2 * d.hidden]);
        }
#pragma unroll
        for (u32 g = 0; g < GATES; g++) {
            gate[g] = in[g][0] + __ldg(body + input_bias + g * d.hidden + word);
            had[g] = got[g][0] + __ldg(body + state_bias + g * d.hidden + word);
        }
        float out = cell::open<GATES>(gate, had, old, c);
        if (live) to[part * units + unit] = (behind[part] & 1) && unit < d.hidden ? out : old;
    }
}

extern "C" __global__ void __launch_bounds__(STEP_LANES, 1)
    sequence_td_grad_next(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                          __grid_constant__ const SequenceTdGradArgs a) {
    u32 s, z = blockIdx.z + (d.asks_itself ? 0 : 1);
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    d.gates == cell::GRU ? follow<cell::GRU>(d, a, s, z, shared) : follow<cell::LSTM>(d, a, s, z, shared);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_td_grad_losses(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                            __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 lane = threadIdx.x, row = blockIdx.x * layered::ROWS;
    u32 out_row = pad4(d.head.layer[0].output), words = layered::ROWS * out_row;
    // the net on the rows, then who is asked on what follows them
    u32 passes = 1 + (d.asks_itself ? 1 : 0) + (d.has_target ? 1 : 0);
    float* work = shared + passes * words;
#pragma unroll 1
    for (u32 pass = 0; pass < passes; pass++) {
        u32 z = pass == 0 || (pass == 1 && d.asks_itself) ? 0 : 1;
        const float* from = pass == 0 ? scratch.after(d, 0) : scratch.next(d, z);
        layered::head_rows<Product>(d.head.layer[0], params_of(a, s, z), from, pass == 0 ? scratch.row_of(d, row) : row,
                                    shared + pass * words, out_row, work, lane);
    }

    // a lane per row; rows that are not there have no slopes
    float sum = 0.0f;
    if (lane < layered::ROWS) {
        u32 tile = row / scratch.tile_learned, at = row % scratch.tile_learned + lane;
        u32 step = at / d.tile, place = tile * d.tile + at % d.tile;
        float* slopes = scratch.d_out(d) + u64(row + lane) * out_row;
        const float* out = shared + lane * out_row;
        if (step < d.learned && place < d.count) {
            u32 b = step * d.count + place;
            float value = value_of(d, false, 0.0f, out + words, out + (passes - 1) * words);
            sum = td_loss(d, a, s, b, d.start + d.burn_in * d.count + b, out, value, slopes, out_row);
        } else {
            for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
        }
    }
    sum = block_sum<layered::LANES>(sum, work, lane);
    if (lane == 0) scratch.losses(d)[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(STEP_LANES, 1)
    sequence_td_grad_back(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                          __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    Block block(d, a, s, scratch);
    Unrolled y = unrolled(d, a, s, scratch, 0, block.row, d.burn_in + d.learned);
    // what is behind the last step that is learned from has no slopes
    u32 first = scratch.first_learned(d, block.row / scratch.tile_rows), wide = pad4(d.gates * d.hidden);
    clear(d, scratch.gates(d, 0), wide, first + d.learned * d.tile, first + scratch.tile_learned);
    bool gru = d.gates == cell::GRU;
    if (gru) clear(d, scratch.recurrent(d, 0), wide, first + d.learned * d.tile, first + scratch.tile_learned);
    if (d.block == 4) {
        gru ? steps_back<cell::GRU, 1>(y, block, d.burn_in, shared)
            : steps_back<cell::LSTM, 1>(y, block, d.burn_in, shared);
    } else {
        gru ? steps_back<cell::GRU, 2>(y, block, d.burn_in, shared)
            : steps_back<cell::LSTM, 2>(y, block, d.burn_in, shared);
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_td_grad_weights(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                             __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 lane = threadIdx.x, blocks = gridDim.x / (scratch.rows / scratch.tile_rows);
    u32 tile = blockIdx.x / blocks, at_block = blockIdx.x % blocks;
    u32 row = scratch.first_learned(d, tile), row_of_learned = tile * scratch.tile_learned;

    // the tile's losses, from those of its rows; in the first pass
    bool first = d.layer + 1 == d.front.layers;
    if (first && at_block == 0) {
        const float* losses = scratch.losses(d) + row_of_learned / layered::ROWS;
        float sum = 0.0f;
        for (u32 i = 0; i < scratch.tile_learned / layered::ROWS; i++) sum += losses[i];
        write_losses(a.partial_loss.of(s) + tile * Sums::LOSSES, sum, lane);
    }

    // which layer's weights: with the last in front those of the state and of the head
    u32 l = d.layer, end = first ? l + 3 : l + 1, across;
    Layer y;
    for (;; l++) {
        if (l == end) return;
        y = l < d.front.layers ? d.front.layer[l] : l == d.front.layers ? state_layer(d) : d.head.layer[0];
        u32 tall = l + 1 < d.front.layers ? y.input : y.output;
        across = ((l + 1 < d.front.layers ? y.output : y.input) + Fused::WIDTH - 1) / Fused::WIDTH;
        u32 here = (tall + Fused::WIDTH - 1) / Fused::WIDTH * across;
        if (at_block < here) break;
        at_block -= here;
    }
    // its weight is [output, input] but in hidden layers, and the columns of slopes are the gradient of the bias
    bool turned = l + 1 >= d.front.layers, is_head = l > d.front.layers, is_state = l == d.front.layers;
    layered::Tile at = {at_block / across * Fused::WIDTH, at_block % across * Fused::WIDTH};
    const float* below = is_head ? scratch.after(d, 0) : is_state ? scratch.before(d, 0)
                         : l == 0 ? scratch.seen() : scratch.acts(d, 0, l - 1);
    const float* slopes = is_head ? scratch.d_out(d) : is_state ? scratch.recurrent(d, 0)
                          : turned ? scratch.gates(d, 0) : scratch.acts(d, 0, l);
    u32 below_row = pad4(y.input), slopes_row = pad4(y.output), at_sums = turned ? at.row : at.col;
    below += u64(row) * below_row;
    slopes += u64(is_head ? row_of_learned : row) * slopes_row;
    u32 params = d.head.params + d.front.params + d.gates * d.hidden * (d.hidden + 1);
    float* grad = a.partial.of(s) + u64(tile) * params + (is_head ? 0 : d.head.params);
    bool with_bias = (turned ? at.col : at.row) == 0;
    layered::gradient_tile<Product>(turned ? slopes : below, turned ? slopes_row : below_row,
                                    turned ? y.output : y.input, turned ? below : slopes,
                                    turned ? below_row : slopes_row, turned ? y.input : y.output, grad + y.weight, 0,
                                    scratch.tile_learned, at, with_bias ? grad + y.bias + at_sums : nullptr,
                                    layered::within(y.output, at_sums), turned, shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_td_grad_backward(__grid_constant__ const SequenceTdGradShape d, __grid_constant__ const Sessions sessions,
                              __grid_constant__ const SequenceTdGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / (scratch.learned / layered::ROWS), l = d.layer;
    layered::Tile at = {scratch.row_of(d, blockIdx.x / across * layered::ROWS), blockIdx.x % across * Fused::WIDTH};
    bool last = l + 1 == d.front.layers;
    float* below = scratch.acts(d, 0, l - 1);
    const float* before = scratch.unactivated(d, l - 1);
    layered::backward_tile<Product>(d.front.layer[l], last, d.front.activation, body_of(d, a, s, 0),
                                    last ? scratch.gates(d, 0) : scratch.acts(d, 0, l), pad4(d.front.layer[l].output),
                                    before != nullptr ? before : below, below, at, shared, threadIdx.x);
}
