// Two threads of a block that touch the same shared memory, one of them writing, with nothing between that orders them:
// no barrier and, within a warp, no collective operation. Part of scheduler.cpp, in builds for this search alone.
//
// Kernels are compiled with -fsanitize=thread, which calls a function at every access of memory; these functions are
// ours, the compiler's own library is not linked. Every two bytes of shared memory remember the last write and two
// reads, so a race shows whatever order the threads took. Atomic operations are not watched.
#pragma once

#include <dlfcn.h>

namespace cusim {
namespace {

constexpr size_t GRAIN = 2;

struct Touch {
    unsigned thread;
    // The block's era, which a barrier ends; 0 is never. The warp's, which a collective operation ends.
    unsigned era, warp_era;
    void* by;
};

struct Grain {
    Touch write, read, other_read;
};

// What a block remembers.
struct Watch {
    std::vector<Grain> grains;
    unsigned era = 0;
    unsigned warp_eras[1024 / WARP] = {};
};

// The block that runs, where its shared memory is, and its first thread.
Watch* watch;
const Thread* first_thread;
size_t dynamic_bytes;

// The race that was found: both accesses.
void* race[2];

// A line of the source.
std::string place(void* by) {
    Dl_info info;
    char line[512] = "?";
    if (dladdr(by, &info) == 0) return line;
    char command[1024];
    snprintf(command, sizeof command, "addr2line -s -e '%s' 0x%zx", info.dli_fname,
             size_t(static_cast<char*>(by) - static_cast<char*>(info.dli_fbase)) - 1);
    FILE* pipe = popen(command, "r");
    if (pipe == nullptr) return line;
    if (fgets(line, sizeof line, pipe) == nullptr) line[0] = 0;
    pclose(pipe);
    // without what the compiler tells its profiler
    line[strcspn(line, " \n")] = 0;
    return line;
}

// Where the race was.
std::string places() { return race[0] == nullptr ? "" : " at " + place(race[0]) + " and " + place(race[1]); }

void touch(const volatile void* at, size_t bytes, bool write, void* by) {
    // collective operations are resolved by no thread
    if (current == nullptr || watch == nullptr) return;
    size_t offset = size_t(static_cast<const volatile char*>(at) - dynamic_shared);
    if (offset >= dynamic_bytes) {
        offset = size_t(static_cast<const volatile char*>(at) - __start_cusim_shared);
        if (offset >= size_t(__stop_cusim_shared - __start_cusim_shared)) return;
        offset += dynamic_bytes;
    }
    unsigned thread = unsigned(current - first_thread), warp = thread / WARP;
    Touch now = {thread, watch->era, watch->warp_eras[warp], by};
    auto apart = [&](const Touch& before) {
        if (before.era != now.era || before.thread == thread) return false;
        return before.thread / WARP != warp || before.warp_era == now.warp_era;
    };
    for (size_t i = offset / GRAIN; i <= (offset + bytes - 1) / GRAIN && i < watch->grains.size(); i++) {
        Grain& grain = watch->grains[i];
        const Touch* other = nullptr;
        if (apart(grain.write)) other = &grain.write;
        if (write && apart(grain.read)) other = &grain.read;
        if (write && apart(grain.other_read)) other = &grain.other_read;
        if (other != nullptr && race[0] == nullptr) {
            race[0] = other->by;
            race[1] = by;
            complain(("a race of threads " + std::to_string(other->thread) + " and " + std::to_string(thread)).c_str());
        }
        if (write) {
            grain.write = now;
        } else {
            // a reader of another warp is kept for longer: less orders it
            if (apart(grain.read) && (grain.read.thread / WARP != warp || !apart(grain.other_read))) {
                grain.other_read = grain.read;
            }
            grain.read = now;
        }
    }
}

}  // namespace
}  // namespace cusim

#define CUSIM_HOOK extern "C" __attribute__((visibility("hidden"))) void
#define CUSIM_BY __builtin_extract_return_addr(__builtin_return_address(0))
#define CUSIM_ACCESSES(bytes)                                                                              \
    CUSIM_HOOK __tsan_read##bytes(void* at) { cusim::touch(at, bytes, false, CUSIM_BY); }                  \
    CUSIM_HOOK __tsan_write##bytes(void* at) { cusim::touch(at, bytes, true, CUSIM_BY); }                  \
    CUSIM_HOOK __tsan_unaligned_read##bytes(void* at) { cusim::touch(at, bytes, false, CUSIM_BY); }        \
    CUSIM_HOOK __tsan_unaligned_write##bytes(void* at) { cusim::touch(at, bytes, true, CUSIM_BY); }
CUSIM_ACCESSES(1)
CUSIM_ACCESSES(2)
CUSIM_ACCESSES(4)
CUSIM_ACCESSES(8)
CUSIM_ACCESSES(16)
CUSIM_HOOK __tsan_read_range(void* at, size_t bytes) { cusim::touch(at, bytes, false, CUSIM_BY); }
CUSIM_HOOK __tsan_write_range(void* at, size_t bytes) { cusim::touch(at, bytes, true, CUSIM_BY); }
CUSIM_HOOK __tsan_init() {}
CUSIM_HOOK __tsan_func_entry(void*) {}
CUSIM_HOOK __tsan_func_exit() {}
CUSIM_HOOK __tsan_vptr_update(void*, void*) {}
