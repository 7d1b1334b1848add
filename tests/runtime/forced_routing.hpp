// Routings that a layer under test is given, as the Workload draws them.
#pragma once

#include <vector>

#include "models/workload/routing.hpp"
#include "tests/runtime/run_layers.hpp"

namespace headway::runtime {

// Routings that stress a dispatch: uniform, skewed so that most experts get nothing, one hot
// expert's neighbourhood.
inline std::vector<Routing> routings(std::uint64_t seed) {
    return {
        {.seed = seed},
        {.skew = Skew::zipf, .parameter = 2.5, .seed = seed},
        {.skew = Skew::dirichlet, .parameter = 0.02, .scope = SkewScope::per_source, .seed = seed}};
}

inline std::vector<Assignment> draw(const Routing& routing, const LayerCase& c, int head = 0) {
    std::vector<Assignment> result;
    for (std::size_t r = 0; r < c.tokens.size(); ++r) {
        result.push_back(sample_assignment(routing, {c.num_experts, c.top_k},
                                           {.head = head, .source_rank = static_cast<int>(r)},
                                           c.tokens[r]));
    }
    return result;
}

inline std::vector<std::vector<std::int32_t>> experts_of(
    const std::vector<Assignment>& assignments) {
    std::vector<std::vector<std::int32_t>> result;
    for (const Assignment& a : assignments) result.push_back(a.expert);
    return result;
}

}  // namespace headway::runtime
