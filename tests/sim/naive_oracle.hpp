// The definition of max-min sharing, written as plainly as possible: at every start and completion
// solve the whole system anew. Shares no code with sim/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace headway::sim::oracle {

struct Flow {
    std::vector<std::uint32_t> links;
    double bytes = 0.0;
    double start = 0.0;    // seconds
    double finish = -1.0;  // result
};

inline std::vector<double> rates(const std::vector<double>& capacity,
                                 const std::vector<Flow>& flows, const std::vector<bool>& active) {
    std::vector<double> rate(flows.size(), -1.0), residual = capacity;
    while (true) {
        double level = std::numeric_limits<double>::infinity();
        std::size_t bottleneck = 0;
        for (std::size_t l = 0; l < capacity.size(); ++l) {
            double open = 0.0;
            for (std::size_t f = 0; f < flows.size(); ++f) {
                const bool crosses = std::ranges::count(flows[f].links, l) > 0;
                open += active[f] && rate[f] < 0.0 && crosses ? 1.0 : 0.0;
            }
            if (open > 0.0 && residual[l] / open < level) {
                level = residual[l] / open;
                bottleneck = l;
            }
        }
        if (level == std::numeric_limits<double>::infinity()) return rate;
        for (std::size_t f = 0; f < flows.size(); ++f) {
            if (!active[f] || rate[f] >= 0.0) continue;
            if (std::ranges::count(flows[f].links, bottleneck) == 0) continue;
            rate[f] = level;
            for (const std::uint32_t l : flows[f].links) residual[l] -= level;
        }
    }
}

inline void run(const std::vector<double>& capacity, std::vector<Flow>& flows) {
    std::vector<double> left;
    for (const Flow& f : flows) left.push_back(f.bytes);
    std::vector<bool> active(flows.size(), false);
    double now = 0.0;
    while (true) {
        double next_start = std::numeric_limits<double>::infinity();
        for (std::size_t f = 0; f < flows.size(); ++f) {
            if (flows[f].finish >= 0.0) continue;
            active[f] = flows[f].start <= now;
            if (!active[f]) next_start = std::min(next_start, flows[f].start);
        }
        const std::vector<double> rate = rates(capacity, flows, active);
        double next = next_start;
        for (std::size_t f = 0; f < flows.size(); ++f) {
            if (active[f]) next = std::min(next, now + left[f] / rate[f]);
        }
        if (next == std::numeric_limits<double>::infinity()) return;
        for (std::size_t f = 0; f < flows.size(); ++f) {
            if (!active[f]) continue;
            left[f] -= rate[f] * (next - now);
            if (left[f] <= 1e-9 * flows[f].bytes) {
                flows[f].finish = next;
                active[f] = false;
            }
        }
        now = next;
    }
}

}  // namespace headway::sim::oracle
