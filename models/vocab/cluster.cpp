#include "models/vocab/cluster.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace headway {

std::int64_t nodes_of_pod(const Fabric& fabric) {
    return std::int64_t{fabric.nodes_per_leaf} * fabric.core->leaves_per_pod;
}

Tiers tiers_of(const Cluster& cluster) {
    Tiers tiers;
    if (!cluster.fabric || cluster.fabric->nodes_per_leaf == 0) return tiers;
    const Fabric& f = *cluster.fabric;
    tiers.tier[tiers.size++] = {PathClass::spine, f.nodes_per_leaf, f.oversubscription};
    if (!f.core) return tiers;
    Tier& core = tiers.tier[tiers.size++];
    core = {PathClass::core, nodes_of_pod(f), f.oversubscription * f.core->oversubscription};
    const double nics = static_cast<double>(core.nodes) * f.nics_per_node;
    if (cluster.has_pod_pairs()) {
        core.narrowing = std::max({1.0, f.oversubscription, nics * f.nic / f.core->pair_bandwidth});
    } else if (cluster.is_dragonfly()) {
        // Each pod of P sends to one other: over one link there, and over P - 2 others that need a
        // second link each, as all its links serve detours of others too: 1 + (P - 2) / 2.
        core.narrowing = nics * f.nic / (0.5 * num_pods(cluster) * f.core->pair_bandwidth);
    }
    return tiers;
}

int num_pods(const Cluster& cluster) {
    if (!cluster.fabric || !cluster.fabric->core) return 1;
    const std::int64_t nodes = nodes_of_pod(*cluster.fabric);
    return nodes == 0 ? 1 : static_cast<int>((cluster.num_nodes + nodes - 1) / nodes);
}

double pair_load(const Cluster& cluster) {
    return link_bandwidth(cluster, PathClass::core) / cluster.fabric->core->pair_bandwidth /
           tiers_of(cluster).tier[1].narrowing;
}

PathClass path_class(const Cluster& cluster, int source, int destination) {
    if (source == destination) return PathClass::self;
    if (cluster.nvlink && source / cluster.nvlink->domain == destination / cluster.nvlink->domain) {
        return PathClass::nvlink;
    }
    const int source_node = cluster.node_of(source);
    const int destination_node = cluster.node_of(destination);
    if (source_node == destination_node) return PathClass::pcie;
    if (!cluster.fabric) return cluster.nvlink ? PathClass::nvlink : PathClass::pcie;
    PathClass farthest = PathClass::nic;
    for (const Tier& tier : tiers_of(cluster))
        if (source_node / tier.nodes != destination_node / tier.nodes) farthest = tier.path;
    return farthest;
}

std::array<RankSpan, static_cast<std::size_t>(kNumPathClasses)> reach_by_class(
    const Cluster& cluster, int rank) {
    std::array<RankSpan, static_cast<std::size_t>(kNumPathClasses)> reach;
    RankSpan span{rank, rank + 1};
    // Domains, nodes and leaves lie inside one another: path_class() above.
    const auto up_to = [&](PathClass path, std::int64_t block) {
        if (block > 0) {
            const std::int64_t first = rank / block * block;
            const auto last = std::min<std::int64_t>(first + block, cluster.num_ranks());
            span = {std::min(span.begin, static_cast<int>(first)),
                    std::max(span.end, static_cast<int>(last))};
        }
        reach[static_cast<std::size_t>(path)] = span;
    };
    const std::int64_t world = cluster.num_ranks(), node = cluster.gpus_per_node;
    const Tiers tiers = tiers_of(cluster);
    up_to(PathClass::self, 1);
    up_to(PathClass::nvlink, cluster.nvlink ? cluster.nvlink->domain : 0);
    up_to(PathClass::pcie, node);
    for (const PathClass path : {PathClass::nic, PathClass::spine, PathClass::core}) {
        const auto above =
            static_cast<std::size_t>(path) - static_cast<std::size_t>(PathClass::nic);
        up_to(path, above < tiers.size ? tiers.tier[above].nodes * node : world);
    }
    return reach;
}

std::array<int, static_cast<std::size_t>(kNumPathClasses)> peers_by_class(const Cluster& cluster,
                                                                          int num_ranks,
                                                                          int stride) {
    std::array<int, static_cast<std::size_t>(kNumPathClasses)> peers{};
    // From rank 0 the classes follow one another: path_class() above.
    int begin = 1;
    const auto up_to = [&](PathClass path, std::int64_t end) {
        const int stop = static_cast<int>(std::min<std::int64_t>(end, num_ranks));
        if (stop <= begin) return;
        peers[static_cast<std::size_t>(path)] += (stop - 1) / stride - (begin - 1) / stride;
        begin = stop;
    };
    const std::int64_t node = cluster.gpus_per_node;
    if (cluster.nvlink) up_to(PathClass::nvlink, cluster.nvlink->domain);
    up_to(PathClass::pcie, node);
    if (!cluster.fabric) up_to(path_class(cluster, 0, num_ranks - 1), num_ranks);
    PathClass inside = PathClass::nic;
    for (const Tier& tier : tiers_of(cluster)) {
        up_to(inside, tier.nodes * node);
        inside = tier.path;
    }
    up_to(inside, num_ranks);
    return peers;
}

int nic_of(const Cluster& cluster, int rank) {
    const int gpu = rank % cluster.gpus_per_node,
              nics = std::min(cluster.fabric->nics_per_node, cluster.gpus_per_node);
    return cluster.node_of(rank) * nics + gpu * nics / cluster.gpus_per_node;
}

Bandwidth link_bandwidth(const Cluster& cluster, PathClass path) {
    switch (path) {
        case PathClass::nvlink:
            return cluster.nvlink ? cluster.nvlink->bandwidth : Bandwidth{};
        case PathClass::pcie:
            return cluster.pcie ? cluster.pcie->bandwidth : Bandwidth{};
        case PathClass::nic:
        case PathClass::spine:
        case PathClass::core:
            if (!cluster.fabric) return {};
            return cluster.fabric->nic *
                   (static_cast<double>(cluster.fabric->nics_per_node) / cluster.gpus_per_node);
        case PathClass::self:
            break;
    }
    return {};
}

Bandwidth host_bandwidth(const Cluster& cluster) {
    const Host& host = *cluster.host;
    Bandwidth share = min(host.bandwidth, host.memory_bandwidth / cluster.gpus_per_node);
    if (host.node_bandwidth > Bandwidth{})
        share = min(share, host.node_bandwidth / cluster.gpus_per_node);
    return share;
}

namespace {

// The most expensive class between neighbours of a ring of any group. Classes are ordered by
// nesting blocks of ranks, so that neighbours see the worst of any two members.
PathClass farthest_class(const Cluster& cluster, int group_size, int stride) {
    PathClass worst = PathClass::self;
    const int block = group_size * stride;
    // The first block shows all groups that do not tile the world (the ends of a pipeline).
    for (int first = 0; first == 0 || first + block <= cluster.num_ranks(); first += block) {
        for (int lane = 0; lane < stride; ++lane) {
            const int from = first + lane, to = from + (group_size - 1) * stride;
            if (to < cluster.num_ranks()) worst = std::max(worst, path_class(cluster, from, to));
        }
    }
    return worst;
}

}  // namespace

RingLanes ring_lanes(const Cluster& cluster, int group_size, int stride) {
    const int island = cluster.island_size();
    RingLanes ring{.farthest = farthest_class(cluster, group_size, stride)};
    const bool alike = stride >= island ? stride % island == 0 : island % stride == 0;
    const int members = alike ? std::max(1, island / stride) : 1;  // of a group on an island
    if (members % group_size == 0) ring.lanes = group_size;
    if (group_size % members == 0) ring.lanes = members;
    if (ring.lanes > 1) ring.inside = path_class(cluster, 0, stride);
    ring.of_lane = link_bandwidth(cluster, ring.farthest) / ring.lanes;
    // Pairwise links: each member sends to all others, over as many links.
    if (ring.farthest == PathClass::nvlink && cluster.has_pairwise_links())
        ring.of_lane = (group_size - 1.0) / (cluster.nvlink->domain - 1) * ring.of_lane;
    if (!crosses_nic(ring.farthest)) return ring;
    const double lanes = double{1} * std::min(stride, island) * ring.lanes,  // of an island
        nics = double{1} * cluster.fabric->nics_per_node * island / cluster.gpus_per_node;
    ring.of_lane = max(link_bandwidth(cluster, ring.farthest), cluster.fabric->nic) /
                   std::max(1.0, std::ceil(lanes / nics));
    // The lanes of those islands of a block whose neighbour lies in another share its uplinks, or
    // the links to the next pod.
    for (const Tier& tier : tiers_of(cluster)) {
        if (tier.path > ring.farthest) break;
        const double islands = static_cast<double>(
                         std::max<std::int64_t>(1, tier.nodes * cluster.gpus_per_node / island)),
                     leaving = std::min<double>(islands, std::max(1, stride / island));
        const Bandwidth uplinks = tier.path == PathClass::core && cluster.has_pod_pairs()
                                      ? cluster.fabric->core->pair_bandwidth
                                      : islands * nics / tier.narrowing * cluster.fabric->nic;
        ring.of_lane = min(ring.of_lane, uplinks / (leaving * lanes));
    }
    return ring;
}

}  // namespace headway
