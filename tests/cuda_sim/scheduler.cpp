// Runs the threads of CUDA blocks as fibers on one CPU thread. See scheduler.h and launch.h.
#include "scheduler.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "launch.h"

#ifdef CUSIM_ASAN
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
constexpr size_t STACK_BYTES = 256 << 10;
#else
constexpr size_t STACK_BYTES = 64 << 10;
#endif

#ifndef __x86_64__
#error "the CPU simulator of CUDA switches stacks with x86-64 instructions"
#endif

// void cusim_switch(void** save, void* load): leaves this stack, goes on where `load` was left
extern "C" __attribute__((visibility("hidden"))) void cusim_switch(void** save, void* load);
asm(R"(
.text
.hidden cusim_switch
.globl cusim_switch
.type cusim_switch, @function
cusim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

// all static shared arrays of the module, if it has any: the section that its build makes of its variables
extern "C" __attribute__((visibility("hidden"), weak)) char __start_cusim_shared[], __stop_cusim_shared[];

namespace cusim {

Thread* current;
Index block_index, grid_size, block_size;
char* dynamic_shared;

}  // namespace cusim

#ifdef CUSIM_RACES
#include "races.h"
#define CUSIM_WATCH(...) __VA_ARGS__
#else
#define CUSIM_WATCH(...)
#endif

namespace cusim {
namespace {

constexpr unsigned MAX_THREADS = 1024;
// What sm_80 and later give a block, less what a second block needs: the limit of this project.
constexpr unsigned MAX_SHARED_BYTES = 99 << 10;
constexpr unsigned MAX_RESIDENT = 4;
constexpr size_t GUARD_BYTES = 64;
constexpr unsigned char GUARD = 0xA7;

struct Random {
    uint64_t state;
    unsigned next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return unsigned(state >> 33);
    }
    unsigned below(unsigned n) { return next() % n; }
};

// Room for one block: its threads with their stacks, and its shared memory.
struct Slot {
    std::vector<Thread> threads{MAX_THREADS};
    char* stacks = nullptr;
    Index index = {};
    std::vector<char> statics;
    char* dynamic = nullptr;
    // Whether a block is here that has not ended.
    bool occupied = false;
    CUSIM_WATCH(Watch watch;)

    Slot() {
        void* memory = mmap(nullptr, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) abort();
        madvise(memory, MAX_THREADS * STACK_BYTES, MADV_NOHUGEPAGE);
        stacks = static_cast<char*>(memory);
        for (unsigned i = 0; i < MAX_THREADS; i++) {
            threads[i] = {};
            threads[i].lane = i % WARP;
            threads[i].stack = stacks + i * STACK_BYTES;
        }
    }
    ~Slot() { munmap(stacks, MAX_THREADS * STACK_BYTES); }
    Slot(const Slot&) = delete;
};

std::mutex launching;
std::vector<std::unique_ptr<Slot>> slots;

// the launch that runs
const Kernel* kernel;
void** params;
cusim_launch_config config;
unsigned thread_count;
Random random_order;
std::string complaint;

// lanes that go on before the scheduler does
Thread* queue[WARP + 1];
Thread** queue_at;
void* scheduler_stack_pointer;
#ifdef CUSIM_ASAN
void* scheduler_stack;
size_t scheduler_stack_bytes;
#endif

// The stack that the scheduler runs on: that of the thread which launches.
void find_scheduler_stack() {
#ifdef CUSIM_ASAN
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) abort();
    pthread_attr_getstack(&attributes, &scheduler_stack, &scheduler_stack_bytes);
    pthread_attr_destroy(&attributes);
#endif
}

// Leaves the running fiber or the scheduler for another one.
void switch_to(void** save, void* load, const void* stack, size_t bytes) {
#ifdef CUSIM_ASAN
    void* fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, stack, bytes);
    cusim_switch(save, load);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    (void)stack, (void)bytes;
    cusim_switch(save, load);
#endif
}

void run_thread();

// A stack on which the first switch finds the start of `run_thread`.
void prepare(Thread& thread, unsigned position) {
    // tops at equal offsets would share cache sets
    uintptr_t top = uintptr_t(thread.stack + STACK_BYTES - position % 61 * 320) & ~uintptr_t(63);
    void** at = reinterpret_cast<void**>(top);
    *--at = nullptr;
    *--at = reinterpret_cast<void*>(run_thread);
    for (unsigned saved = 0; saved < 6; saved++) *--at = nullptr;
    thread.stack_pointer = at;
    memset(thread.stack, GUARD, GUARD_BYTES);
    thread.started = true;
}

// Goes on with the next lane of the queue, or with the scheduler.
void suspend() {
    Thread* self = current;
    Thread* next = *queue_at;
    if (next != nullptr) {
        queue_at++;
        current = next;
        switch_to(&self->stack_pointer, next->stack_pointer, next->stack, STACK_BYTES);
    } else {
#ifdef CUSIM_ASAN
        switch_to(&self->stack_pointer, scheduler_stack_pointer, scheduler_stack, scheduler_stack_bytes);
#else
        switch_to(&self->stack_pointer, scheduler_stack_pointer, nullptr, 0);
#endif
    }
}

// The life of a fiber: one thread of a block after the other.
void run_thread() {
#ifdef CUSIM_ASAN
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
#endif
    for (;;) {
        kernel->call(params);
        current->state = State::returned;
        suspend();
    }
}

// Runs the ready lanes of a warp until each waits or has returned.
void run_warp(Slot& slot, unsigned warp) {
    unsigned first = warp * WARP, lanes = thread_count - first < WARP ? thread_count - first : WARP;
    unsigned step = 1, start = 0;
    if (config.schedule == CUSIM_REVERSE) step = WARP - 1, start = WARP - 1;
    // an odd step visits every lane once
    if (config.schedule >= CUSIM_RANDOM) step = random_order.next() | 1, start = random_order.next();
    unsigned queued = 0;
    for (unsigned i = 0; i < WARP; i++) {
        unsigned lane = (start + i * step) % WARP;
        if (lane < lanes && slot.threads[first + lane].state == State::ready) queue[queued++] = &slot.threads[first + lane];
    }
    if (queued == 0) return;
    queue[queued] = nullptr;
    queue_at = queue + 1;
    current = queue[0];
    switch_to(&scheduler_stack_pointer, current->stack_pointer, current->stack, STACK_BYTES);
    CUSIM_WATCH(current = nullptr;)
}

bool same_place(const Thread& a, const Thread& b) {
    return a.collective == b.collective && a.mask == b.mask && a.line == b.line &&
           (a.file == b.file || strcmp(a.file, b.file) == 0);
}

// Resolves the warp's operations of which all lanes have arrived; whether there was one.
bool resolve_warp(Slot& slot, unsigned warp) {
    unsigned first = warp * WARP, lanes = thread_count - first < WARP ? thread_count - first : WARP;
    bool any = false;
    for (unsigned i = 0; i < lanes; i++) {
        Thread& leader = slot.threads[first + i];
        if (leader.state != State::waiting || leader.collective->block) continue;
        Thread* members[WARP];
        unsigned count = 0;
        bool complete = true;
        for (unsigned lane = 0; lane < WARP && complete; lane++) {
            if (!(leader.mask >> lane & 1)) continue;
            Thread* member = &slot.threads[first + lane];
            complete = lane < lanes && member->state == State::waiting && same_place(*member, leader);
            members[count++] = member;
        }
        // a lane that calls with a mask that leaves itself out would never be met
        if (!complete || !(leader.mask >> i & 1)) continue;
        leader.collective->resolve(members, count);
        CUSIM_WATCH(slot.watch.warp_eras[warp]++;)
        for (unsigned m = 0; m < count; m++) members[m]->state = State::ready;
        any = true;
    }
    return any;
}

// Names a file without its folders.
const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash == nullptr ? path : slash + 1;
}

// Who waits where, as one line.
std::string states(const Slot& slot) {
    std::string text;
    for (unsigned i = 0; i < thread_count;) {
        const Thread& thread = slot.threads[i];
        unsigned end = i + 1;
        auto alike = [&](const Thread& other) {
            return other.state == thread.state && (thread.state == State::returned || same_place(other, thread));
        };
        while (end < thread_count && alike(slot.threads[end])) end++;
        text += text.empty() ? "" : "; ";
        text += end - i == 1 ? "thread " + std::to_string(i)
                             : "threads " + std::to_string(i) + "-" + std::to_string(end - 1);
        if (thread.state == State::returned) {
            text += " returned";
        } else {
            char mask[24] = "";
            if (!thread.collective->block) snprintf(mask, sizeof mask, " of lanes 0x%08x", thread.mask);
            text += std::string(" in ") + thread.collective->name + mask + " at " + base_name(thread.file) + ":" +
                    std::to_string(thread.line);
        }
        i = end;
        if (text.size() > 600 && i < thread_count) return text + "; ..";
    }
    return text;
}

// Runs a block's warps to the next barrier and through it; false when the block is done or stuck.
bool advance(Slot& slot) {
    unsigned warps = (thread_count + WARP - 1) / WARP;
    if (config.schedule <= CUSIM_REVERSE) {
        for (unsigned i = 0; i < warps; i++) {
            unsigned warp = config.schedule == CUSIM_REVERSE ? warps - 1 - i : i;
            do run_warp(slot, warp);
            while (resolve_warp(slot, warp));
        }
    } else {
        unsigned runnable[MAX_THREADS / WARP];
        for (unsigned i = 0; i < warps; i++) runnable[i] = i;
        while (warps > 0) {
            unsigned pick = random_order.below(warps);
            run_warp(slot, runnable[pick]);
            if (!resolve_warp(slot, runnable[pick])) runnable[pick] = runnable[--warps];
        }
    }
    if (!complaint.empty()) return false;
    Thread* everyone[MAX_THREADS];
    unsigned returned = 0, together = 0;
    for (unsigned i = 0; i < thread_count; i++) {
        Thread& thread = slot.threads[i];
        everyone[i] = &thread;
        returned += thread.state == State::returned;
        together += thread.state == State::waiting && thread.collective->block && same_place(thread, slot.threads[0]);
    }
    if (returned == thread_count) return false;
    if (together < thread_count) {
        complain(("stuck: " + states(slot)).c_str());
        return false;
    }
    slot.threads[0].collective->resolve(everyone, thread_count);
    CUSIM_WATCH(slot.watch.era++;)
    for (unsigned i = 0; i < thread_count; i++) everyone[i]->state = State::ready;
    return true;
}

size_t static_bytes() { return size_t(__stop_cusim_shared - __start_cusim_shared); }

// Copies static shared arrays together with what a sanitizer keeps between them, which `memcpy` must not touch.
void copy(char* to, const char* from) {
    for (size_t i = 0; i < static_bytes(); i++) to[i] = from[i];
}

// Poisons a block's shared memory: NaN as f32 and as f64, other bits from schedule to schedule.
void poison(Slot& slot) {
    static const unsigned WORDS[] = {0xFFFFFFFF, 0x7FF55555};
    const char* word = reinterpret_cast<const char*>(&WORDS[config.schedule % 2]);
    for (unsigned i = 0; i < config.shared_bytes; i++) slot.dynamic[i] = word[i % 4];
    slot.statics.resize(static_bytes());
    for (size_t i = 0; i < slot.statics.size(); i++) slot.statics[i] = word[i % 4];
}

void begin(Slot& slot, unsigned block) {
    slot.index = {block % grid_size.x, block / grid_size.x % grid_size.y, block / (grid_size.x * grid_size.y)};
    slot.occupied = true;
    for (unsigned i = 0; i < thread_count; i++) {
        Thread& thread = slot.threads[i];
        thread.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
        thread.state = State::ready;
        if (!thread.started) prepare(thread, i);
    }
    poison(slot);
    CUSIM_WATCH(slot.watch.era++; slot.watch.grains.resize((config.shared_bytes + static_bytes()) / GRAIN + 1);)
}

char* allocate_dynamic() {
    void* memory = nullptr;
#ifdef CUSIM_ASAN
    // exactly as many bytes as were asked for, so that the sanitizer guards the next
    if (posix_memalign(&memory, 128, config.shared_bytes) != 0) abort();
#else
    if (posix_memalign(&memory, 128, config.shared_bytes + GUARD_BYTES) != 0) abort();
    memset(static_cast<char*>(memory) + config.shared_bytes, GUARD, GUARD_BYTES);
#endif
    return static_cast<char*>(memory);
}

bool guard_is_whole(const char* at) {
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        if (static_cast<unsigned char>(at[i]) != GUARD) return false;
    }
    return true;
}

// Whether the block kept inside its dynamic shared memory; the sanitizer says so at once.
void check_dynamic([[maybe_unused]] const Slot& slot) {
#ifndef CUSIM_ASAN
    if (guard_is_whole(slot.dynamic + config.shared_bytes)) return;
    complain(("wrote past its " + std::to_string(config.shared_bytes) + " bytes of dynamic shared memory").c_str());
#endif
}

// Runs every block; `complaint` says what went wrong.
void run_grid() {
    unsigned blocks = grid_size.x * grid_size.y * grid_size.z;
    std::vector<unsigned> order(blocks);
    for (unsigned i = 0; i < blocks; i++) order[i] = config.schedule == CUSIM_REVERSE ? blocks - 1 - i : i;
    if (config.schedule >= CUSIM_RANDOM) {
        for (unsigned i = blocks; i > 1; i--) std::swap(order[i - 1], order[random_order.below(i)]);
    }
    unsigned resident = config.schedule == CUSIM_INTERLEAVED ? MAX_RESIDENT : 1;
    while (slots.size() < resident) slots.push_back(std::make_unique<Slot>());
    for (unsigned i = 0; i < resident; i++) slots[i]->dynamic = allocate_dynamic();

    unsigned begun = 0, running = 0;
    Slot* loaded = nullptr;
    while (complaint.empty() && (begun < blocks || running > 0)) {
        Slot& slot = *slots[random_order.below(resident)];
        if (!slot.occupied) {
            if (begun == blocks) continue;
            begin(slot, order[begun++]);
            running++;
            if (loaded == &slot) loaded = nullptr;
        }
        // static shared arrays have one address: bring those of this block there
        if (loaded != &slot && static_bytes() > 0) {
            if (loaded != nullptr) copy(loaded->statics.data(), __start_cusim_shared);
            copy(__start_cusim_shared, slot.statics.data());
        }
        loaded = &slot;
        block_index = slot.index;
        dynamic_shared = slot.dynamic;
        CUSIM_WATCH(watch = &slot.watch; first_thread = slot.threads.data(); dynamic_bytes = config.shared_bytes;)
        if (!advance(slot)) {
            check_dynamic(slot);
            slot.occupied = false;
            running--;
        }
    }
    for (unsigned i = 0; i < resident; i++) {
        Slot& slot = *slots[i];
        free(slot.dynamic);
        slot.occupied = false;
        for (unsigned t = 0; t < thread_count; t++) {
            Thread& thread = slot.threads[t];
            if (thread.started && !guard_is_whole(thread.stack)) complain("a thread needs more local memory than there is");
            // what waits will never return
            if (!complaint.empty()) thread.started = false;
        }
#ifdef CUSIM_ASAN
        if (!complaint.empty()) __asan_unpoison_memory_region(slot.stacks, MAX_THREADS * STACK_BYTES);
#endif
    }
}

// What a driver would refuse before the first block.
std::string refusal() {
    if (grid_size.x == 0 || grid_size.y == 0 || grid_size.z == 0) return "an empty grid";
    if (grid_size.y > 65535 || grid_size.z > 65535) return "a grid of more than 65535 blocks along y or z";
    uint64_t threads = uint64_t(block_size.x) * block_size.y * block_size.z;
    if (threads == 0 || threads > kernel->launch_bounds) {
        return "a block of " + std::to_string(threads) + " threads; its launch bounds say " +
               std::to_string(kernel->launch_bounds);
    }
    if (threads > MAX_THREADS) return "a block of more than 1024 threads";
    if (config.shared_bytes > MAX_SHARED_BYTES) return "more than 99 KiB of dynamic shared memory";
    return "";
}

}  // namespace

void complain(const char* message) {
    if (!complaint.empty()) return;
    auto triple = [](Index i) {
        return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
    };
    complaint = std::string("kernel `") + kernel->name + "`, block " + triple(block_index) + " of " + triple(grid_size) +
                ", " + std::to_string(thread_count) + " threads: " + message;
}

void meet(const Collective& collective, unsigned mask, void* operands, const char* file, int line) {
    Thread* self = current;
    self->collective = &collective;
    self->mask = mask;
    self->operands = operands;
    self->file = file;
    self->line = line;
    self->state = State::waiting;
    suspend();
}

}  // namespace cusim

using namespace cusim;

extern "C" int cusim_launch(const Kernel* which, const cusim_launch_config* how, void** values, char* message,
                            size_t capacity) {
    // one launch at a time: static shared arrays and the running thread are the module's
    std::lock_guard<std::mutex> lock(launching);
    kernel = which;
    params = values;
    config = *how;
    grid_size = {how->grid[0], how->grid[1], how->grid[2]};
    block_size = {how->block[0], how->block[1], how->block[2]};
    block_index = {};
    thread_count = block_size.x * block_size.y * block_size.z;
    random_order = {how->seed * 2654435761u + 1};
    complaint.clear();
    find_scheduler_stack();
    std::string refused = refusal();
    CUSIM_WATCH(race[0] = nullptr;)
    if (refused.empty()) {
        run_grid();
        CUSIM_WATCH(watch = nullptr; complaint += places();)
    } else {
        complain(refused.c_str());
    }
    if (capacity > 0) {
        strncpy(message, complaint.c_str(), capacity - 1);
        message[capacity - 1] = 0;
    }
    return complaint.empty() ? 0 : 1;
}

extern "C" void cusim_forbid(const void* bytes, size_t count, int forbidden) {
#ifdef CUSIM_ASAN
    if (forbidden) {
        __asan_poison_memory_region(bytes, count);
    } else {
        __asan_unpoison_memory_region(bytes, count);
    }
#else
    (void)bytes, (void)count, (void)forbidden;
#endif
}
