#include "models/vocab/link_path.hpp"

#include <algorithm>
#include <vector>

#include "models/vocab/splitmix64.hpp"

namespace headway {
namespace {

std::uint64_t mix(std::uint64_t x) {
    return splitmix64(x);
}

// One of so many parallel links, the same for every message of the pair.
int hashed(int source, int destination, std::uint64_t seed, int links) {
    if (links == 1) return 0;
    const auto pair = static_cast<std::uint64_t>(source) << 32 |
                      static_cast<std::uint64_t>(static_cast<std::uint32_t>(destination));
    return static_cast<int>(mix(seed ^ mix(pair)) % static_cast<std::uint64_t>(links));
}

void add_nvlink(const Cluster& c, int source, int destination, LinkPath& path) {
    if (!c.has_pairwise_links()) {
        path.add(LinkKind::nvlink_up, source);
        path.add(LinkKind::nvlink_down, destination);
        return;
    }
    const int domain = c.nvlink->domain;
    path.add(LinkKind::nvlink_pair, source * links_per_index(c, LinkKind::nvlink_pair) +
                                        pair_slot(source % domain, destination % domain));
}

void add_pcie(const Cluster& c, int source, int destination, LinkPath& path) {
    const int per_switch = c.pcie->gpus_per_switch;
    const auto switch_of = [&](int rank) {
        return c.node_of(rank) * divide_up(c.gpus_per_node, per_switch) +
               rank % c.gpus_per_node / per_switch;
    };
    path.add(LinkKind::pcie_up, source);
    if (per_switch > 0 && switch_of(source) != switch_of(destination)) {
        path.add(LinkKind::pcie_root_up, switch_of(source));
        path.add(LinkKind::pcie_root_down, switch_of(destination));
    }
    path.add(LinkKind::pcie_down, destination);
}

void add_fabric(const Cluster& c, int source, int destination, std::uint64_t seed, int plane,
                LinkPath& path) {
    const int relay = relay_of(c, source, destination);
    if (relay != source) add_nvlink(c, source, relay, path);
    const int from = nic_of(c, relay), to = nic_of(c, destination);
    const auto hash = [&](std::uint64_t salt, int links) {
        return hashed(source, destination, seed ^ salt, links);
    };
    if (planes_of(c, PathClass::nic) == 1) plane = hash(2, c.fabric->planes);
    // At each tier, up by one of the uplinks and down by the other block's of its number.
    const auto link = [&](LinkKind kind, int index) {
        const int uplinks = uplinks_of_plane(c, kind);
        const bool core = path_of(kind) == PathClass::core;
        path.add(kind, index * links_per_index(c, kind) + plane * uplinks + hash(core, uplinks));
    };
    const bool leaves = c.fabric->nodes_per_leaf > 0 && leaf_of_nic(c, from) != leaf_of_nic(c, to),
               pods = path_class(c, source, destination) == PathClass::core;
    link(LinkKind::nic_up, from);
    if (leaves) link(LinkKind::leaf_up, leaf_of_nic(c, from));
    if (pods && c.has_pod_pairs()) {
        const int own = pod_of_nic(c, from), other = pod_of_nic(c, to);
        path.add(LinkKind::core_pair,
                 own * links_per_index(c, LinkKind::core_pair) + pair_slot(own, other));
    } else if (pods) {
        link(LinkKind::core_up, pod_of_nic(c, from));
        link(LinkKind::core_down, pod_of_nic(c, to));
    }
    if (leaves) link(LinkKind::leaf_down, leaf_of_nic(c, to));
    link(LinkKind::nic_down, to);
}

// Ranks whose paths may cross a link: those of its island, node, leaf or pod.
RankSpan ranks_near(const Cluster& c, NamedLink link) {
    const auto block = [&](int rank, std::int64_t size) {
        const std::int64_t first = rank / size * size;
        return RankSpan{static_cast<int>(first),
                        static_cast<int>(std::min<std::int64_t>(first + size, c.num_ranks()))};
    };
    const int index = link.index / links_per_index(c, link.kind), gpus = c.gpus_per_node;
    const PathClass path = path_of(link.kind);
    if (path == PathClass::nvlink) return block(index, c.island_size());
    const int nics = c.fabric ? std::min(c.fabric->nics_per_node, gpus) : 1;
    if (path == PathClass::nic) return block(index / nics * gpus, gpus);
    const bool root = link.kind == LinkKind::pcie_root_up || link.kind == LinkKind::pcie_root_down;
    if (root) return block(index / divide_up(gpus, c.pcie->gpus_per_switch) * gpus, gpus);
    if (path == PathClass::pcie) return block(index, gpus);
    const Tiers tiers = tiers_of(c);
    const std::int64_t ranks = tiers.tier[path == PathClass::core ? 1 : 0].nodes * gpus;
    return block(static_cast<int>((c.fabric->rails ? index / nics : index) * ranks), ranks);
}

}  // namespace

int planes_of(const Cluster& cluster, PathClass path) {
    if (!crosses_nic(path) || cluster.fabric->spraying == Spraying::ecmp) return 1;
    return cluster.fabric->planes;
}

LinkPath link_path(const Cluster& cluster, int source, int destination, std::uint64_t ecmp_seed,
                   int plane) {
    LinkPath path;
    switch (path_class(cluster, source, destination)) {
        case PathClass::self:
            break;
        case PathClass::nvlink:
            add_nvlink(cluster, source, destination, path);
            break;
        case PathClass::pcie:
            add_pcie(cluster, source, destination, path);
            break;
        case PathClass::nic:
        case PathClass::spine:
        case PathClass::core:
            add_fabric(cluster, source, destination, ecmp_seed, plane, path);
            break;
    }
    return path;
}

AddedLatency::AddedLatency(const Cluster& cluster) : cluster_(cluster) {
    for (const LinkOverride& o : cluster.link_overrides) {
        if (!(o.latency > Seconds{})) continue;
        for (const NamedLink& link : links_named(cluster, o.link)) {
            Seconds& latency = of_link_[{link.kind, index_of(link)}];
            latency = max(latency, o.latency);
        }
    }
}

// Planes and hashed uplinks are one: a message waits for the last of its planes.
int AddedLatency::index_of(NamedLink link) const {
    return is_pair(link.kind) ? link.index : link.index / links_per_index(cluster_, link.kind);
}

Seconds AddedLatency::of(const LinkPath& path) const {
    Seconds sum;
    for (const NamedLink& link : path.span()) {
        const auto found = of_link_.find({link.kind, index_of(link)});
        if (found != of_link_.end()) sum += found->second;
    }
    return sum;
}

Seconds AddedLatency::worst(PathClass path, int count, int stride) const {
    Seconds worst;
    std::vector<bool> seen(of_link_.empty() ? 0 : static_cast<std::size_t>(cluster_.num_ranks()));
    for (const auto& [link, latency] : of_link_) {
        const auto& [kind, index] = link;
        const int first_link = is_pair(kind) ? index : index * links_per_index(cluster_, kind);
        const RankSpan near = ranks_near(cluster_, {kind, first_link});
        for (int rank = near.begin; rank < near.end; ++rank) {
            if (seen[static_cast<std::size_t>(rank)]) continue;
            seen[static_cast<std::size_t>(rank)] = true;
            const int block = count * stride, first = rank / block * block + rank % stride;
            for (int i = 0; i < count; ++i) {
                const int other = first + i * stride;
                if (other >= cluster_.num_ranks() || path_class(cluster_, rank, other) != path)
                    continue;
                worst = max(worst, max(of(link_path(cluster_, rank, other)),
                                       of(link_path(cluster_, other, rank))));
            }
        }
    }
    return worst;
}

}  // namespace headway
