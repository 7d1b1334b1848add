// PathTable: the routes between all pairs of ranks of a Topology, worked out once.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "sim/topology.hpp"

namespace headway::sim {

struct Route {
    Path path;
    PathClass path_class = PathClass::self;
};

class PathTable {
  public:
    explicit PathTable(const Topology& topology);

    const Topology& topology() const { return topology_; }
    // One in each plane that a message is sprayed over, in equal parts. Throws DeadPath if none is
    // without a dead link.
    std::span<const Route> routes(int source, int destination) const;

  private:
    const Topology& topology_;
    std::vector<Route> routes_;       // [source, destination, plane]
    std::vector<std::size_t> begin_;  // [source, destination] in it, and the end
};

// Bytes of a PathTable.
inline double bytes_of_routes(const Cluster& cluster) {
    const double planes = cluster.fabric ? planes_of(cluster, PathClass::nic) : 1;
    return (planes * sizeof(Route) + sizeof(std::size_t)) * cluster.num_ranks() *
           cluster.num_ranks();
}

}  // namespace headway::sim
