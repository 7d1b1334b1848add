// One all-to-all on an otherwise idle cluster: every pair with bytes in the matrix is one flow, all
// start at once and share links by max-min fairness. A uniform matrix on a symmetric topology
// collapses to the flows of one rank; anything else runs flow by flow, one engine for each set of
// flows that share links. The bound max_l load(l) / C(l) is reported beside the result.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/vocab/traffic_matrix.hpp"
#include "models/vocab/units.hpp"
#include "sim/topology.hpp"

namespace headway::sim {

struct AllToAllOptions {
    double epsilon = 0.0;  // 0: exact; else completions within this fraction of the whole are one
    bool collapse = true;  // use symmetry where there is any
};

struct LinkUse {
    std::string name;
    Bandwidth capacity;
    Bytes bytes;
    Seconds busy;  // time with at least one flow on the link
};

struct AllToAllResult {
    std::optional<Unreachable> unreachable;  // it cannot be done; the rest is empty then
    Seconds completion;
    Seconds mean_flow_completion;
    Seconds lower_bound;  // no schedule on these paths is faster
    Seconds error_bound;  // of `completion`; 0 when exact
    std::int64_t flows = 0;
    std::int64_t instants = 0;         // distinct moments at which rates changed
    std::vector<Seconds> rank_finish;  // last byte sent or received
    std::vector<LinkUse> links;        // those that carried anything
};

AllToAllResult all_to_all(const Topology& topology, const TrafficMatrix& matrix,
                          const AllToAllOptions& options = {});

}  // namespace headway::sim
