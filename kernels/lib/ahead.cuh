// What the two ways of sending rows through an agent's nets share: agent.cuh in f32, agent_bf16.cuh on matrix units.
#pragma once

#include "core.cuh"

__device__ __forceinline__ u32 whole4(u32 words) { return (words + 3) & ~3u; }

// Words from unit to unit of outputs, and of f32 activations, of `rows` rows.
__device__ __forceinline__ u32 unit_row(u32 rows) { return rows + 4; }

// One net on its way ahead.
struct Ahead {
    // packed words of the layer that comes next
    const float* weights;
    // what the layer reads: the observations, then one of the two buffers
    const float* from;
    // two buffers of `wide` units, written by turns
    float* buffers;
    u32 wide;
    // outputs, [units, unit_row], always f32
    float* out;
    // layers that it goes through, 0 where the net rests
    u32 layers;
};
