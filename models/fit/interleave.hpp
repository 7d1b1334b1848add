// Order of measurement: every pass goes through all cases once, each time in another random order,
// so that drift of a machine (clocks, temperature, neighbours) does not look like a size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "models/workload/random.hpp"

namespace headway::inline fit {

// Indices of the cases as they are measured. More passes of the same seed begin with the fewer.
inline std::vector<std::size_t> interleaved(std::size_t num_cases, int num_passes,
                                            std::uint64_t seed) {
    Random random({seed});
    std::vector<std::size_t> one_pass(num_cases), order;
    std::iota(one_pass.begin(), one_pass.end(), std::size_t{0});
    for (int pass = 0; pass < num_passes; ++pass) {
        random.shuffle(one_pass);
        order.insert(order.end(), one_pass.begin(), one_pass.end());
    }
    return order;
}

}  // namespace headway::inline fit
