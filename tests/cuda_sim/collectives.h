// Barriers, shuffles and votes: what CUDA threads do together. Part of cuda_cpu.h.
#pragma once

// where the operation stands in the kernel's source: default arguments are those of the caller
#define CUSIM_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace cusim {

template <class Operands>
inline Operands& operands_of(Thread* thread) {
    return *static_cast<Operands*>(thread->operands);
}

inline void resolve_nothing(Thread* const*, unsigned) {}

constexpr Collective SYNCTHREADS = {"__syncthreads", true, resolve_nothing};
constexpr Collective SYNCWARP = {"__syncwarp", false, resolve_nothing};

// A predicate of every thread; the answer is the number of threads where it holds.
struct Predicate {
    bool holds;
    unsigned count;
};

inline void resolve_count(Thread* const* threads, unsigned count) {
    unsigned holds = 0;
    for (unsigned i = 0; i < count; i++) holds += operands_of<Predicate>(threads[i]).holds;
    for (unsigned i = 0; i < count; i++) operands_of<Predicate>(threads[i]).count = holds;
}

constexpr Collective SYNCTHREADS_COUNT = {"__syncthreads_count/or/and", true, resolve_count};

// A predicate of every lane; the answer has a bit for each.
struct Ballot {
    bool holds;
    unsigned bits;
};

inline void resolve_ballot(Thread* const* threads, unsigned count) {
    unsigned bits = 0;
    for (unsigned i = 0; i < count; i++) bits |= unsigned(operands_of<Ballot>(threads[i]).holds) << threads[i]->lane;
    for (unsigned i = 0; i < count; i++) operands_of<Ballot>(threads[i]).bits = bits;
}

constexpr Collective BALLOT = {"__ballot/any/all_sync", false, resolve_ballot};

// A value of every lane; each takes that of its source.
struct Shuffle {
    unsigned long long value;
    unsigned source;
    unsigned long long result;
};

inline void resolve_shuffle(Thread* const* threads, unsigned count) {
    if (count == WARP) {
        for (unsigned i = 0; i < WARP; i++) {
            Shuffle& mine = operands_of<Shuffle>(threads[i]);
            mine.result = operands_of<Shuffle>(threads[mine.source]).value;
        }
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        Shuffle& mine = operands_of<Shuffle>(threads[i]);
        // a lane outside of the mask has no defined value: hand out bits that no one wants
        mine.result = 0x7FD555557FD55555;
        for (unsigned k = 0; k < count; k++) {
            if (threads[k]->lane == mine.source) mine.result = operands_of<Shuffle>(threads[k]).value;
        }
    }
}

constexpr Collective SHUFFLE = {"__shfl_sync", false, resolve_shuffle};

template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, const char* file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move words of 32 or 64 bits");
    Shuffle operands = {};
    __builtin_memcpy(&operands.value, &value, sizeof value);
    operands.source = source;
    meet(SHUFFLE, mask, &operands, file, line);
    __builtin_memcpy(&value, &operands.result, sizeof value);
    return value;
}

}  // namespace cusim

static inline void __syncthreads(CUSIM_SITE) { cusim::meet(cusim::SYNCTHREADS, ~0u, nullptr, file, line); }
static inline void __syncwarp(unsigned mask = ~0u, CUSIM_SITE) { cusim::meet(cusim::SYNCWARP, mask, nullptr, file, line); }

static inline int __syncthreads_count(int predicate, CUSIM_SITE) {
    cusim::Predicate operands = {predicate != 0, 0};
    cusim::meet(cusim::SYNCTHREADS_COUNT, ~0u, &operands, file, line);
    return int(operands.count);
}
static inline int __syncthreads_or(int predicate, CUSIM_SITE) { return __syncthreads_count(predicate, file, line) != 0; }
static inline int __syncthreads_and(int predicate, CUSIM_SITE) {
    return __syncthreads_count(!predicate, file, line) == 0;
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, CUSIM_SITE) {
    cusim::Ballot operands = {predicate != 0, 0};
    cusim::meet(cusim::BALLOT, mask, &operands, file, line);
    return operands.bits;
}
static inline int __any_sync(unsigned mask, int predicate, CUSIM_SITE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, CUSIM_SITE) {
    return __ballot_sync(mask, !predicate, file, line) == 0;
}

// Shuffles within segments of `width` lanes; a source outside of the segment leaves a lane its own value.
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUSIM_SITE) {
    unsigned lane = cusim::current->lane, segment = lane & ~unsigned(width - 1);
    return cusim::shuffle(mask, value, segment + (unsigned(source) & unsigned(width - 1)), file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUSIM_SITE) {
    unsigned lane = cusim::current->lane, source = lane ^ unsigned(lanes);
    // earlier segments may be read, later ones not
    bool outside = source > (lane | unsigned(width - 1));
    return cusim::shuffle(mask, value, outside ? lane : source, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, CUSIM_SITE) {
    unsigned lane = cusim::current->lane, source = lane + lanes;
    bool outside = source > (lane | unsigned(width - 1));
    return cusim::shuffle(mask, value, outside ? lane : source, file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, CUSIM_SITE) {
    unsigned lane = cusim::current->lane;
    bool outside = (lane & unsigned(width - 1)) < lanes;
    return cusim::shuffle(mask, value, outside ? lane : lane - lanes, file, line);
}
