#include "sim/path_table.hpp"

#include <algorithm>

namespace headway::sim {

PathTable::PathTable(const Topology& topology) : topology_(topology) {
    const int n = topology.num_ranks();
    routes_.reserve(static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) {
            Route route{.path = topology.path(i, j),
                        .path_class = headway::path_class(topology.cluster(), i, j)};
            const bool alive = std::ranges::all_of(
                route.path.span(), [&](std::uint32_t l) { return topology.capacity()[l] > 0.0; });
            if (!alive) route.path.size = kDead;
            routes_.push_back(route);
        }
    }
}

const Route& PathTable::route(int source, int destination) const {
    const auto n = static_cast<std::size_t>(topology_.num_ranks());
    const Route& route =
        routes_[static_cast<std::size_t>(source) * n + static_cast<std::size_t>(destination)];
    if (route.path.size == kDead) (void)topology_.live_path(source, destination);  // throws
    return route;
}

}  // namespace headway::sim
