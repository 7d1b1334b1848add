#include "models/vocab/cluster.hpp"

namespace headway {

PathClass path_class(const Cluster& cluster, int source, int destination) {
    if (source == destination) return PathClass::self;
    if (cluster.nvlink && source / cluster.nvlink->domain == destination / cluster.nvlink->domain) {
        return PathClass::nvlink;
    }
    const int source_node = cluster.node_of(source);
    const int destination_node = cluster.node_of(destination);
    if (source_node == destination_node) return PathClass::pcie;
    if (!cluster.fabric || cluster.fabric->nodes_per_leaf == 0) return PathClass::nic;
    const bool same_leaf = source_node / cluster.fabric->nodes_per_leaf ==
                           destination_node / cluster.fabric->nodes_per_leaf;
    return same_leaf ? PathClass::nic : PathClass::spine;
}

}  // namespace headway
