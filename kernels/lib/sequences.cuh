// Sequences of a block through a recurrent body, step by step: forward from given states, and back. Twin of the loops in
// src/op/sequence_grad.rs. What does not depend on a state (what the gates get from their inputs, gradients of weights) is
// computed for all steps at once elsewhere.
//
// Row `step * tile + e` of a matrix in scratch is step `step` of sequence `e` of the block. A step forward has one barrier,
// one back two. Per step, row and unit: a multiply-add per gate and unit of the state, GATES + 4 words to L2 or device
// memory; bound by the latency of a step while blocks are few, then by loads of weights from the caches.
#pragma once

#include "recurrent.cuh"

// What a block has of one body.
struct Unrolled {
    // what the gates get from their inputs [rows, whole4(G)], then what they let through, then the slopes at what they got
    float* gates;
    // a GRU's slopes at what the gates got from the state; before the way back, of its last gate, what it got
    float* recurrent;
    // outputs before and after every step, an LSTM's cells before it [rows, whole4(H)]
    float* before;
    float* after;
    float* cells;
    // the packed matrices of the state, and its bias
    const float* ahead;
    const float* back;
    const float* bias;
    u32 hidden;
    u32 steps;
    u32 tile;
};

// All steps forward. S: `first(e)` is the state before the first step of sequence e, null where there is none, and
// `goes_on(step, e)` whether its episode does after a step.
template <u32 GATES, u32 QUADS, class S>
__device__ __forceinline__ void steps_ahead(const Unrolled& y, const S& source, float* shared) {
    const u32 row = unit_row(4 * QUADS);
    u32 units = whole4(y.hidden), wide = whole4(GATES * y.hidden), tasks = cell::PARTS * units;
    float* h = shared;
    float* c = shared + 2 * units * row;
#pragma unroll 1
    for (u32 task = threadIdx.x; task < tasks; task += blockDim.x) {
        u32 unit = task / cell::PARTS;
        for (u32 e = task % cell::PARTS; e < 4 * QUADS; e += 4) {
            const float* first = source.first(e);
            bool there = first != nullptr && unit < y.hidden;
            h[unit * row + e] = there ? first[unit] : 0.0f;
            if (GATES == cell::LSTM) c[unit * row + e] = there ? first[y.hidden + unit] : 0.0f;
        }
    }
    __syncthreads();
#pragma unroll 1
    for (u32 step = 0; step < y.steps; step++) {
        const float* from = h + (step & 1) * units * row;
        float* to = h + (~step & 1) * units * row;
#pragma unroll 1
        for (u32 base = 0; base < tasks; base += blockDim.x) {
            // lanes without a unit go along with the first one and write nothing
            u32 task = base + threadIdx.x, part = task % cell::PARTS;
            bool live = task < tasks;
            u32 unit = live ? task / cell::PARTS : 0, word = min(unit, y.hidden - 1);
            float in[GATES][QUADS], got[GATES][QUADS];
            bool goes_on[QUADS];
#pragma unroll
            for (u32 q = 0; q < QUADS; q++) {
                const float* gates = y.gates + u64(step * y.tile + 4 * q + part) * wide + word;
#pragma unroll
                for (u32 g = 0; g < GATES; g++) in[g][q] = gates[g * y.hidden];
                goes_on[q] = source.goes_on(step, 4 * q + part);
            }
            cell::Sums<GATES, QUADS> sums;
            sums.multiply(y.ahead + cell::PARTS * unit + part, cell::PARTS * units, units, from + part * row, row);
            sums.join(part, got);
#pragma unroll
            for (u32 q = 0; q < QUADS; q++) {
                u32 at = unit * row + 4 * q + part;
                u64 r = step * y.tile + 4 * q + part;
                float gate[GATES], had[GATES];
#pragma unroll
                for (u32 g = 0; g < GATES; g++) {
                    gate[g] = in[g][q];
                    had[g] = got[g][q] + __ldg(y.bias + g * y.hidden + word);
                }
                float old = from[at], kept = GATES == cell::LSTM && live ? c[at] : 0.0f, now = kept;
                float out = cell::open<GATES>(gate, had, old, now);
                if (!live) continue;
                bool there = unit < y.hidden;
                if (there) {
#pragma unroll
                    for (u32 g = 0; g < GATES; g++) y.gates[r * wide + g * y.hidden + unit] = gate[g];
                    if (GATES == cell::GRU) y.recurrent[r * wide + 2 * y.hidden + unit] = had[2];
                }
                y.before[r * units + unit] = old;
                y.after[r * units + unit] = there ? out : 0.0f;
                to[at] = there && goes_on[q] ? out : 0.0f;
                if (GATES == cell::LSTM) {
                    y.cells[r * units + unit] = kept;
                    c[at] = there && goes_on[q] ? now : 0.0f;
                }
            }
        }
        __syncthreads();
    }
}

// The steps from the last one back to step `begin`. S as above; `slope(step, e, unit)` is the slope of the losses at an
// output.
template <u32 GATES, u32 QUADS, class S>
__device__ __forceinline__ void steps_back(const Unrolled& y, const S& source, u32 begin, float* shared) {
    const u32 row = unit_row(4 * QUADS);
    u32 units = whole4(y.hidden), all = GATES * y.hidden, wide = whole4(all), tasks = cell::PARTS * units;
    // slopes at what the gates got from the state, of this step; at the state behind it
    float* d_got = shared;
    float* d_h = shared + wide * row;
    float* d_c = d_h + units * row;
#pragma unroll 1
    for (u32 at = threadIdx.x; at < (GATES == cell::LSTM ? 2 : 1) * units * row; at += blockDim.x) d_h[at] = 0.0f;
    for (u32 at = all * row + threadIdx.x; at < wide * row; at += blockDim.x) d_got[at] = 0.0f;
    __syncthreads();
#pragma unroll 1
    for (u32 step = y.steps; step-- > begin;) {
#pragma unroll 1
        for (u32 task = threadIdx.x; task < cell::PARTS * y.hidden; task += blockDim.x) {
            u32 unit = task / cell::PARTS;
            for (u32 e = task % cell::PARTS; e < 4 * QUADS; e += 4) {
                u32 at = unit * row + e;
                u64 r = step * y.tile + e;
                bool goes_on = source.goes_on(step, e);
                float d = (goes_on ? d_h[at] : 0.0f) + source.slope(step, e, unit);
                float d_cell = GATES == cell::LSTM && goes_on ? d_c[at] : 0.0f;
                float gate[GATES], got[GATES];
#pragma unroll
                for (u32 g = 0; g < GATES; g++) gate[g] = y.gates[r * wide + g * y.hidden + unit];
                float new_got = GATES == cell::GRU ? y.recurrent[r * wide + 2 * y.hidden + unit] : 0.0f;
                float kept = (GATES == cell::GRU ? y.before : y.cells)[r * units + unit];
                cell::close<GATES>(gate, got, new_got, kept, d, d_cell);
#pragma unroll
                for (u32 g = 0; g < GATES; g++) {
                    y.gates[r * wide + g * y.hidden + unit] = gate[g];
                    if (GATES == cell::GRU) y.recurrent[r * wide + g * y.hidden + unit] = got[g];
                    d_got[(g * y.hidden + unit) * row + e] = got[g];
                }
                d_h[at] = d;
                if (GATES == cell::LSTM) d_c[at] = d_cell;
            }
        }
        __syncthreads();
        // what went through the state's matrix; nothing asks for the slopes before the first of these steps
        if (step == begin) return;
#pragma unroll 1
        for (u32 base = 0; base < tasks; base += blockDim.x) {
            u32 task = base + threadIdx.x, part = task % cell::PARTS;
            u32 unit = task < tasks ? task / cell::PARTS : 0;
            cell::Sums<1, QUADS> sums;
            float joined[1][QUADS];
            sums.multiply(y.back + cell::PARTS * unit + part, cell::PARTS * units, wide, d_got + part * row, row);
            sums.join(part, joined);
            if (task >= tasks) continue;
#pragma unroll
            for (u32 q = 0; q < QUADS; q++) d_h[unit * row + 4 * q + part] += joined[0][q];
        }
        __syncthreads();
    }
}
