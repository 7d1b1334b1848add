// keep_memory(): sweeps and searches take and give back the same megabytes for every plan. The C
// library would return them to the system each time, and a fifth of a prediction of a pipeline went
// into getting them again.
#pragma once

#include <cstdlib>  // defines __GLIBC__

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace headway::cli {

inline void keep_memory() {
#ifdef __GLIBC__
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

}  // namespace headway::cli
