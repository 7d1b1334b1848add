#include <algorithm>
#include <numeric>

#include "models/workload/workload.hpp"

namespace headway::inline workload {

// Experts in order of their rows, cut where another part's worth of rows is full.
RowSpread row_spread(std::vector<double> rows) {
    RowSpread spread;
    const double total = std::accumulate(rows.begin(), rows.end(), 0.0);
    if (rows.size() < 2 || !(total > 0.0)) return spread;
    std::sort(rows.begin(), rows.end());
    if (rows.back() - rows.front() <= 1e-9 * rows.back()) return spread;
    const double mean = total / static_cast<double>(rows.size());
    const double quota = total / static_cast<double>(spread.parts.size());
    double part_rows = 0.0, part_experts = 0.0, running = 0.0;
    int filled = 0;
    for (std::size_t e = 0; e < rows.size(); ++e) {
        running += rows[e];
        part_rows += rows[e];
        part_experts += 1.0;
        const int now = static_cast<int>(running / quota + 1e-9);
        if (now == filled && e + 1 < rows.size()) continue;
        if (part_rows <= 0.0) continue;
        filled = now;
        spread.parts[static_cast<std::size_t>(spread.num_parts++)] = {
            .size = part_rows / part_experts / mean, .share = part_rows / total};
        part_rows = part_experts = 0.0;
    }
    return spread;
}

}  // namespace headway::inline workload
