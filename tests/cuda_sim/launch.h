// The C interface of a module compiled for the CPU simulator: its table of kernels, and a launch.
#pragma once
#include <cstddef>

#include "scheduler.h"

// Orders in which threads and blocks take turns. A right kernel gives the same bits under all of them.
enum cusim_schedule {
    // Warp after warp as far as each gets, block after block.
    CUSIM_FORWARD,
    // The same, all from the last to the first.
    CUSIM_REVERSE,
    // Warps take turns at random at every collective operation, lanes in a new order each time, blocks at random.
    CUSIM_RANDOM,
    // As random, and several blocks take turns at their barriers.
    CUSIM_INTERLEAVED,
    CUSIM_SCHEDULES,
};

struct cusim_launch_config {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    unsigned schedule;
    unsigned seed;
};

#pragma GCC visibility push(default)
extern "C" {
// The module's kernels.
const cusim::Kernel* cusim_kernels(unsigned* count);
// Runs a kernel to its end; 0, or 1 with a message.
int cusim_launch(const cusim::Kernel* kernel, const cusim_launch_config* config, void** params, char* message,
                 size_t capacity);
// Forbids (1) or allows (0) the kernels to touch some bytes; only a build with AddressSanitizer sees to it.
void cusim_forbid(const void* bytes, size_t count, int forbidden);
}
#pragma GCC visibility pop
