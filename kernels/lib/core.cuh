// What every kernel shares: words, the slices of its arguments, the running sessions, nets and policies in shape structs.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

#include "constants.cuh"

#ifndef CUDA_CPU_SIM
#define DYN_SHARED(T, name) extern __shared__ __align__(16) T name[]
#endif

// An argument of an op: one slice of `len` words per session, `stride` words apart. The name says what the op may do.
template <class T>
struct Read {
    const T* at;
    u32 stride;
    u32 len;
    // The slice of session `s`; starts on 64 bytes.
    __device__ __forceinline__ const T* of(u32 s) const { return at + u64(s) * stride; }
};

// Written whole by the op, never read before.
template <class T>
struct Write {
    T* at;
    u32 stride;
    u32 len;
    __device__ __forceinline__ T* of(u32 s) const { return at + u64(s) * stride; }
};

// Read and written.
template <class T>
struct Update {
    T* at;
    u32 stride;
    u32 len;
    __device__ __forceinline__ T* of(u32 s) const { return at + u64(s) * stride; }
};

// The sessions that run: their number, then their positions in the cohort. Blocks beyond the number have nothing to do.
struct Sessions {
    const u32* table;
    __device__ __forceinline__ bool of(u32 y, u32& s) const {
        if (y >= table[0]) return false;
        s = table[1 + y];
        return true;
    }
};

// One layer of a net; offsets from the net's first parameter. Hidden weights are [input, output], the last is
// [output, input].
struct Layer {
    u32 input;
    u32 output;
    u32 weight;
    u32 bias;
};

// Sizes of one net; no layers where there is none.
struct Net {
    u32 layers;
    u32 activation;
    u32 params;
    Layer layer[Nets::LAYERS];
};

// A family of distributions over actions: `n` actions, or `n` action words.
struct Policy {
    u32 kind;
    u32 n;
    u32 free_std;
    u32 squashed;
};
