// Which links the traffic of a group crosses: groups of one plan may lie on nodes and leaves in
// different ways, and the step waits for the one that lies worst. Private to models/workload.
#pragma once

#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/workload/link_load.hpp"

namespace headway::inline workload {

// Seconds a byte for what a rank sends, or receives, over the links of each class: what decides
// which rank is busiest. NICs carry what crosses the spine too.
double link_seconds(const Cluster& cluster, const PathCounts& counts);

// Ranks `first`, `first` + stride, ... of a group that a rank of it exchanges with, by class.
PathCounts peers_of(const Cluster& cluster, int rank, int first, int count, int stride);

// Sum of values[d] over the members first + d stride of a group on each class from `rank`;
// running[d] is the sum of the values before d.
PathCounts by_class(const Cluster& cluster, int rank, int first, const std::vector<double>& running,
                    int stride = 1);

// Whether all members of all groups of `group_size` ranks have as many peers on each class.
bool groups_alike(const Cluster& cluster, int group_size);

// First rank of the group whose worst rank has the slowest links to its peers.
int worst_group(const Cluster& cluster, int group_size);

// Peers by class of a rank that exchanges with every `stride`-th of a group of `group_size`: of the
// mean rank of the group that lies worst, and of its rank with the slowest links.
struct PeerCounts {
    PathCounts mean{}, worst{};
};
PeerCounts exchange_peers(const Cluster& cluster, int group_size, int stride);

// Keeps the counts of the rank whose links take longest.
inline void keep_slowest(const Cluster& cluster, const PathCounts& counts, PathCounts& worst) {
    if (link_seconds(cluster, counts) > link_seconds(cluster, worst) * (1.0 + 1e-12))
        worst = counts;
}

}  // namespace headway::inline workload
