// A sum tree of sixteen children to a node over the priorities of a replay ring. Twin of src/op/lib/tree.rs, bit for bit.
#pragma once

#include "core.cuh"

constexpr u32 CHILDREN = 16;

// Where the levels begin, leaves first; the last level is one node.
struct Tree {
    u32 levels;
    u32 start[8];
};

// The sixteen words of a node: a node begins on 64 bytes.
struct Children {
    float at[CHILDREN];

    __device__ __forceinline__ explicit Children(const float* from) {
#pragma unroll
        for (u32 i = 0; i < CHILDREN; i += 4) {
            float4 v = *reinterpret_cast<const float4*>(from + i);
            at[i] = v.x, at[i + 1] = v.y, at[i + 2] = v.z, at[i + 3] = v.w;
        }
    }

    // As a tree, like `sum16` in src/op/lib/simd.rs.
    __device__ __forceinline__ float sum() {
#pragma unroll
        for (u32 i = 0; i < 8; i++) at[i] += at[i + 8];
#pragma unroll
        for (u32 i = 0; i < 4; i++) at[i] += at[i + 4];
        at[0] += at[2];
        at[1] += at[3];
        at[0] += at[1];
        return at[0];
    }
};

// The sum of all leaves.
__device__ __forceinline__ float tree_total(const Tree& of, const float* tree) {
    return Children(tree + of.start[of.levels - 1]).sum();
}

// The leaf in which `at` (0 to the total) lies, when leaves are laid end to end in order. Where rounding leads past the
// last child, the last one that is not empty takes what is left.
__device__ __forceinline__ u32 tree_find(const Tree& of, const float* tree, float at) {
    u32 node = 0;
#pragma unroll 1
    for (u32 l = of.levels; l-- > 0;) {
        Children sums(tree + of.start[l] + node * CHILDREN);
        float before = 0.0f, below = 0.0f;
        u32 chosen = 0;
#pragma unroll
        for (u32 child = 0; child < CHILDREN; child++) {
            bool here = sums.at[child] > 0.0f && before <= at;
            chosen = here ? child : chosen;
            below = here ? before : below;
            before += sums.at[child];
        }
        at -= below;
        node = node * CHILDREN + chosen;
    }
    return node;
}
