#include "cli/resources.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace headway::cli {
namespace {

rusage usage() {
    rusage result{};
    getrusage(RUSAGE_SELF, &result);
    return result;
}

double seconds(const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
}

}  // namespace

double cpu_seconds() {
    const rusage u = usage();
    return seconds(u.ru_utime) + seconds(u.ru_stime);
}

std::int64_t peak_rss_bytes() {
    return std::int64_t{usage().ru_maxrss} * 1024;
}

double usable_memory_bytes() {
    const double machine =
        static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
    rlimit limit{};
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return machine;
    return std::min(machine, static_cast<double>(limit.rlim_cur));
}

void keep_freed_memory() {
#ifdef __GLIBC__
    constexpr int kMebibyte = 1 << 20;
    mallopt(M_MMAP_THRESHOLD, 512 * kMebibyte);
    mallopt(M_TRIM_THRESHOLD, 1024 * kMebibyte);
    mallopt(M_TOP_PAD, 16 * kMebibyte);
#endif
}

}  // namespace headway::cli
