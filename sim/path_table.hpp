// PathTable: the routes between all pairs of ranks of a Topology, worked out once.
#pragma once

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
    // Throws DeadPath if a link of it is dead.
    const Route& route(int source, int destination) const;

  private:
    static constexpr std::int16_t kDead = -1;

    const Topology& topology_;
    std::vector<Route> routes_;  // [source, destination]; dead ones have size kDead
};

// Bytes of a PathTable.
constexpr double bytes_of_routes(int num_ranks) {
    return double{sizeof(Route)} * num_ranks * num_ranks;
}

}  // namespace headway::sim
