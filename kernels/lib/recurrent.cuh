// Gated cells on the environments of a block: products of a state with the cell's matrices, what the gates let through,
// and the way back. Twin of src/op/lib/recurrent.rs: the same formulas, fused where the AVX variants fuse.
//
// Four lanes share a unit and go through all of its gates for 4 or 8 rows: each sums over every fourth input, then
// they hand their sums around so that each ends with every fourth row, whose gates it opens. Neighboring lanes read
// neighboring words of a packed matrix, once per block and step, through the caches; a state is [units, unit_row] in
// shared memory, of which a lane takes four rows with one load. Sums run over a lane's inputs in order, then in a tree.
#pragma once

#include "activation.cuh"
#include "ahead.cuh"

namespace cell {

// Gates of a unit.
constexpr u32 GRU = 3, LSTM = 4;
// Lanes that share a unit.
constexpr u32 PARTS = 4;

// Words of a packed matrix `[gates hidden, depth]` for the way ahead, and of one `[gates hidden, hidden]` for the way back.
__device__ __forceinline__ u32 ahead_words(u32 depth, u32 hidden, u32 gates) {
    return whole4(depth) * gates * whole4(hidden);
}
__device__ __forceinline__ u32 back_words(u32 hidden, u32 gates) { return whole4(gates * hidden) * whole4(hidden); }

// Packs a matrix: the four lanes' inputs of a unit lie side by side, then the units, the gates, the fours of inputs.
// Zeros where there is no such unit or input. `lane` counts `lanes` lanes from 0. No barrier.
__device__ __forceinline__ void pack_ahead(const float* weight, u32 depth, u32 hidden, u32 gates, float* to, u32 lane,
                                           u32 lanes) {
    u32 units = whole4(hidden), words = ahead_words(depth, hidden, gates);
#pragma unroll 1
    for (u32 at = lane; at < words; at += lanes) {
        u32 unit = at / PARTS % units, four = at / PARTS / units, gate = four % gates;
        u32 k = four / gates * PARTS + at % PARTS;
        to[at] = k < depth && unit < hidden ? weight[(gate * hidden + unit) * depth + k] : 0.0f;
    }
}

// The same for the way back, whose inputs are the gates.
__device__ __forceinline__ void pack_back(const float* weight, u32 hidden, u32 gates, float* to, u32 lane, u32 lanes) {
    u32 units = whole4(hidden), words = back_words(hidden, gates);
#pragma unroll 1
    for (u32 at = lane; at < words; at += lanes) {
        u32 unit = at / PARTS % units, g = at / PARTS / units * PARTS + at % PARTS;
        to[at] = g < gates * hidden && unit < hidden ? weight[g * hidden + unit] : 0.0f;
    }
}

// One lane's sums of COLUMNS columns and QUADS quads of rows.
template <u32 COLUMNS, u32 QUADS>
struct Sums {
    float at[COLUMNS][4 * QUADS];

    // Adds the products of `depth` inputs, whole fours, of which this lane takes every fourth; `weights` and `from` begin
    // with its first one, columns lie `next` words apart.
    __device__ __forceinline__ void multiply(const float* weights, u32 next, u32 depth, const float* from, u32 row) {
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) {
#pragma unroll
            for (u32 i = 0; i < 4 * QUADS; i++) at[c][i] = 0.0f;
        }
#pragma unroll(QUADS == 1 ? 4 : 2)
        for (u32 k = 0; k < depth; k += PARTS) {
            float weight[COLUMNS];
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) weight[c] = __ldg(weights + c * next);
#pragma unroll
            for (u32 q = 0; q < QUADS; q++) {
                float4 x = *reinterpret_cast<const float4*>(from + 4 * q);
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++) {
                    at[c][4 * q] = fmaf(x.x, weight[c], at[c][4 * q]);
                    at[c][4 * q + 1] = fmaf(x.y, weight[c], at[c][4 * q + 1]);
                    at[c][4 * q + 2] = fmaf(x.z, weight[c], at[c][4 * q + 2]);
                    at[c][4 * q + 3] = fmaf(x.w, weight[c], at[c][4 * q + 3]);
                }
            }
            weights += COLUMNS * next;
            from += PARTS * row;
        }
    }

    // Sums over the four lanes; this one, the `part`-th, gets those of row `part` of every quad. All lanes of the warp.
    __device__ __forceinline__ void join(u32 part, float (&joined)[COLUMNS][QUADS]) const {
        bool high = part & 2, odd = part & 1;
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) {
#pragma unroll
            for (u32 q = 0; q < QUADS; q++) {
                const float* four = &at[c][4 * q];
                float first = high ? four[2] : four[0], second = high ? four[3] : four[1];
                first += __shfl_xor_sync(~0u, high ? four[0] : four[2], 2);
                second += __shfl_xor_sync(~0u, high ? four[1] : four[3], 2);
                float mine = odd ? second : first;
                joined[c][q] = mine + __shfl_xor_sync(~0u, odd ? first : second, 1);
            }
        }
    }
};

// One unit of one row ahead: `gate` holds what the gates get from the input and becomes what they let through, `got` is
// what they get from the state. `c` goes from before the step to after it. Returns the output.
template <u32 GATES>
__device__ __forceinline__ float open(float (&gate)[GATES], const float (&got)[GATES], float h, float& c) {
    gate[0] = sigmoid(gate[0] + got[0]);
    gate[1] = sigmoid(gate[1] + got[1]);
    if constexpr (GATES == GRU) {
        gate[2] = tanh_ratio(fmaf(gate[0], got[2], gate[2]));
        return fmaf(gate[1], h - gate[2], gate[2]);
    } else {
        gate[2] = tanh_ratio(gate[2] + got[2]);
        gate[3] = sigmoid(gate[3] + got[3]);
        c = fmaf(gate[1], c, gate[0] * gate[2]);
        return gate[3] * tanh_ratio(c);
    }
}

// The way back through `open`: `gate` becomes the slopes at what the gates got from the input, `got` those at what they got
// from the state; of the state before, `kept` is `h` or an LSTM's `c`. `d` and `d_c` go from the slopes at the state after
// the step to those before it, but for what went through the state's matrix. `new_got`: what the GRU's last gate got.
template <u32 GATES>
__device__ __forceinline__ void close(float (&gate)[GATES], float (&got)[GATES], float new_got, float kept, float& d,
                                      float& d_c) {
    if constexpr (GATES == GRU) {
        float reset = gate[0], update = gate[1], fresh = gate[2];
        float d_new = d * (1.0f - update) * (1.0f - fresh * fresh);
        gate[0] = d_new * new_got * (reset * (1.0f - reset));
        gate[1] = d * (kept - fresh) * (update * (1.0f - update));
        gate[2] = d_new;
        got[0] = gate[0], got[1] = gate[1], got[2] = d_new * reset;
        d *= update;
    } else {
        float open = gate[0], keep = gate[1], fresh = gate[2], shown = gate[3];
        float squashed = tanh_ratio(fmaf(keep, kept, open * fresh));
        float d_cell = d_c + d * shown * (1.0f - squashed * squashed);
        gate[0] = d_cell * fresh * (open * (1.0f - open));
        gate[1] = d_cell * kept * (keep * (1.0f - keep));
        gate[2] = d_cell * open * (1.0f - fresh * fresh);
        gate[3] = d * squashed * (shown * (1.0f - shown));
#pragma unroll
        for (u32 g = 0; g < GATES; g++) got[g] = gate[g];
        d = 0.0f;
        d_c = d_cell * keep;
    }
}

}  // namespace cell
