// What the running process has used so far, for results that report their own cost.
#pragma once

#include <cstdint>

namespace headway::cli {

double cpu_seconds();           // user and system time
std::int64_t peak_rss_bytes();  // most memory held

}  // namespace headway::cli
