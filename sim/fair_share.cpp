#include "sim/fair_share.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace headway::sim {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Filling {
    std::vector<double> residual;   // [link]
    std::vector<double> crossings;  // [link], of flows that are not frozen

    // The link with the least level, and that level; infinity when every flow is frozen.
    std::pair<std::size_t, double> next_bottleneck() const {
        std::pair<std::size_t, double> best{0, kInfinity};
        for (std::size_t l = 0; l < residual.size(); ++l) {
            if (crossings[l] <= 0.0) continue;
            const double level = std::max(residual[l], 0.0) / crossings[l];
            if (level < best.second) best = {l, level};
        }
        return best;
    }
};

}  // namespace

std::vector<double> max_min_rates(std::span<const double> capacity,
                                  std::span<const FlowPath> flows) {
    std::vector<double> rates(flows.size(), kInfinity);
    Filling filling{.residual = {capacity.begin(), capacity.end()},
                    .crossings = std::vector<double>(capacity.size(), 0.0)};
    for (const FlowPath& path : flows) {
        for (const Crossing& c : path) filling.crossings[c.link] += c.multiplicity;
    }
    while (true) {
        const auto [bottleneck, level] = filling.next_bottleneck();
        if (level == kInfinity) return rates;
        for (std::size_t f = 0; f < flows.size(); ++f) {
            const FlowPath& path = flows[f];
            const bool crosses = std::ranges::any_of(
                path, [b = bottleneck](const Crossing& c) { return c.link == b; });
            if (rates[f] != kInfinity || !crosses) continue;
            rates[f] = level;
            for (const Crossing& c : path) {
                filling.crossings[c.link] -= c.multiplicity;
                filling.residual[c.link] -= level * c.multiplicity;
            }
        }
        filling.crossings[bottleneck] = 0.0;
    }
}

}  // namespace headway::sim
