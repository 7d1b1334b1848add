#include "runtime/host.hpp"

#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

namespace headway::runtime {

std::string cpu_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        if (line.rfind("model name", 0) != 0) continue;
        const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
        if (begin != std::string::npos) return line.substr(begin);
    }
    return "unknown CPU";
}

std::string host_name() {
    char name[256] = {};
    gethostname(name, sizeof(name) - 1);
    return name;
}

int num_cores() {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
    return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

Bytes physical_memory() {
    const double pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
    double bytes = pages * static_cast<double>(sysconf(_SC_PAGESIZE));
    std::ifstream group("/sys/fs/cgroup/memory.max");
    double limit = 0.0;
    if (group >> limit && limit > 0.0) bytes = std::min(bytes, limit);
    return bytes * byte;
}

void prepare_timed_memory() {
    // One arena, grown by brk: per-thread arenas and large blocks would be mapped and unmapped.
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_TOP_PAD, 64 << 20);
    // A page that is written for the first time costs as much as moving some of its rows. Steps of
    // a training find their memory touched; so do the phases that are timed here.
    constexpr double kTouched = 512.0 * 1024 * 1024;
    const auto bytes =
        static_cast<std::size_t>(std::min(kTouched, physical_memory().in(byte) / 8.0));
    if (volatile char* block = static_cast<volatile char*>(std::malloc(bytes))) {
        for (std::size_t i = 0; i < bytes; i += 4096) block[i] = 0;
        std::free(const_cast<char*>(block));
    }
}

}  // namespace headway::runtime
