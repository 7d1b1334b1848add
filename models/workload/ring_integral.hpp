// The integral behind hit probabilities of skewed popularity (inclusion.hpp). Private to
// models/workload.
#pragma once

#include <vector>

namespace headway::inline workload {

// Groups of equal runs of experts of which a token may use `top`: the chance that each is open, and
// the odds of independent openings that have these chances given `top` open ones (conditional
// Poisson sampling).
struct OpenGroups {
    int top = 1;
    std::vector<double> chance, odds;  // [groups]
};

// Chance that the first k clocks to ring, of those in open groups, hold one of each part; for each
// partition of the experts into equal runs. Rates sum to 1; more than k of them are positive.
std::vector<std::vector<double>> reached_by_first_rings(const std::vector<double>& rates, int top_k,
                                                        const OpenGroups* groups,
                                                        const std::vector<int>& partitions);

}  // namespace headway::inline workload
