// Activations of hidden units and their slopes. Twin of `activate_body` and `slope_body` in src/op/lib/mlp.rs: the same
// formulas, fused where the AVX variants fuse; only the division of tanh is the hardware's (see `inverse`).
#pragma once

#include "core.cuh"
#include "trig.cuh"

// 1 / q within one ulp, for normal q: the hardware's approximation and one step of Newton's method, a third of the
// instructions of an IEEE division, which would be the largest part of tanh.
__device__ __forceinline__ float inverse(float q) {
#ifdef CUDA_CPU_SIM
    return 1.0f / q;
#else
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(q));
    return fmaf(fmaf(-q, r, 1.0f), r, r);
#endif
}

// `x` held within [-bound, bound] in two instructions; keeps NaN, as a fault must be seen.
__device__ __forceinline__ float hold(float x, float bound) {
#ifdef CUDA_CPU_SIM
    x = x < -bound ? -bound : x;
    return x > bound ? bound : x;
#else
    asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(-bound));
    asm("min.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(bound));
    return x;
#endif
}

// tanh as the rational function of Eigen's `ptanh` (coefficients from there).
__device__ __forceinline__ float tanh_ratio(float x) {
    x = hold(x, 7.905311f);
    float z = x * x;
    float p = fmaf(z, -2.7607685e-16f, 2.0001879e-13f);
    p = fmaf(z, p, -8.604672e-11f);
    p = fmaf(z, p, 5.1222971e-8f);
    p = fmaf(z, p, 1.4857224e-5f);
    p = fmaf(z, p, 6.3726193e-4f);
    p = fmaf(z, p, 4.8935246e-3f);
    float q = fmaf(z, 1.1982584e-6f, 1.1853471e-4f);
    q = fmaf(z, q, 2.2684346e-3f);
    q = fmaf(z, q, 4.8935252e-3f);
    return x * p * inverse(q);
}

__device__ __forceinline__ float sigmoid(float x) { return fmaf(0.5f, tanh_ratio(0.5f * x), 0.5f); }

// Distribution function of the standard normal by Abramowitz and Stegun 26.2.17.
__device__ __forceinline__ float normal_cdf(float x) {
    float a = fabsf(x);
    float t = 1.0f / (1.0f + 0.2316419f * a);
    float p = t * (0.31938153f + t * (-0.35656378f + t * (1.7814779f + t * (-1.821256f + t * 1.3302744f))));
    float tail = 0.39894228f * trig::exp(-0.5f * a * a) * p;
    return x > 0.0f ? 1.0f - tail : tail;
}

// Whether a slope needs the value before the activation; the others read it off the value after.
__device__ __forceinline__ bool needs_input(u32 kind) { return kind == Activations::GELU || kind == Activations::SILU; }

// Calls `f` with the function of the activation, once: the choice stays outside of the caller's loops.
template <class F>
__device__ __forceinline__ void with_activation(u32 kind, F f) {
    switch (kind) {
        case Activations::TANH: return f([](float x) { return tanh_ratio(x); });
        case Activations::RELU: return f([](float x) { return x > 0.0f ? x : 0.0f; });
        case Activations::LEAKY_RELU: return f([](float x) { return x > 0.0f ? x : Activations::LEAK * x; });
        case Activations::ELU: return f([](float x) { return x > 0.0f ? x : trig::exp(x) - 1.0f; });
        case Activations::SELU:
            return f([](float x) {
                float low = Activations::SELU_LOW * (trig::exp(x) - 1.0f);
                return x > 0.0f ? Activations::SELU_SCALE * x : low;
            });
        case Activations::GELU: return f([](float x) { return x * normal_cdf(x); });
        case Activations::SILU: return f([](float x) { return x * sigmoid(x); });
        case Activations::SIGMOID: return f([](float x) { return sigmoid(x); });
        default: return f([](float x) { return x; });
    }
}

// As `with_activation`, for the slope as a function of the value after (before, where `needs_input`).
template <class F>
__device__ __forceinline__ void with_slope(u32 kind, F f) {
    switch (kind) {
        case Activations::TANH: return f([](float y) { return fmaf(-y, y, 1.0f); });
        case Activations::RELU: return f([](float y) { return y > 0.0f ? 1.0f : 0.0f; });
        case Activations::LEAKY_RELU: return f([](float y) { return y > 0.0f ? 1.0f : Activations::LEAK; });
        case Activations::ELU: return f([](float y) { return y > 0.0f ? 1.0f : y + 1.0f; });
        case Activations::SELU:
            return f([](float y) { return y > 0.0f ? Activations::SELU_SCALE : y + Activations::SELU_LOW; });
        case Activations::GELU:
            return f([](float x) {
                float density = 0.39894228f * trig::exp(-0.5f * x * x);
                return normal_cdf(x) + x * density;
            });
        case Activations::SILU:
            return f([](float x) {
                float s = sigmoid(x);
                return s * (1.0f + x * (1.0f - s));
            });
        case Activations::SIGMOID: return f([](float y) { return y * (1.0f - y); });
        default: return f([](float) { return 1.0f; });
    }
}
