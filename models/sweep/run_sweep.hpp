// Points of a sweep on all cores: each is a function of its number alone, and rows leave in order,
// so that the output does not depend on the number of threads.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

#include "models/sweep/sweep_file.hpp"

namespace headway::inline sweep {

struct RunOptions {
    int threads = 1;
    Shard shard;
    std::size_t begin = 0;  // points of this shard that are there already
};

// Calls `take` with the rows of one point after the other, from one thread at a time; an exception
// from it, or from a point, ends the run.
void run_sweep(const Sweep& sweep, const RowOptions& rows, const RunOptions& options,
               const std::function<void(std::string_view rows, std::size_t num_done)>& take);

}  // namespace headway::inline sweep
