// Random numbers as a function of (key, counter): Philox4x32-10. Twin of src/op/lib/rng.rs, bit for bit.
//
// key = (seed, session), counter = (env, step, purpose, index).
#pragma once

#include "core.cuh"

// One block of four words.
struct Words {
    u32 at[4];
};

// One block of Philox4x32-10.
__device__ __forceinline__ Words philox(Words ctr, u32 key0, u32 key1) {
#pragma unroll
    for (u32 round = 0; round < 10; round++) {
        u32 high0 = __umulhi(ctr.at[0], 0xD2511F53u), low0 = ctr.at[0] * 0xD2511F53u;
        u32 high1 = __umulhi(ctr.at[2], 0xCD9E8D57u), low1 = ctr.at[2] * 0xCD9E8D57u;
        ctr = Words{{high1 ^ ctr.at[1] ^ key0, low1, high0 ^ ctr.at[3] ^ key1, low0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return ctr;
}

// A word as a uniform number in (0, 1), never 0 and never 1.
__device__ __forceinline__ float unit(u32 word) { return (float(int(word >> 9)) + 0.5f) * (1.0f / 8388608.0f); }
