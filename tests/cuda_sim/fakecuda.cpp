// A `libcuda.so.1` for machines without a GPU: the calls that src/device/cuda/driver.rs makes, over device.h.
//
// What it is told by the environment: FAKECUDA_KERNELS (list of compiled kernels; without it there is no device),
// FAKECUDA_DEVICES, FAKECUDA_MEMORY (bytes), FAKECUDA_VERSION, FAKECUDA_CAPABILITY (`90`), FAKECUDA_SCHEDULE,
// FAKECUDA_FAIL (`entry:run`), FAKECUDA_JIT_ERROR (the log of a compiler that refuses every module).
#include <mutex>

#include "device.h"

using namespace fake;

namespace {

using Pointer = unsigned long long;

// Functions of a process that still wants the device at its very end find it.
Device& device = *new Device;
std::mutex one_call;
thread_local bool has_context = false;
// What would wait is forbidden to a thread that captures.
thread_local bool captures = false;

char context_handle;

Stream& stream_of(void* handle) { return *static_cast<Stream*>(handle); }

// Whether a call may be made: in a context, on a device that still works.
Result ready() {
    if (!has_context) return refuse(INVALID_CONTEXT, "a call in a thread without a context");
    return device.failed();
}

// As `ready`, for calls that a capturing thread must not make.
Result ready_to_wait() {
    if (captures) return refuse(STREAM_CAPTURE_UNSUPPORTED, "a call that waits, inside a capture");
    return ready();
}

bool in_device(Pointer at, size_t bytes) {
    if (device.memory.holds(at, bytes)) return true;
    refuse(INVALID_VALUE, "bytes outside of device memory");
    return false;
}

}  // namespace

#define CALL extern "C" __attribute__((visibility("default"))) int
#define LOCK std::lock_guard<std::mutex> lock(one_call)
#define CHECK(check) \
    if (Result wrong = (check)) return wrong

CALL cuInit(unsigned) { return *setting("FAKECUDA_KERNELS", "") == 0 ? NO_DEVICE : SUCCESS; }

CALL cuDriverGetVersion(int* version) {
    *version = atoi(setting("FAKECUDA_VERSION", "12080"));
    return SUCCESS;
}

CALL cuGetErrorString(int error, const char** text) {
    static const std::map<int, const char*> TEXTS = {
        {SUCCESS, "no error"},
        {INVALID_VALUE, "invalid argument"},
        {OUT_OF_MEMORY, "out of memory"},
        {NO_DEVICE, "no CUDA-capable device is detected"},
        {INVALID_DEVICE, "invalid device ordinal"},
        {INVALID_IMAGE, "device kernel image is invalid"},
        {INVALID_CONTEXT, "invalid device context"},
        {INVALID_PTX, "a PTX JIT compilation failed"},
        {INVALID_HANDLE, "invalid resource handle"},
        {NOT_FOUND, "named symbol not found"},
        {NOT_READY, "device not ready"},
        {LAUNCH_FAILED, "unspecified launch failure"},
        {STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
    };
    auto found = TEXTS.find(error);
    *text = found == TEXTS.end() ? nullptr : found->second;
    return found == TEXTS.end() ? INVALID_VALUE : SUCCESS;
}

// ---- devices and contexts

CALL cuDeviceGetCount(int* count) {
    *count = atoi(setting("FAKECUDA_DEVICES", "1"));
    return SUCCESS;
}

CALL cuDeviceGet(int* number, int ordinal) {
    *number = ordinal;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

CALL cuDeviceGetName(char* name, int bytes, int) {
    snprintf(name, size_t(bytes), "FakeCUDA (CPU)");
    return SUCCESS;
}

CALL cuDeviceGetAttribute(int* value, int attribute, int) {
    int capability = atoi(setting("FAKECUDA_CAPABILITY", "90"));
    static const std::map<int, int> VALUES = {
        {1, 1024},     // threads of a block
        {10, 32},      // threads of a warp
        {13, 1000000}, // clock, kHz
        {16, 4},       // multiprocessors
        {36, 1000000}, // memory clock, kHz
        {37, 1024},    // memory bus, bits
        {38, 4 << 20}, // level 2 cache, bytes
        {39, 2048},    // threads of a multiprocessor
        {81, 102400},  // shared memory of a multiprocessor, bytes
        {82, 65536},   // registers of a multiprocessor
        {97, 101376},  // dynamic shared memory that a block may ask for, bytes: the least of all devices since 8.0
    };
    auto found = VALUES.find(attribute);
    if (attribute == 75 || attribute == 76) {
        *value = attribute == 75 ? capability / 10 : capability % 10;
    } else if (found != VALUES.end()) {
        *value = found->second;
    } else {
        return refuse(INVALID_VALUE, "device attribute " + std::to_string(attribute) + " is not known");
    }
    return SUCCESS;
}

CALL cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &context_handle;
    return SUCCESS;
}

CALL cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

CALL cuCtxSetCurrent(void* context) {
    has_context = context == &context_handle;
    return SUCCESS;
}

// ---- memory

CALL cuMemGetInfo_v2(size_t* free, size_t* total) {
    LOCK;
    CHECK(ready());
    *total = device.memory_limit();
    *free = *total - device.memory.bytes();
    return SUCCESS;
}

CALL cuMemAlloc_v2(Pointer* at, size_t bytes) {
    LOCK;
    CHECK(ready_to_wait());
    if (bytes == 0) return refuse(INVALID_VALUE, "an allocation of nothing");
    // a context of its own takes a little of what was free
    size_t limit = device.memory_limit(), reserve = limit / 64;
    if (bytes > limit - device.memory.bytes() - reserve) return OUT_OF_MEMORY;
    *at = Pointer(device.memory.allocate(bytes));
    return *at == 0 ? OUT_OF_MEMORY : SUCCESS;
}

CALL cuMemFree_v2(Pointer at) {
    LOCK;
    CHECK(ready_to_wait());
    CHECK(device.drain_all());
    return device.memory.release(reinterpret_cast<void*>(at)) ? SUCCESS : refuse(INVALID_VALUE, "freed twice");
}

CALL cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    LOCK;
    CHECK(ready_to_wait());
    *at = device.pinned.allocate(bytes);
    return *at == nullptr ? OUT_OF_MEMORY : SUCCESS;
}

CALL cuMemFreeHost(void* at) {
    LOCK;
    CHECK(ready_to_wait());
    CHECK(device.drain_all());
    return device.pinned.release(at) ? SUCCESS : refuse(INVALID_VALUE, "freed twice");
}

CALL cuMemsetD32Async(Pointer at, unsigned value, size_t count, void* stream) {
    LOCK;
    CHECK(ready());
    if (at % 4 != 0 || !in_device(at, 4 * count)) return INVALID_VALUE;
    return device.enqueue(stream_of(stream), [=] {
        unsigned* words = reinterpret_cast<unsigned*>(at);
        for (size_t i = 0; i < count; i++) words[i] = value;
        return SUCCESS;
    });
}

CALL cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* stream) {
    LOCK;
    CHECK(ready());
    if (!in_device(to, bytes)) return INVALID_VALUE;
    void* target = reinterpret_cast<void*>(to);
    if (device.pinned.holds(uintptr_t(from), bytes)) {
        // read when the stream comes to it: the host must not have written there again
        return device.enqueue(stream_of(stream), [=] { return memcpy(target, from, bytes), SUCCESS; });
    }
    // other memory is read before the call returns
    const char* bytes_from = static_cast<const char*>(from);
    std::vector<char> staged(bytes_from, bytes_from + bytes);
    return device.enqueue(stream_of(stream), [=] { return memcpy(target, staged.data(), bytes), SUCCESS; });
}

CALL cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* stream) {
    LOCK;
    CHECK(ready());
    if (!in_device(from, bytes)) return INVALID_VALUE;
    const void* source = reinterpret_cast<const void*>(from);
    if (device.pinned.holds(uintptr_t(to), bytes)) {
        // who does not wait reads this
        memset(to, 0xDD, bytes);
        return device.enqueue(stream_of(stream), [=] { return memcpy(to, source, bytes), SUCCESS; });
    }
    // copies to other memory are done when the call returns
    CHECK(ready_to_wait());
    CHECK(device.drain(stream_of(stream)));
    memcpy(to, source, bytes);
    return SUCCESS;
}

// ---- streams and graphs

CALL cuStreamCreate(void** stream, unsigned) {
    LOCK;
    CHECK(ready_to_wait());
    Stream* made = new Stream;
    device.streams.insert(made);
    *stream = made;
    return SUCCESS;
}

CALL cuStreamDestroy_v2(void* stream) {
    LOCK;
    CHECK(ready());
    Result drained = device.drain(stream_of(stream));
    device.streams.erase(static_cast<Stream*>(stream));
    delete static_cast<Stream*>(stream);
    return drained;
}

CALL cuStreamSynchronize(void* stream) {
    LOCK;
    CHECK(ready_to_wait());
    return device.drain(stream_of(stream));
}

CALL cuStreamBeginCapture_v2(void* stream, int) {
    LOCK;
    CHECK(ready_to_wait());
    stream_of(stream).capture = std::make_unique<Graph>();
    captures = true;
    return SUCCESS;
}

CALL cuStreamEndCapture(void* stream, void** graph) {
    LOCK;
    CHECK(ready());
    if (!stream_of(stream).capture) return refuse(INVALID_VALUE, "the end of a capture that never began");
    *graph = stream_of(stream).capture.release();
    captures = false;
    return SUCCESS;
}

// An executable graph, which outlives its handle while a launch of it is still to be done.
using Executable = std::shared_ptr<const Graph>;

CALL cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    LOCK;
    CHECK(ready());
    *executable = new Executable(std::make_shared<Graph>(*static_cast<Graph*>(graph)));
    return SUCCESS;
}

CALL cuGraphDestroy(void* graph) {
    LOCK;
    CHECK(ready());
    delete static_cast<Graph*>(graph);
    return SUCCESS;
}

CALL cuGraphUpload(void*, void*) {
    LOCK;
    return ready();
}

CALL cuGraphLaunch(void* executable, void* stream) {
    LOCK;
    CHECK(ready());
    return device.enqueue(stream_of(stream), [graph = *static_cast<Executable*>(executable)] {
        for (const Work& node : graph->nodes) CHECK(node());
        return SUCCESS;
    });
}

CALL cuGraphExecDestroy(void* executable) {
    LOCK;
    CHECK(ready());
    delete static_cast<Executable*>(executable);
    return SUCCESS;
}

// ---- events

// An event, which outlives its handle while a mark of it is still in a stream.
using Mark = std::shared_ptr<Event>;

static Event& event_of(void* handle) { return **static_cast<Mark*>(handle); }

CALL cuEventCreate(void** event, unsigned flags) {
    constexpr unsigned DISABLE_TIMING = 2;
    LOCK;
    CHECK(ready());
    auto made = std::make_shared<Event>();
    made->timed = !(flags & DISABLE_TIMING);
    *event = new Mark(std::move(made));
    return SUCCESS;
}

CALL cuEventDestroy_v2(void* event) {
    LOCK;
    CHECK(ready());
    delete static_cast<Mark*>(event);
    return SUCCESS;
}

CALL cuEventRecord(void* handle, void* stream) {
    LOCK;
    CHECK(ready());
    Mark event = *static_cast<Mark*>(handle);
    event->stream = static_cast<Stream*>(stream);
    event->reached = false;
    event->polls = 0;
    unsigned record = ++event->records;
    return device.enqueue(stream_of(stream), [=] {
        // a later record is what is waited for now
        if (event->records == record) event->reached = true;
        event->at = std::chrono::steady_clock::now();
        return SUCCESS;
    });
}

static Result reach(Event& event) {
    // an event that was never recorded is past
    if (event.stream == nullptr) return SUCCESS;
    return device.run_until(*event.stream, [&] { return event.reached; });
}

CALL cuEventQuery(void* event) {
    constexpr unsigned POLLS = 3;
    LOCK;
    CHECK(ready());
    Event& mark = event_of(event);
    if (mark.stream == nullptr || mark.reached) return SUCCESS;
    // who asks again and again sees the device come to it
    return ++mark.polls < POLLS ? NOT_READY : reach(mark);
}

CALL cuEventSynchronize(void* event) {
    LOCK;
    CHECK(ready_to_wait());
    return reach(event_of(event));
}

CALL cuEventElapsedTime(float* ms, void* from, void* to) {
    LOCK;
    CHECK(ready());
    Event &began = event_of(from), &ended = event_of(to);
    if (!began.timed || !ended.timed || !began.stream || !ended.stream) return INVALID_HANDLE;
    if (!began.reached || !ended.reached) return NOT_READY;
    *ms = std::chrono::duration<float, std::milli>(ended.at - began.at).count();
    return SUCCESS;
}

// ---- modules and kernels

// Writes the log of the compiler where the options ask for it.
static void write_log(const char* log, unsigned count, const int* options, void** values) {
    constexpr int ERROR_LOG_BUFFER = 5, ERROR_LOG_BUFFER_SIZE_BYTES = 6;
    char* buffer = nullptr;
    for (unsigned i = 0; i < count; i++) {
        if (options[i] == ERROR_LOG_BUFFER) buffer = static_cast<char*>(values[i]);
    }
    for (unsigned i = 0; i < count && buffer != nullptr; i++) {
        if (options[i] != ERROR_LOG_BUFFER_SIZE_BYTES) continue;
        snprintf(buffer, uintptr_t(values[i]), "%s", log);
        values[i] = reinterpret_cast<void*>(strlen(buffer));
    }
}

CALL cuModuleLoadDataEx(void** module, const void* image, unsigned count, int* options, void** values) {
    LOCK;
    CHECK(ready_to_wait());
    const char* text = static_cast<const char*>(image);
    const char* log = setting("FAKECUDA_JIT_ERROR", "");
    if (strstr(text, ".version") == nullptr) log = "ptxas fatal: Missing .version directive at start of file";
    if (*log != 0) {
        write_log(log, count, options, values);
        return INVALID_PTX;
    }
    *module = new Module{text, {}};
    return SUCCESS;
}

CALL cuModuleUnload(void* module) {
    LOCK;
    CHECK(ready());
    delete static_cast<Module*>(module);
    return SUCCESS;
}

CALL cuModuleGetFunction(void** function, void* handle, const char* name) {
    LOCK;
    CHECK(ready());
    Module& module = *static_cast<Module*>(handle);
    auto& slot = module.functions[name];
    if (!slot) CHECK(open_function(module, name, slot));
    *function = slot.get();
    return SUCCESS;
}

constexpr int MAX_THREADS_PER_BLOCK = 0, MAX_DYNAMIC_SHARED = 8;

CALL cuFuncSetAttribute(void* function, int attribute, int value) {
    LOCK;
    CHECK(ready());
    if (attribute != MAX_DYNAMIC_SHARED || value > 101376) return refuse(INVALID_VALUE, "an attribute out of range");
    static_cast<Function*>(function)->max_dynamic_shared = value;
    return SUCCESS;
}

CALL cuFuncGetAttribute(int* value, int attribute, void* handle) {
    LOCK;
    CHECK(ready());
    const Function& function = *static_cast<Function*>(handle);
    // registers and local memory are the compiler's: this one has none
    *value = attribute == MAX_DYNAMIC_SHARED      ? function.max_dynamic_shared
             : attribute == MAX_THREADS_PER_BLOCK ? int(function.kernel->launch_bounds)
                                                  : 0;
    return SUCCESS;
}

CALL cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                    unsigned block_z, unsigned shared_bytes, void* stream, void** values, void**) {
    LOCK;
    CHECK(ready());
    const Function& function = *static_cast<Function*>(handle);
    if (int(shared_bytes) > function.max_dynamic_shared) {
        return refuse(INVALID_VALUE, function.name + ": more shared memory than the kernel was allowed");
    }
    cusim_launch_config config = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, 0, 0};
    // parameters are copied before the call returns
    std::vector<std::vector<char>> params;
    for (unsigned i = 0; i < function.kernel->params; i++) {
        const char* value = static_cast<const char*>(values[i]);
        params.emplace_back(value, value + function.kernel->param_sizes[i]);
    }
    CHECK(device.check_params(function, config, params));
    return device.enqueue(stream_of(stream), [=, &function]() mutable { return device.run(function, config, params); });
}
