// What the running process has used so far, for results that report their own cost.
#pragma once

#include <cstdint>

namespace headway::cli {

double cpu_seconds();           // user and system time
std::int64_t peak_rss_bytes();  // most memory held
double usable_memory_bytes();   // of the machine, or of the limit on the process (ulimit -v)

// From now on freed memory is kept for what is allocated next: for work that allocates and frees
// megabytes again and again. Does nothing where the C library has no such switch.
void keep_freed_memory();

}  // namespace headway::cli
