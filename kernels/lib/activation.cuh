// Activations of hidden units and their slopes. Twin of `activate_body` and `slope_body` in src/op/lib/mlp.rs: the same
// formulas, fused where the AVX variants fuse; only tanh divides by `inverse`.
#pragma once

#include "core.cuh"
#include "trig.cuh"

// 1 / q for positive normal q, rounded as IEEE division rounds it but for one case in ten thousand: a guess from the
// bits, within 6 %, then a step of third and one of second order. An IEEE division branches, and would keep the units
// of a register tile from being computed side by side.
__device__ __forceinline__ float inverse(float q) {
    float r = __uint_as_float(0x7EF311C7u - __float_as_uint(q));
    float e = fmaf(-q, r, 1.0f);
    r = fmaf(r, fmaf(e, e, e), r);
    return fmaf(r, fmaf(-q, r, 1.0f), r);
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

// Whether `activate` is a long function.
constexpr __device__ bool has_exp(u32 kind) {
    return kind == Activations::ELU || kind == Activations::SELU || kind == Activations::GELU;
}

// A hidden unit's value.
template <u32 KIND>
__device__ __forceinline__ float activate(float x) {
    switch (KIND) {
        case Activations::TANH: return tanh_ratio(x);
        case Activations::RELU: return x > 0.0f ? x : 0.0f;
        case Activations::LEAKY_RELU: return x > 0.0f ? x : Slopes::LEAK * x;
        case Activations::ELU: return x > 0.0f ? x : trig::exp(x) - 1.0f;
        case Activations::SELU: {
            float low = Slopes::SELU_LOW * (trig::exp(x) - 1.0f);
            return x > 0.0f ? Slopes::SELU_SCALE * x : low;
        }
        case Activations::GELU: return x * normal_cdf(x);
        case Activations::SILU: return x * sigmoid(x);
        case Activations::SIGMOID: return sigmoid(x);
        default: return x;
    }
}

// Its slope, from the value after (`y`), or before where `needs_input`.
template <u32 KIND>
__device__ __forceinline__ float slope(float y) {
    switch (KIND) {
        case Activations::TANH: return fmaf(-y, y, 1.0f);
        case Activations::RELU: return y > 0.0f ? 1.0f : 0.0f;
        case Activations::LEAKY_RELU: return y > 0.0f ? 1.0f : Slopes::LEAK;
        case Activations::ELU: return y > 0.0f ? 1.0f : y + 1.0f;
        case Activations::SELU: return y > 0.0f ? Slopes::SELU_SCALE : y + Slopes::SELU_LOW;
        case Activations::GELU: return normal_cdf(y) + y * (0.39894228f * trig::exp(-0.5f * y * y));
        case Activations::SILU: {
            float s = sigmoid(y);
            return s * (1.0f + y * (1.0f - s));
        }
        case Activations::SIGMOID: return y * (1.0f - y);
        default: return 1.0f;
    }
}

// Calls `f.run<KIND>()` with the activation as a constant: the choice stays outside of loops over units.
template <class F>
__device__ __forceinline__ void with_activation(u32 kind, const F& f) {
    switch (kind) {
        case Activations::TANH: return f.template run<Activations::TANH>();
        case Activations::RELU: return f.template run<Activations::RELU>();
        case Activations::LEAKY_RELU: return f.template run<Activations::LEAKY_RELU>();
        case Activations::ELU: return f.template run<Activations::ELU>();
        case Activations::SELU: return f.template run<Activations::SELU>();
        case Activations::GELU: return f.template run<Activations::GELU>();
        case Activations::SILU: return f.template run<Activations::SILU>();
        case Activations::SIGMOID: return f.template run<Activations::SIGMOID>();
        default: return f.template run<Activations::IDENTITY>();
    }
}
