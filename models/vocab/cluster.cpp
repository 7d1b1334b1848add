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

Bandwidth link_bandwidth(const Cluster& cluster, PathClass path) {
    switch (path) {
        case PathClass::nvlink:
            return cluster.nvlink ? cluster.nvlink->bandwidth : Bandwidth{};
        case PathClass::pcie:
            return cluster.pcie ? cluster.pcie->bandwidth : Bandwidth{};
        case PathClass::nic:
        case PathClass::spine:
            if (!cluster.fabric) return {};
            return cluster.fabric->nic *
                   (static_cast<double>(cluster.fabric->nics_per_node) / cluster.gpus_per_node);
        case PathClass::self:
            break;
    }
    return {};
}

}  // namespace headway
