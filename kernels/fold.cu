// CrossQ's critics in evaluation mode: scale, shift and running moments of every hidden unit folded into weights and
// biases. Twin of src/op/fold.rs.
//
// A lane per parameter of a plain critic, the two critics side by side (z of the grid): 4 words read, one written, a
// root and a division each; bound by the launch. No order to keep.

#include "lib/core.cuh"
#include "lib/renorm.cuh"

struct FoldShape {
    // where the first critic begins
    u32 at;
    // the normalized net, and the same net with the offsets of a plain one
    Net critic;
    Net plain;
    float eps;
};

struct FoldArgs {
    Read<float> params;    // [P]
    Read<float> norm;      // [2, norms]
    Write<float> target;   // [2, plain]
    Update<float> scratch;
};

constexpr u32 THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
    fold(__grid_constant__ const FoldShape d, __grid_constant__ const Sessions sessions,
         __grid_constant__ const FoldArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    u32 p = blockIdx.x * THREADS + threadIdx.x;
    if (p >= d.plain.params) return;
    u32 l = 0, unit = 0;
    while (l + 1 < d.plain.layers && p >= d.plain.layer[l + 1].weight) unit += d.plain.layer[l++].output;
    const Layer& from = d.critic.layer[l];
    const Layer& to = d.plain.layer[l];
    const float* params = a.params.of(s) + d.at + blockIdx.z * d.critic.params;
    const float* norm = a.norm.of(s) + blockIdx.z * 2 * renorm::units(d.critic);
    bool is_bias = p >= to.bias;
    u32 i = p - (is_bias ? to.bias : to.weight), o = is_bias ? i : i % to.output;
    float x = params[(is_bias ? from.bias : from.weight) + i];
    if (l + 1 < d.plain.layers) {
        float factor = params[renorm::scale(from) + o] / sqrtf(norm[renorm::units(d.critic) + unit + o] + d.eps);
        x = is_bias ? (x - norm[unit + o]) * factor + params[renorm::shift(from) + o] : x * factor;
    }
    a.target.of(s)[blockIdx.z * d.plain.params + p] = x;
}
