// A random routing for checks of everything behind the router: k distinct experts per sub-token,
// uniform, and gates that sum to one. `hot` of 1 sends every sub-token's first choice to expert 0
// of its head.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {

struct HostRoutingInput {
    std::vector<std::int32_t> index;
    std::vector<float> gate;
};

inline HostRoutingInput random_routing(const Shape& shape, std::uint32_t seed, bool hot = false) {
    std::mt19937 random(seed);
    std::vector<std::int32_t> experts(shape.num_experts);
    for (int e = 0; e < shape.num_experts; ++e) experts[e] = e;
    HostRoutingInput out;
    out.index.reserve(std::size_t(shape.num_rows()));
    out.gate.reserve(std::size_t(shape.num_rows()));
    for (long token = 0; token < shape.num_subtokens(); ++token) {
        float sum = 0;
        const std::size_t first = out.gate.size();
        for (int j = 0; j < shape.top_k; ++j) {
            const auto left = std::uint32_t(shape.num_experts - j);
            std::swap(experts[j], experts[j + random() % left]);
            out.gate.push_back(std::exp(float(random() >> 8) * 0x1p-24f));
            sum += out.gate.back();
        }
        if (hot) {
            const auto zero = std::find(experts.begin(), experts.end(), 0);
            std::iter_swap(experts.begin(), zero);
        }
        out.index.insert(out.index.end(), experts.begin(), experts.begin() + shape.top_k);
        for (std::size_t i = first; i < out.gate.size(); ++i) out.gate[i] /= sum;
    }
    return out;
}

}  // namespace headway::kernels::bench
