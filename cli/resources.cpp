#include "cli/resources.hpp"

#include <sys/resource.h>

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

}  // namespace headway::cli
