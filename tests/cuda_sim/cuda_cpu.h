// The CUDA language as a header: what a `.cu` file of this project may use, for a C++ compiler on the CPU.
//
// It stands in front of an unchanged kernel source. No header of the C library is included, so a function that CUDA's
// PTX would get from elsewhere (expf, tanhf, ..) is an error here. See scheduler.h for how threads run.
#pragma once
#include "scheduler.h"

#define CUDA_CPU_SIM 1

#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
// the only variables of a module: its build puts them into a section of their own, so that those of a block can be
// poisoned at its start, saved and brought back (an attribute would do, but g++ heeds none in templates)
#define __shared__ static
#define DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(cusim::dynamic_shared)
// the generator of the table of kernels reads these two in the preprocessed text
#ifndef CUSIM_SCAN
#define __global__
#define __launch_bounds__(...)
#endif

typedef cusim::Index uint3;
typedef cusim::Index dim3;
#define threadIdx (cusim::current->index)
#define blockIdx (cusim::block_index)
#define blockDim (cusim::block_size)
#define gridDim (cusim::grid_size)
constexpr int warpSize = 32;

extern "C" int printf(const char* format, ...);

// vectors, aligned as loads of them need it
#define CUSIM_VECTORS(T, name)                                                          \
    struct alignas(2 * sizeof(T)) name##2 {                                             \
        T x, y;                                                                         \
    };                                                                                  \
    struct name##3 {                                                                    \
        T x, y, z;                                                                      \
    };                                                                                  \
    struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) name##4 {                        \
        T x, y, z, w;                                                                   \
    };                                                                                  \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                          \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                  \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define uint3 cusim_uint3
CUSIM_VECTORS(float, float)
CUSIM_VECTORS(double, double)
CUSIM_VECTORS(int, int)
CUSIM_VECTORS(unsigned, uint)
#undef uint3
#undef CUSIM_VECTORS

// functions that are one instruction, or a few exact ones, on a GPU
static inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float sqrtf(float x) { return __builtin_sqrtf(x); }
static inline double sqrt(double x) { return __builtin_sqrt(x); }
static inline float fabsf(float x) { return __builtin_fabsf(x); }
static inline double fabs(double x) { return __builtin_fabs(x); }
static inline float floorf(float x) { return __builtin_floorf(x); }
static inline double floor(double x) { return __builtin_floor(x); }
static inline float ceilf(float x) { return __builtin_ceilf(x); }
static inline double ceil(double x) { return __builtin_ceil(x); }
static inline float truncf(float x) { return __builtin_truncf(x); }
static inline double trunc(double x) { return __builtin_trunc(x); }
static inline float rintf(float x) { return __builtin_rintf(x); }
static inline double rint(double x) { return __builtin_rint(x); }
static inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
static inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
static inline double fmin(double a, double b) { return __builtin_fmin(a, b); }
static inline double fmax(double a, double b) { return __builtin_fmax(a, b); }
static inline float copysignf(float x, float y) { return __builtin_copysignf(x, y); }
static inline double copysign(double x, double y) { return __builtin_copysign(x, y); }

template <class T>
static inline bool isnan(T x) {
    return __builtin_isnan(x);
}
template <class T>
static inline bool isinf(T x) {
    return __builtin_isinf(x);
}
template <class T>
static inline bool isfinite(T x) {
    return __builtin_isfinite(x);
}

#define CUSIM_MIN_MAX(T)                                       \
    static inline T min(T a, T b) { return b < a ? b : a; }    \
    static inline T max(T a, T b) { return a < b ? b : a; }
CUSIM_MIN_MAX(int)
CUSIM_MIN_MAX(unsigned)
CUSIM_MIN_MAX(long long)
CUSIM_MIN_MAX(unsigned long long)
#undef CUSIM_MIN_MAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
static inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
    return reversed;
}

// the bits of a value, and a value of bits
namespace cusim {
template <class To, class From>
inline To cast_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits are neither lost nor made up");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
}  // namespace cusim
static inline unsigned __float_as_uint(float x) { return cusim::cast_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return cusim::cast_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return cusim::cast_bits<float>(x); }
static inline float __int_as_float(int x) { return cusim::cast_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return cusim::cast_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return cusim::cast_bits<double>(x); }

// roundings that are named in the source; nothing is ever fused here without fmaf
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }

template <class T>
static inline T __ldg(const T* at) {
    return *at;
}
template <class T>
static inline T __ldcg(const T* at) {
    return *at;
}

// fibers of a module run one at a time and one after the other's collective: memory is always consistent
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// atomics: nothing interrupts a fiber; no race, so what looks for races does not see them
#ifdef CUSIM_RACES
#define CUSIM_UNWATCHED __attribute__((noinline, no_sanitize("thread")))
#else
#define CUSIM_UNWATCHED
#endif
#define CUSIM_ATOMIC(name, result)                   \
    template <class T, class V>                      \
    CUSIM_UNWATCHED static inline T name(T* at, V operand) { \
        static_assert(T(1) / T(2) == T(0), "atomics on numbers whose order would show are not used"); \
        T old = *at, value = T(operand);             \
        *at = (result);                              \
        return old;                                  \
    }
CUSIM_ATOMIC(atomicAdd, T(old + value))
CUSIM_ATOMIC(atomicSub, T(old - value))
CUSIM_ATOMIC(atomicMax, old < value ? value : old)
CUSIM_ATOMIC(atomicMin, value < old ? value : old)
CUSIM_ATOMIC(atomicAnd, T(old & value))
CUSIM_ATOMIC(atomicOr, T(old | value))
CUSIM_ATOMIC(atomicXor, T(old ^ value))
CUSIM_ATOMIC(atomicExch, value)
// counts up to the operand, then starts again at 0
CUSIM_ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
#undef CUSIM_ATOMIC
template <class T>
CUSIM_UNWATCHED static inline T atomicCAS(T* at, T compare, T value) {
    T old = *at;
    if (old == compare) *at = value;
    return old;
}

#include "collectives.h"
#include "matrix.h"
