#include "sim/path_table.hpp"

namespace headway::sim {

PathTable::PathTable(const Topology& topology) : topology_(topology) {
    const int n = topology.num_ranks();
    const auto pairs = static_cast<std::size_t>(n) * static_cast<std::size_t>(n);
    routes_.reserve(pairs);
    begin_.reserve(pairs + 1);
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) {
            begin_.push_back(routes_.size());
            const PathClass path_class = headway::path_class(topology.cluster(), i, j);
            for (int plane = 0; plane < planes_of(topology.cluster(), path_class); ++plane) {
                const Path path = topology.path(i, j, plane);
                if (topology.is_alive(path)) routes_.push_back({path, path_class});
            }
        }
    }
    begin_.push_back(routes_.size());
}

std::span<const Route> PathTable::routes(int source, int destination) const {
    const auto n = static_cast<std::size_t>(topology_.num_ranks()),
               pair = static_cast<std::size_t>(source) * n + static_cast<std::size_t>(destination);
    const std::size_t begin = begin_[pair], end = begin_[pair + 1];
    if (begin == end) (void)topology_.live_paths(source, destination);  // throws
    return {routes_.data() + begin, end - begin};
}

}  // namespace headway::sim
