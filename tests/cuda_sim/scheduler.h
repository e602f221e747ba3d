// What the CPU simulator of CUDA tells a kernel's translation unit about its threads. Includes nothing, so that a kernel
// sees no name of the C library.
//
// Every CUDA thread is a fiber. A fiber runs until it meets a collective operation (a barrier, a shuffle, a vote); when
// every thread that takes part has arrived, the operation is resolved at once for all of them.
#pragma once

namespace cusim {

struct Index {
    unsigned x, y, z;
};

struct Thread;

// A kind of operation that several threads do together.
struct Collective {
    const char* name;
    // Whether the whole block takes part, or the lanes of a warp that the mask names.
    bool block;
    // Computes the results of everyone from the operands of everyone: each thread's `operands` points to its own.
    void (*resolve)(Thread* const* threads, unsigned count);
};

enum class State : unsigned char { ready, waiting, returned };

struct Thread {
    Index index;
    // Place in the warp.
    unsigned lane;
    State state;
    // What it waits in, and where in the source that is.
    const Collective* collective;
    unsigned mask;
    void* operands;
    const char* file;
    int line;
    // The saved stack pointer, and the memory of the stack.
    void* stack_pointer;
    char* stack;
    // Whether it has ever run: a fiber is kept from block to block.
    bool started;
};

// Objects of one module see each other, and nothing else does: each module has its own scheduler.
#define CUSIM_HIDDEN __attribute__((visibility("hidden")))

extern CUSIM_HIDDEN Thread* current;
extern CUSIM_HIDDEN Index block_index, grid_size, block_size;
extern CUSIM_HIDDEN char* dynamic_shared;

// Waits in a collective operation until all of `mask` (of the block) are there, and the results are too.
CUSIM_HIDDEN void meet(const Collective& collective, unsigned mask, void* operands, const char* file, int line);

// Fails the launch with this message.
CUSIM_HIDDEN void complain(const char* message);

constexpr unsigned WARP = 32;
constexpr unsigned MAX_PARAMS = 4;

// A row of a module's table of kernels.
struct Kernel {
    const char* name;
    void (*call)(void** params);
    unsigned launch_bounds;
    unsigned params;
    unsigned param_sizes[MAX_PARAMS];
};

template <unsigned... I>
struct Positions {};

// Calls a kernel as the driver does: from pointers to its parameters.
template <class... Param, unsigned... I>
void spread(void (*kernel)(Param...), void** params, Positions<I...>) {
    kernel(*static_cast<const Param*>(params[I])...);
}

template <class... Param>
void spread(void (*kernel)(Param...), void** params) {
    spread(kernel, params, Positions<__integer_pack(sizeof...(Param))...>());
}

// The first of the launch bounds; the others ask the compiler for occupancy.
template <class... Rest>
constexpr unsigned most_threads(unsigned threads, Rest...) {
    return threads;
}

template <class... Param>
constexpr Kernel row(const char* name, unsigned launch_bounds, void (*)(Param...), void (*call)(void**)) {
    static_assert(sizeof...(Param) <= MAX_PARAMS, "a kernel has few parameters");
    return {name, call, launch_bounds, sizeof...(Param), {sizeof(Param)...}};
}

}  // namespace cusim

#define CUSIM_KERNEL(entry, bounds) \
    cusim::row(#entry, bounds, entry, [](void** params) { cusim::spread(entry, params); })
