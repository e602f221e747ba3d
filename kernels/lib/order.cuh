// What the orders of rows and of sequences share: a keyed permutation, and how a minibatch's advantages are normalized.
// Twin of `row_at`, `keys_of` and `normalization` in src/op/shuffle.rs, bit for bit.
#pragma once

#include "rng.cuh"

__device__ __forceinline__ u32 hash(u32 x, u32 key) {
    x = (x ^ key) * Feistel::FIRST_FACTOR;
    x = ((x ^ (x >> 13)) + key) * Feistel::SECOND_FACTOR;
    return x ^ (x >> 16);
}

// A keyed bijection of 0..2^bits.
__device__ __forceinline__ u32 feistel(u32 x, u32 bits, const Words& keys) {
    u32 low_bits = bits / 2, low_mask = (1u << low_bits) - 1, high_mask = (1u << (bits - low_bits)) - 1;
    u32 low = x & low_mask, high = x >> low_bits;
#pragma unroll
    for (u32 round = 0; round < Feistel::ROUNDS; round++) {
        u32 key = keys.at[round % 4] + round * Feistel::KEY_STEP;
        if (round % 2 == 0) {
            high ^= hash(low, key) & high_mask;
        } else {
            low ^= hash(high, key) & low_mask;
        }
    }
    return high << low_bits | low;
}

// What stands at `place` of a permutation of 0..n, `bits` the bits of a place: the walk goes on until it lands inside.
__device__ __forceinline__ u32 row_at(u32 place, u32 n, u32 bits, const Words& keys) {
    u32 row = place;
    do row = feistel(row, bits, keys);
    while (row >= n);
    return row;
}

// The keys of an epoch.
__device__ __forceinline__ Words keys_of(u32 epoch, const u32* seed, const u32* clock) {
    return philox(Words{{epoch, clock[Clock::CLOCK_ITER], Purpose::SHUFFLE, 0}}, seed[0], seed[1]);
}

// Shift and factor of a minibatch of `rows` rows. One lane.
__device__ __forceinline__ void write_normalization(u32 normalize, u32 rows, double mean, double m2,
                                                    const float* percentiles, float* moments) {
    if (normalize == Normalizes::STANDARDIZE && rows > 1) {
        moments[0] = float(mean);
        moments[1] = float(1.0 / (sqrt(m2 / double(rows - 1)) + Standardize::EPSILON));
        return;
    }
    moments[0] = 0.0f;
    moments[1] = 1.0f;
    if (normalize == Normalizes::PERCENTILE) {
        float range = percentiles[Moments::HIGH] - percentiles[Moments::LOW];
        moments[1] = 1.0f / (range > 1.0f ? range : 1.0f);
    }
}
