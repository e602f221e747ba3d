// The device behind the fake driver: memory, streams whose work waits until someone waits for it, graphs, kernels.
//
// A real device does enqueued work some time between the call and the wait. This one does it as late as it may: what
// the host reads or overwrites without waiting is then always wrong, instead of sometimes.
#pragma once
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "launch.h"

namespace fake {

// results of driver calls, as CUresult numbers them
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
    STREAM_CAPTURE_UNSUPPORTED = 900,
};

// A setting of the fake device, from the environment.
inline const char* setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value == nullptr ? otherwise : value;
}

// Tells the tester why a call is refused, which a real driver does not.
inline Result refuse(Result result, const std::string& why) {
    fprintf(stderr, "fake driver: %s\n", why.c_str());
    return result;
}

// Device memory, or page-locked memory of the host: blocks by their start.
class Blocks {
  public:
    explicit Blocks(unsigned char fresh) : fresh(fresh) {}

    void* allocate(size_t bytes) {
        void* start = nullptr;
        if (posix_memalign(&start, 512, bytes) != 0) return nullptr;
        // never zero: what is not written shows
        memset(start, fresh, bytes);
        sizes[uintptr_t(start)] = bytes;
        total += bytes;
        return start;
    }

    bool release(void* start) {
        auto block = sizes.find(uintptr_t(start));
        if (block == sizes.end()) return false;
        total -= block->second;
        sizes.erase(block);
        free(start);
        return true;
    }

    // Whether all bytes lie in one block.
    bool holds(uintptr_t at, size_t bytes) const {
        auto block = sizes.upper_bound(at);
        if (block == sizes.begin()) return false;
        --block;
        return at + bytes <= block->first + block->second;
    }

    size_t bytes() const { return total; }

  private:
    unsigned char fresh;
    std::map<uintptr_t, size_t> sizes;
    size_t total = 0;
};

using Work = std::function<Result()>;

struct Graph {
    std::vector<Work> nodes;
};

struct Stream {
    std::deque<Work> waiting;
    // What is recorded in place of being done, while a capture lasts.
    std::unique_ptr<Graph> capture;
};

struct Event {
    bool timed;
    // Stream of the last record; none before the first.
    Stream* stream = nullptr;
    bool reached = false;
    unsigned records = 0, polls = 0;
    std::chrono::steady_clock::time_point at;
};

// A kernel of a loaded module.
struct Function {
    std::string name;
    const cusim::Kernel* kernel;
    int (*launch)(const cusim::Kernel*, const cusim_launch_config*, void**, char*, size_t);
    int max_dynamic_shared = 48 << 10;
};

struct Module {
    std::string text;
    std::map<std::string, std::unique_ptr<Function>> functions;
};

class Device {
  public:
    Blocks memory{0xCD};
    Blocks pinned{0xCE};
    std::set<Stream*> streams;

    // The first failure of a kernel; every later call has it too, as on a real device.
    Result failed() const { return sticky; }

    size_t memory_limit() const { return strtoull(setting("FAKECUDA_MEMORY", "1073741824"), nullptr, 10); }

    Result enqueue(Stream& stream, Work work) {
        if (stream.capture) {
            stream.capture->nodes.push_back(std::move(work));
        } else {
            stream.waiting.push_back(std::move(work));
        }
        return SUCCESS;
    }

    // Does the work of a stream, until `done` says that it is enough.
    template <class Done>
    Result run_until(Stream& stream, Done done) {
        while (sticky == SUCCESS && !stream.waiting.empty() && !done()) {
            Work work = std::move(stream.waiting.front());
            stream.waiting.pop_front();
            sticky = work();
        }
        return sticky;
    }

    Result drain(Stream& stream) {
        return run_until(stream, [] { return false; });
    }

    Result drain_all() {
        for (Stream* stream : streams) drain(*stream);
        return sticky;
    }

    // Runs a kernel now.
    Result run(const Function& function, cusim_launch_config config, std::vector<std::vector<char>>& params) {
        if (Result wrong = check_table(function, config, params)) return wrong;
        if (fails_by_order(function)) return refuse(LAUNCH_FAILED, "`" + function.name + "` fails, as it was told");
        std::vector<void*> pointers;
        for (auto& bytes : params) pointers.push_back(bytes.data());
        config.schedule = unsigned(atoi(setting("FAKECUDA_SCHEDULE", "0"))) % CUSIM_SCHEDULES;
        config.seed = launches++;
        char message[2048];
        int failed = function.launch(function.kernel, &config, pointers.data(), message, sizeof message);
        return failed ? refuse(LAUNCH_FAILED, message) : SUCCESS;
    }

    // The parameters that kernels of this project take: a shape, the table of sessions, a slice for every argument.
    Result check_params(const Function& function, const cusim_launch_config& config,
                        const std::vector<std::vector<char>>& params) const {
        if (params.size() != 3) return refuse(INVALID_VALUE, function.name + " does not take three parameters");
        if (!memory.holds(word_at<uintptr_t>(params[1], 0), 4 * (1 + config.grid[1]))) {
            return refuse(INVALID_VALUE, function.name + ": the table of sessions is not in device memory");
        }
        for (size_t at = 0; at < params[2].size(); at += 16) {
            uintptr_t start = word_at<uintptr_t>(params[2], at);
            size_t stride = word_at<unsigned>(params[2], at + 8), words = word_at<unsigned>(params[2], at + 12);
            std::string which = function.name + ": argument " + std::to_string(at / 16);
            if (words > stride) return refuse(INVALID_VALUE, which + " has slices that overlap");
            if (words == 0) continue;
            if (start % 64 != 0 || stride % 16 != 0) return refuse(INVALID_VALUE, which + " is not aligned to 64 bytes");
            if (!memory.holds(start, 4 * stride * config.grid[1])) {
                return refuse(INVALID_VALUE, which + " is not in device memory for every session");
            }
        }
        return SUCCESS;
    }

  private:
    Result sticky = SUCCESS;
    unsigned launches = 0;
    std::map<std::string, int> runs;

    template <class T>
    static T word_at(const std::vector<char>& bytes, size_t at) {
        T word;
        memcpy(&word, bytes.data() + at, sizeof word);
        return word;
    }

    // The table as it is when the kernel runs: as many sessions as the grid has room for, each of them once.
    Result check_table(const Function& function, const cusim_launch_config& config,
                       const std::vector<std::vector<char>>& params) const {
        const unsigned* table = word_at<const unsigned*>(params[1], 0);
        std::set<unsigned> sessions;
        bool right = table[0] <= config.grid[1];
        for (unsigned i = 0; right && i < table[0]; i++) {
            right = table[1 + i] < config.grid[1] && sessions.insert(table[1 + i]).second;
        }
        return right ? SUCCESS : refuse(LAUNCH_FAILED, function.name + ": the table of sessions is wrong");
    }

    // `FAKECUDA_FAIL=entry:3`: the third run of that kernel fails.
    bool fails_by_order(const Function& function) {
        std::string order = setting("FAKECUDA_FAIL", "");
        size_t colon = order.find(':');
        if (order.substr(0, colon) != function.name) return false;
        return ++runs[function.name] == (colon == std::string::npos ? 1 : atoi(order.c_str() + colon + 1));
    }
};

// Bytes of each parameter that PTX declares for an entry; empty where there is no such entry.
inline std::vector<size_t> declared_params(const std::string& ptx, const std::string& entry) {
    size_t at = ptx.find(".entry " + entry + "(");
    if (at == std::string::npos) return {};
    std::istringstream list(ptx.substr(at, ptx.find(')', at) - at));
    std::vector<size_t> bytes;
    for (std::string param; std::getline(list, param, ',');) {
        size_t bracket = param.rfind('[');
        bytes.push_back(bracket == std::string::npos ? 8 : strtoul(param.c_str() + bracket + 1, nullptr, 10));
    }
    return bytes;
}

// Opens a kernel that the PTX of a module declares: the same source, compiled for this machine. The file named by
// `FAKECUDA_KERNELS` says where: an entry and the path of a shared object on each line.
inline Result open_function(const Module& module, const std::string& name, std::unique_ptr<Function>& opened) {
    std::vector<size_t> declared = declared_params(module.text, name);
    if (declared.empty()) return NOT_FOUND;
    std::ifstream list(setting("FAKECUDA_KERNELS", ""));
    std::string entry, path;
    while (list >> entry >> path && entry != name) {
    }
    if (entry != name) return refuse(NOT_FOUND, "`" + name + "` is not in the list of kernels");
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return refuse(NOT_FOUND, dlerror());
    auto kernels = reinterpret_cast<const cusim::Kernel* (*)(unsigned*)>(dlsym(library, "cusim_kernels"));
    opened = std::make_unique<Function>();
    opened->name = name;
    opened->launch = reinterpret_cast<decltype(opened->launch)>(dlsym(library, "cusim_launch"));
    unsigned count = 0;
    const cusim::Kernel* rows = kernels(&count);
    for (unsigned i = 0; i < count; i++) {
        if (name == rows[i].name) opened->kernel = &rows[i];
    }
    const cusim::Kernel& kernel = *opened->kernel;
    if (declared != std::vector<size_t>(kernel.param_sizes, kernel.param_sizes + kernel.params)) {
        return refuse(INVALID_IMAGE, "`" + name + "`: the PTX declares other parameters than the source");
    }
    return SUCCESS;
}

}  // namespace fake
