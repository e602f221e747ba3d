// Gradient of one minibatch of whole sequences: forward through time, losses, back through time. Twin of
// src/op/sequence_grad.rs.
//
// Kernels in order: gather (observations, and packed matrices of the cell's state); forward, once per hidden layer in
// front of the cell; see, what the gates get from their inputs; steps, all T steps of the cell; losses; back, all T steps
// back; weights of head and cell; then for every hidden layer from the last: slopes at its units, weights. Actor and
// critic have bodies of their own and run side by side (z of the grid), a shared net has one.
//
// Environments go in tiles, each with its own rows of `partial`; a row of a tile is a step of one of its environments,
// steps one after the other, padded to whole blocks of 64 rows with slopes of 0. steps and back: a block takes 4 or 8
// environments of a tile, four lanes per unit of the cell; lib/sequences.cuh says what they are bound by. The others make
// tiles of 64 x 64 numbers in blocks of 128 lanes, as minibatch_grad_layered.cu does, bound by shared memory, then by the
// f32 units. Gates, states and slopes of all rows pass through scratch, once per kernel. Orders depend on shapes alone.

#include "lib/core.cuh"
#include "lib/layered.cuh"
#include "lib/minibatch.cuh"
#include "lib/sequences.cuh"

typedef layered::Single Product;

struct SequenceGradShape {
    // linear heads, and the layers in front of the cell, of which the last is its input's matrix
    Net actor;
    Net critic;
    Net front;
    Policy policy;
    // gates of a unit of the cell, and its units
    u32 gates;
    u32 hidden;
    u32 obs;
    // steps and environments of the rollout
    u32 t;
    u32 envs;
    // environments of the minibatch: place of the first one in `index`, and how many; of a tile, and of a block of it
    u32 first;
    u32 count;
    u32 tile;
    u32 block;
    u32 len;
    u32 minibatch;
    u32 clipped;
    u32 distance;
    float beta;
    u32 clip_value;
    u32 symlog;
    u32 normalize_targets;
    u32 one_sided;
    u32 normalize_obs;
    // of kernels that go layer by layer
    u32 layer;
};

struct SequenceGradArgs {
    Read<u32> index;            // [epochs * N]
    Read<float> moments;        // [minibatches, 2]
    Read<float> obs;            // [M, O]
    Read<float> normalizer;     // [2, O]
    Read<u32> ended;            // [M]
    Read<float> first_state;    // [N, S]
    Read<float> action;         // [M, A]
    Read<float> log_prob;       // [M]
    Read<float> value;          // [M + N]
    Read<float> advantage;      // [M]
    Read<float> returns;        // [M]
    Read<float> value_moments;  // [4]
    Read<float> hyper;          // [LEN + groups * GROUP_LEN]
    Read<float> schedule;       // [LEN + groups]
    Read<float> params;         // [P]
    Write<float> partial;       // [tiles, P]
    Write<float> partial_loss;  // [tiles, LOSSES]
    Update<float> scratch;
};

// Lanes of the blocks that go through time.
constexpr u32 STEP_LANES = 512;

// Parameters of a body: the layers in front, then the matrix of the state and its bias.
__device__ __forceinline__ u32 body_params(const SequenceGradShape& d) {
    return d.front.params + d.gates * d.hidden * (d.hidden + 1);
}

// One net: its head, and the body that it stands on.
struct Tower {
    Part part;
    const Net& head;
    // first parameter of the body
    u32 body;

    __device__ __forceinline__ Tower(const SequenceGradShape& d, u32 z)
        : part(d, z, body_params(d)), head(part.is_critic ? d.critic : d.actor) {
        body = part.offset + head.params + part.free;
    }
    // words from row to row of slopes at outputs
    __device__ __forceinline__ u32 out_row() const { return pad4(part.outputs + part.free); }
    // the matrix of the state, as a layer
    __device__ __forceinline__ Layer state(const SequenceGradShape& d) const {
        u32 rows = d.gates * d.hidden;
        return {d.hidden, rows, d.front.params, d.front.params + rows * d.hidden};
    }
};

// Parts of a session's scratch: observations; of each tower the activations of hidden layers and those before the
// activation where slopes need them, gates, what a GRU's gates got from the state, outputs before and after every step, an
// LSTM's cells, and slopes at the outputs; then the packed matrices of each; then losses of every block of rows.
struct Scratch {
    float* at;
    // rows of a tile, and of all tiles
    u32 tile_rows;
    u32 rows;

    __device__ __forceinline__ Scratch(const SequenceGradShape& d, const SequenceGradArgs& a, u32 s) {
        at = a.scratch.of(s);
        tile_rows = (d.t * d.tile + layered::ROWS - 1) / layered::ROWS * layered::ROWS;
        rows = (d.count + d.tile - 1) / d.tile * tile_rows;
    }

    __device__ __forceinline__ u32 units(const SequenceGradShape& d, u32 layers) const {
        u32 sum = 0;
        for (u32 l = 0; l < layers; l++) sum += pad4(d.front.layer[l].output);
        return sum;
    }
    // words per row before a tower's gates, and of a tower without its slopes at outputs
    __device__ __forceinline__ u32 hidden_words(const SequenceGradShape& d) const {
        return units(d, d.front.layers - 1) * (needs_input(d.front.activation) ? 2 : 1);
    }
    __device__ __forceinline__ u32 body_words(const SequenceGradShape& d) const {
        bool gru = d.gates == cell::GRU;
        return hidden_words(d) + pad4(d.gates * d.hidden) * (gru ? 2 : 1) + pad4(d.hidden) * (gru ? 2 : 3);
    }
    // words per row before tower z, 2 for the end
    __device__ __forceinline__ u32 skipped(const SequenceGradShape& d, u32 z) const {
        u32 words = pad4(d.obs);
        if (z > 0) words += body_words(d) + pad4(d.actor.layer[0].output + free_params(d.policy));
        if (z > 1 && d.critic.layers > 0) words += body_words(d) + pad4(d.critic.layer[0].output);
        return words;
    }

    __device__ __forceinline__ float* tower(const SequenceGradShape& d, u32 z) const {
        return at + u64(rows) * skipped(d, z);
    }
    // activations of layer l, from 0; before the activation
    __device__ __forceinline__ float* acts(const SequenceGradShape& d, u32 z, u32 l) const {
        return tower(d, z) + u64(rows) * units(d, l);
    }
    __device__ __forceinline__ float* unactivated(const SequenceGradShape& d, u32 z, u32 l) const {
        if (!needs_input(d.front.activation)) return nullptr;
        return acts(d, z, d.front.layers - 1) + u64(rows) * units(d, l);
    }
    __device__ __forceinline__ float* gates(const SequenceGradShape& d, u32 z) const {
        return tower(d, z) + u64(rows) * hidden_words(d);
    }
    // slopes at what the gates got from the state: an LSTM's are those at what they got from the input
    __device__ __forceinline__ float* recurrent(const SequenceGradShape& d, u32 z) const {
        return gates(d, z) + (d.gates == cell::GRU ? u64(rows) * pad4(d.gates * d.hidden) : 0);
    }
    __device__ __forceinline__ float* before(const SequenceGradShape& d, u32 z) const {
        return recurrent(d, z) + u64(rows) * pad4(d.gates * d.hidden);
    }
    __device__ __forceinline__ float* after(const SequenceGradShape& d, u32 z) const {
        return before(d, z) + u64(rows) * pad4(d.hidden);
    }
    __device__ __forceinline__ float* d_out(const SequenceGradShape& d, u32 z) const {
        return tower(d, z) + u64(rows) * body_words(d);
    }
    __device__ __forceinline__ float* packed(const SequenceGradShape& d, u32 z) const {
        u32 words = cell::ahead_words(d.hidden, d.hidden, d.gates) + cell::back_words(d.hidden, d.gates);
        return tower(d, 2) + z * words;
    }
    __device__ __forceinline__ float* losses(const SequenceGradShape& d) const {
        return packed(d, d.critic.layers > 0 ? 2 : 1);
    }
};

// The environment at a place of the minibatch; places behind the last one repeat it.
__device__ __forceinline__ u32 env_at(const SequenceGradShape& d, const SequenceGradArgs& a, u32 s, u32 place) {
    return a.index.of(s)[d.first + min(place, d.count - 1)];
}

extern "C" __global__ void __launch_bounds__(128)
    sequence_grad_gather(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                         __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    Scratch scratch(d, a, s);
    u32 blocks = scratch.rows / layered::ROWS, lane = threadIdx.x;
    if (blockIdx.x >= blocks) {
        u32 lanes = (gridDim.x - blocks) * layered::LANES, mine = (blockIdx.x - blocks) * layered::LANES + lane;
        for (u32 z = 0; z < (d.critic.layers > 0 ? 2 : 1); z++) {
            const float* weight = a.params.of(s) + Tower(d, z).body + d.front.params;
            float* ahead = scratch.packed(d, z);
            cell::pack_ahead(weight, d.hidden, d.hidden, d.gates, ahead, mine, lanes);
            cell::pack_back(weight, d.hidden, d.gates, ahead + cell::ahead_words(d.hidden, d.hidden, d.gates), mine,
                            lanes);
        }
        return;
    }

    // rows of environments that are not there hold some other's numbers, and rows behind the last step zeros
    __shared__ u32 index[layered::ROWS];
    u32 row = blockIdx.x * layered::ROWS, tile = row / scratch.tile_rows, first = row % scratch.tile_rows;
    u32 left = first < d.t * d.tile ? d.t * d.tile - first : 0, rows = min(left, layered::ROWS), x_row = pad4(d.obs);
    if (lane < rows) {
        u32 step = (first + lane) / d.tile, e = (first + lane) % d.tile;
        index[lane] = step * d.envs + env_at(d, a, s, tile * d.tile + e);
    }
    __syncthreads();
    gather_obs<layered::ROWS, layered::LANES>(d, a, s, index, rows, scratch.at + u64(row) * x_row, x_row, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_grad_forward(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                          __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), z = blockIdx.z, l = d.layer;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    const float* from = l == 0 ? scratch.at : scratch.acts(d, z, l - 1);
    layered::forward_tile<Product>(d.front.layer[l], d.front.activation, a.params.of(s) + Tower(d, z).body, from,
                                   scratch.acts(d, z, l), scratch.unactivated(d, z, l), at, shared, threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_grad_see(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                      __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), z = blockIdx.z, last = d.front.layers - 1;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    const float* from = last == 0 ? scratch.at : scratch.acts(d, z, last - 1);
    layered::linear_tile<Product>(d.front.layer[last], a.params.of(s) + Tower(d, z).body, from, scratch.gates(d, z), at,
                                  shared, threadIdx.x);
}

// A block's environments of one tower.
struct Block {
    const SequenceGradShape& d;
    // of the first environment: the place in the minibatch, and the row in scratch
    u32 place;
    u32 row;
    const u32* index;
    const u32* ended;
    // of the tower
    const float* states;
    u32 state_words;
    const float* d_out;
    u32 out_row;
    u32 outputs;
    const float* head;

    __device__ __forceinline__ Block(const SequenceGradShape& d, const SequenceGradArgs& a, u32 s,
                                     const Scratch& scratch, const Tower& tower, u32 z)
        : d(d) {
        place = blockIdx.x * d.block;
        row = place / d.tile * scratch.tile_rows + place % d.tile;
        index = a.index.of(s) + d.first + place;
        ended = a.ended.of(s);
        u32 words = d.hidden * (d.gates == cell::LSTM ? 2 : 1);
        state_words = words * (d.critic.layers > 0 ? 2 : 1);
        states = a.first_state.of(s) + z * words;
        out_row = tower.out_row();
        d_out = scratch.d_out(d, z) + u64(row) * out_row;
        outputs = tower.part.outputs;
        head = a.params.of(s) + tower.part.offset;
    }

    __device__ __forceinline__ const float* first(u32 e) const {
        return place + e < d.count ? states + u64(index[e]) * state_words : nullptr;
    }
    __device__ __forceinline__ bool goes_on(u32 step, u32 e) const {
        return place + e < d.count && ended[u64(step) * d.envs + index[e]] == 0;
    }
    __device__ __forceinline__ float slope(u32 step, u32 e, u32 unit) const {
        const float* slopes = d_out + u64(step * d.tile + e) * out_row;
        float sum = 0.0f;
#pragma unroll 1
        for (u32 o = 0; o < outputs; o++) sum = fmaf(slopes[o], __ldg(head + o * d.hidden + unit), sum);
        return sum;
    }
};

__device__ __forceinline__ Unrolled unrolled(const SequenceGradShape& d, const SequenceGradArgs& a, u32 s,
                                             const Scratch& scratch, const Tower& tower, u32 z, u32 row) {
    u32 units = pad4(d.hidden), wide = pad4(d.gates * d.hidden);
    const float* packed = scratch.packed(d, z);
    float* after = scratch.after(d, z) + u64(row) * units;
    return {scratch.gates(d, z) + u64(row) * wide,
            scratch.recurrent(d, z) + u64(row) * wide,
            scratch.before(d, z) + u64(row) * units,
            after,
            after + u64(scratch.rows) * units,
            packed,
            packed + cell::ahead_words(d.hidden, d.hidden, d.gates),
            a.params.of(s) + tower.body + tower.state(d).bias,
            d.hidden,
            d.t,
            d.tile};
}

// Zeros in a matrix's rows of this block's tile behind the last step; one block of a tile does so.
__device__ __forceinline__ void clear_behind(const SequenceGradShape& d, const Scratch& scratch, float* matrix,
                                             u32 words) {
    if (blockIdx.x * d.block % d.tile != 0) return;
    u32 begin = d.t * d.tile, row = blockIdx.x * d.block / d.tile * scratch.tile_rows;
    float* to = matrix + u64(row + begin) * words;
    for (u32 at = threadIdx.x; at < (scratch.tile_rows - begin) * words; at += blockDim.x) to[at] = 0.0f;
}

extern "C" __global__ void __launch_bounds__(STEP_LANES, 1)
    sequence_grad_steps(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                        __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    u32 z = blockIdx.z;
    Scratch scratch(d, a, s);
    Tower tower(d, z);
    Block block(d, a, s, scratch, tower, z);
    Unrolled y = unrolled(d, a, s, scratch, tower, z, block.row);
    // products with slopes of 0 must stay 0
    clear_behind(d, scratch, scratch.before(d, z), pad4(d.hidden));
    clear_behind(d, scratch, scratch.after(d, z), pad4(d.hidden));
    bool gru = d.gates == cell::GRU;
    if (d.block == 4) {
        gru ? steps_ahead<cell::GRU, 1>(y, block, shared) : steps_ahead<cell::LSTM, 1>(y, block, shared);
    } else {
        gru ? steps_ahead<cell::GRU, 2>(y, block, shared) : steps_ahead<cell::LSTM, 2>(y, block, shared);
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_grad_losses(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                         __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    u32 z = blockIdx.z, lane = threadIdx.x, row = blockIdx.x * layered::ROWS;
    Scratch scratch(d, a, s);
    Tower tower(d, z);
    const Part& part = tower.part;
    const float* params = a.params.of(s) + part.offset;
    u32 out_row = tower.out_row();
    Numbers* numbers = reinterpret_cast<Numbers*>(shared);
    load_numbers(d, a, s, numbers, lane);
    float* out = shared + sizeof(Numbers) / 4;
    float* work = out + layered::ROWS * out_row;
    layered::head_rows<Product>(tower.head.layer[0], params, scratch.after(d, z), row, out, out_row, work, lane);

    // a lane per row; rows that are not there have no slopes
    LossSums sums = {};
    if (lane < layered::ROWS) {
        u32 tile = row / scratch.tile_rows, at = row % scratch.tile_rows + lane;
        u32 step = at / d.tile, place = tile * d.tile + at % d.tile;
        float* slopes = scratch.d_out(d, z) + u64(row + lane) * out_row;
        if (step < d.t && place < d.count) {
            u32 m = step * d.envs + env_at(d, a, s, place);
            row_losses(d, a, s, part, *numbers, params, m, out + lane * out_row, slopes, out_row, sums);
        } else {
            for (u32 j = 0; j < out_row; j++) slopes[j] = 0.0f;
        }
    }
#pragma unroll
    for (u32 c = 0; c < Sums::LOSSES; c++) {
        float sum = block_sum<layered::LANES>(sums.at[c], work, lane);
        if (lane == 0 && part.owns(c)) scratch.losses(d)[blockIdx.x * Sums::LOSSES + c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(STEP_LANES, 1)
    sequence_grad_back(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                       __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    u32 z = blockIdx.z;
    Scratch scratch(d, a, s);
    Tower tower(d, z);
    Block block(d, a, s, scratch, tower, z);
    Unrolled y = unrolled(d, a, s, scratch, tower, z, block.row);
    clear_behind(d, scratch, scratch.gates(d, z), pad4(d.gates * d.hidden));
    clear_behind(d, scratch, scratch.recurrent(d, z), pad4(d.gates * d.hidden));
    bool gru = d.gates == cell::GRU;
    if (d.block == 4) {
        gru ? steps_back<cell::GRU, 1>(y, block, 0, shared) : steps_back<cell::LSTM, 1>(y, block, 0, shared);
    } else {
        gru ? steps_back<cell::GRU, 2>(y, block, 0, shared) : steps_back<cell::LSTM, 2>(y, block, 0, shared);
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_grad_weights(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                          __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    u32 z = blockIdx.z, lane = threadIdx.x;
    Scratch scratch(d, a, s);
    Tower tower(d, z);
    const Part& part = tower.part;
    u32 tiles = scratch.rows / scratch.tile_rows, blocks = gridDim.x / tiles;
    u32 tile = blockIdx.x / blocks, block = blockIdx.x % blocks, row = tile * scratch.tile_rows;

    // the tile's losses, from those of its rows; in the first pass
    bool first = d.layer + 1 == d.front.layers;
    if (first && block == 0 && z == 0 && lane < Sums::LOSSES) {
        float sum = 0.0f;
        for (u32 i = row / layered::ROWS; i < (row + scratch.tile_rows) / layered::ROWS; i++) {
            sum += scratch.losses(d)[i * Sums::LOSSES + lane];
        }
        a.partial_loss.of(s)[tile * Sums::LOSSES + lane] = sum;
    }

    // which layer's weights: with the last in front those of the state and of the head
    u32 l = d.layer, end = first ? l + 3 : l + 1, at_block = block, across;
    Layer y;
    for (;; l++) {
        if (l == end) return;
        y = l < d.front.layers ? d.front.layer[l] : l == d.front.layers ? tower.state(d) : tower.head.layer[0];
        u32 tall = l + 1 < d.front.layers ? y.input : y.output + (l > d.front.layers ? part.free : 0);
        across = ((l + 1 < d.front.layers ? y.output : y.input) + Fused::WIDTH - 1) / Fused::WIDTH;
        u32 here = (tall + Fused::WIDTH - 1) / Fused::WIDTH * across;
        if (at_block < here) break;
        at_block -= here;
    }
    // its weight is [output, input], and so are the columns of slopes whose sums are the gradient of the bias, and of free
    // parameters behind it
    bool turned = l + 1 >= d.front.layers, is_head = l > d.front.layers, is_state = l == d.front.layers;
    u32 sums = y.output + (is_head ? part.free : 0);
    layered::Tile at = {at_block / across * Fused::WIDTH, at_block % across * Fused::WIDTH};
    const float* below = is_head ? scratch.after(d, z) : is_state ? scratch.before(d, z)
                         : l == 0 ? scratch.at : scratch.acts(d, z, l - 1);
    const float* slopes = is_head ? scratch.d_out(d, z) : is_state ? scratch.recurrent(d, z)
                          : turned ? scratch.gates(d, z) : scratch.acts(d, z, l);
    u32 below_row = pad4(y.input), slopes_row = pad4(sums), at_sums = turned ? at.row : at.col;
    float* grad = a.partial.of(s) + u64(tile) * part.params + (is_head ? part.offset : tower.body);
    bool with_bias = (turned ? at.col : at.row) == 0;
    layered::gradient_tile<Product>(turned ? slopes : below, turned ? slopes_row : below_row,
                                    turned ? y.output : y.input, turned ? below : slopes,
                                    turned ? below_row : slopes_row, turned ? y.input : y.output, grad + y.weight, row,
                                    scratch.tile_rows, at, with_bias ? grad + y.bias + at_sums : nullptr,
                                    layered::within(sums, at_sums), turned, shared, lane);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    sequence_grad_backward(__grid_constant__ const SequenceGradShape d, __grid_constant__ const Sessions sessions,
                           __grid_constant__ const SequenceGradArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    DYN_SHARED(float, shared);
    Scratch scratch(d, a, s);
    u32 across = gridDim.x / (scratch.rows / layered::ROWS), z = blockIdx.z, l = d.layer;
    layered::Tile at = {blockIdx.x / across * layered::ROWS, blockIdx.x % across * Fused::WIDTH};
    bool last = l + 1 == d.front.layers;
    float* below = scratch.acts(d, z, l - 1);
    const float* before = scratch.unactivated(d, z, l - 1);
    const float* slopes = last ? scratch.gates(d, z) : scratch.acts(d, z, l);
    layered::backward_tile<Product>(d.front.layer[l], last, d.front.activation, a.params.of(s) + Tower(d, z).body, slopes,
                                    pad4(d.front.layer[l].output), before != nullptr ? before : below, below, at, shared,
                                    threadIdx.x);
}
