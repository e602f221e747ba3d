// sin, cos, exp, ln, tanh by polynomials, never fused. Twin of src/op/lib/trig.rs, bit for bit; it states errors.
#pragma once

#include "core.cuh"

namespace trig {

// 1.5 * 2^23: adding it rounds an f32 below 2^22 to the nearest integer, which then sits in the low mantissa bits
constexpr float ROUND = 12582912.0f;
constexpr u32 ROUND_BITS = 0x4B400000u;
constexpr float TAU = 6.2831855f;

// Nearest integer, and bits whose low word is that integer in two's complement; needs |x| < 2^22.
__device__ __forceinline__ float nearest(float x, u32& bits) {
    float shifted = x + ROUND;
    bits = __float_as_uint(shifted);
    return shifted - ROUND;
}

// sin x and cos x for |x| <= 1e4.
__device__ __forceinline__ void sin_cos(float x, float& sin, float& cos) {
    // Cody-Waite: r = x - q pi/2 with |r| <= pi/4
    u32 bits;
    float q = nearest(x * 0.63661977f, bits);
    float r = ((x - q * 1.5703125f) - q * 4.837513e-4f) - q * 7.54979e-8f;
    float z = r * r;
    float s = r + r * z * (-1.6666655e-1f + z * (8.332161e-3f + z * -1.9515296e-4f));
    float c = 1.0f - 0.5f * z + z * z * (4.1666646e-2f + z * (-1.3887316e-3f + z * 2.4433157e-5f));
    // odd quadrants swap the two; bit 1 of q (of q + 1 for cos) is the sign
    bool swap = bits & 1;
    u32 sign_s = (bits & 2) << 30, sign_c = ((bits + 1) & 2) << 30;
    sin = __uint_as_float(__float_as_uint(swap ? c : s) ^ sign_s);
    cos = __uint_as_float(__float_as_uint(swap ? s : c) ^ sign_c);
}

__device__ __forceinline__ float sin(float x) {
    float s, c;
    sin_cos(x, s, c);
    return s;
}

__device__ __forceinline__ float cos(float x) {
    float s, c;
    sin_cos(x, s, c);
    return c;
}

// The angle equal to x modulo 2 pi within [-pi, pi], for |x| <= 1e4.
__device__ __forceinline__ float wrap_angle(float x) {
    u32 bits;
    float q = nearest(x * 0.15915494f, bits);
    return ((x - q * 6.28125f) - q * 1.9350052e-3f) - q * 3.019916e-7f;
}

// e^x over the whole range; overflows to infinity, underflows to 0, keeps NaN.
__device__ __forceinline__ float exp(float x) {
    // beyond these ends the result is already infinity or 0; comparisons in this order let NaN through
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    u32 bits;
    float n = nearest(x * 1.442695f, bits);
    // ln 2 in two words, the first short enough for an exact product
    float r = (x - n * 0.6933594f) - n * -2.1219444e-4f;
    float p = 1.6666665e-1f + r * (4.1665796e-2f + r * (8.333452e-3f + r * (1.3982e-3f + r * 1.9875691e-4f)));
    float y = (0.5f + r * p) * (r * r) + r + 1.0f;
    // 2^n in two factors, because n reaches -150 and 128
    int whole = int(bits - ROUND_BITS);
    int half = whole >> 1;
    float low = __uint_as_float(u32(half + 127) << 23), high = __uint_as_float(u32(whole - half + 127) << 23);
    return y * low * high;
}

// Natural logarithm; ln 0 = -inf, ln inf = inf, NaN below 0 and for NaN.
__device__ __forceinline__ float ln(float x) {
    const float infinity = __uint_as_float(0x7F800000u);
    // subnormals are lifted into the normal range
    bool tiny = x < 1.1754944e-38f;
    // y = 2^e m, m in [sqrt(1/2), sqrt(2))
    u32 shifted = __float_as_uint(tiny ? x * 8388608.0f : x) - 0x3F3504F3u;
    float e = float(int(shifted) >> 23) + (tiny ? -23.0f : 0.0f);
    float m = __uint_as_float((shifted & 0x007FFFFFu) + 0x3F3504F3u);
    float r = m - 1.0f;
    float z = r * r;
    float p = 1.4249323e-1f + r * (-1.2420141e-1f + r * (1.1677e-1f + r * (-1.151461e-1f + r * 7.0376836e-2f)));
    p = 3.333333e-1f + r * (-2.4999994e-1f + r * (2.0000715e-1f + r * (-1.6668058e-1f + r * p)));
    float tail = r * z * p + e * -2.1219444e-4f - 0.5f * z;
    float y = (r + tail) + e * 0.6933594f;
    y = x < infinity ? y : x;
    y = x > 0.0f ? y : __uint_as_float(0x7FC00000u);
    return x == 0.0f ? -infinity : y;
}

// x held within [low, high]; keeps NaN.
__device__ __forceinline__ float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// Hyperbolic tangent by one division; keeps NaN and the sign of 0, never leaves [-1, 1].
__device__ __forceinline__ float tanh(float x) {
    x = clamp(x, -9.1f, 9.1f);
    float z = x * x;
    float p = 1.0f + z * (1.3384287e-1f + z * (3.499465e-3f + z * (2.0673087e-5f + z * 1.3443933e-8f)));
    float q = 1.0f + z * (4.6717605e-1f + z * (2.5891723e-2f + z * (3.2919832e-4f + z * 7.812961e-7f)));
    return clamp(x * p / q, -1.0f, 1.0f);
}

}  // namespace trig
