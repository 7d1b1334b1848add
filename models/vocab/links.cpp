#include "models/vocab/links.hpp"

#include <algorithm>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

// A GPU with several NICs of its own sees them as one of their sum.
int merged_nics(const Cluster& c) {
    return std::min(c.fabric->nics_per_node, c.gpus_per_node);
}

// Whose switches' links they are; null: none.
const Tier* tier_of(const Tiers& tiers, LinkKind kind) {
    const auto* tier = std::ranges::find(tiers, path_of(kind), &Tier::path);
    return tier == tiers.end() ? nullptr : tier;
}

// Leaves or pods, one of each rail.
int num_blocks(const Cluster& c, LinkKind kind) {
    const Tiers tiers = tiers_of(c);
    const Tier* tier = tier_of(tiers, kind);
    if (tier == nullptr) return 0;
    return static_cast<int>((c.num_nodes + tier->nodes - 1) / tier->nodes) *
           (c.fabric->rails ? merged_nics(c) : 1);
}

int block_of_nic(const Cluster& c, int nic, std::int64_t nodes) {
    const int nics = merged_nics(c), block = nodes > 0 ? static_cast<int>(nic / nics / nodes) : 0;
    return c.fabric->rails ? block * nics + nic % nics : block;
}

int number_among_peers(const Cluster& c, LinkKind kind, int index) {
    return kind == LinkKind::nvlink_pair ? index % c.nvlink->domain : index;
}

// The last part of the name of a link that shares its index, "leaf_up:0.3", and back; -1: none.
int part_of(const Cluster& c, LinkKind kind, int index, int slot) {
    if (!is_pair(kind)) return slot;
    return slot < number_among_peers(c, kind, index) ? slot : slot + 1;
}

int slot_of(const Cluster& c, LinkKind kind, int index, int part) {
    const int each = links_per_index(c, kind);
    if (!is_pair(kind)) return part < each ? part : -1;
    const int own = number_among_peers(c, kind, index);
    return part == own || part > each ? -1 : pair_slot(own, part);
}

// A whole number without sign or blanks, or -1.
int index_of(std::string_view text) {
    if (text.empty() || text.size() > 7) return -1;
    int index = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return -1;
        index = 10 * index + (c - '0');
    }
    return text.size() > 1 && text[0] == '0' ? -1 : index;
}

}  // namespace

PathClass path_of(LinkKind kind) {
    switch (kind) {
        case LinkKind::nvlink_up:
        case LinkKind::nvlink_down:
        case LinkKind::nvlink_pair:
            return PathClass::nvlink;
        case LinkKind::nic_up:
        case LinkKind::nic_down:
            return PathClass::nic;
        case LinkKind::leaf_up:
        case LinkKind::leaf_down:
            return PathClass::spine;
        case LinkKind::core_up:
        case LinkKind::core_down:
        case LinkKind::core_pair:
            return PathClass::core;
        case LinkKind::pcie_up:
        case LinkKind::pcie_root_up:
        case LinkKind::pcie_root_down:
        case LinkKind::pcie_down:
            break;
    }
    return PathClass::pcie;
}

int links_per_index(const Cluster& cluster, LinkKind kind) {
    if (kind == LinkKind::nvlink_pair)
        return cluster.has_pairwise_links() ? cluster.nvlink->domain - 1 : 1;
    if (kind == LinkKind::core_pair) return std::max(1, num_pods(cluster) - 1);
    if (!cluster.fabric || !crosses_nic(path_of(kind))) return 1;
    return cluster.fabric->planes * uplinks_of_plane(cluster, kind);
}

int uplinks_of_plane(const Cluster& cluster, LinkKind kind) {
    const Fabric& fabric = *cluster.fabric;
    if (fabric.spraying != Spraying::ecmp || path_of(kind) == PathClass::nic) return 1;
    if (path_of(kind) == PathClass::spine) return fabric.uplinks_per_leaf;
    return fabric.core ? fabric.core->uplinks_per_pod : 1;
}

int num_links(const Cluster& c, LinkKind kind) {
    const int per_switch = c.pcie ? c.pcie->gpus_per_switch : 0;
    switch (kind) {
        case LinkKind::nvlink_up:
        case LinkKind::nvlink_down:
            return c.nvlink && !c.has_pairwise_links() ? c.num_ranks() : 0;
        case LinkKind::nvlink_pair:
            return c.has_pairwise_links() ? c.num_ranks() * links_per_index(c, kind) : 0;
        case LinkKind::pcie_up:
        case LinkKind::pcie_down:
            return c.pcie ? c.num_ranks() : 0;
        case LinkKind::pcie_root_up:
        case LinkKind::pcie_root_down:
            return per_switch > 0 ? c.num_nodes * divide_up(c.gpus_per_node, per_switch) : 0;
        case LinkKind::nic_up:
        case LinkKind::nic_down:
            return c.fabric ? c.num_nodes * merged_nics(c) * links_per_index(c, kind) : 0;
        case LinkKind::leaf_up:
        case LinkKind::leaf_down:
            return num_blocks(c, kind) * links_per_index(c, kind);
        case LinkKind::core_up:
        case LinkKind::core_down:
            return c.has_pod_pairs() ? 0 : num_blocks(c, kind) * links_per_index(c, kind);
        case LinkKind::core_pair: {
            const int pods = c.has_pod_pairs() ? num_pods(c) : 1;
            return pods * (pods - 1);
        }
    }
    return 0;
}

std::string link_name(const Cluster& cluster, NamedLink link) {
    std::string text = std::string(name(link.kind)) + ':';
    const int each = links_per_index(cluster, link.kind);
    if (each == 1) return text + std::to_string(link.index);
    const int index = link.index / each;
    return text + std::to_string(index) + '.' +
           std::to_string(part_of(cluster, link.kind, index, link.index % each));
}

std::vector<NamedLink> links_named(const Cluster& cluster, const std::string& name) {
    std::vector<NamedLink> links;
    const std::size_t colon = name.find(':');
    if (colon == std::string::npos) return links;
    const std::string kind_name = name.substr(0, colon);
    const std::size_t dot = name.find('.', colon);
    const bool has_part = dot != std::string::npos;
    const int index = index_of(std::string_view(name).substr(
                  colon + 1, has_part ? dot - colon - 1 : std::string::npos)),
              part = has_part ? index_of(std::string_view(name).substr(dot + 1)) : 0;
    if (index < 0 || part < 0) return links;
    for (int k = 0; k < kNumLinkKinds; ++k) {
        const auto kind = static_cast<LinkKind>(k);
        const std::string own(headway::name(kind));
        if (own != kind_name && own != kind_name + "_up" && own != kind_name + "_down") continue;
        const int each = links_per_index(cluster, kind);
        if (index >= num_links(cluster, kind) / each || (has_part && each == 1)) continue;
        const int slot = has_part ? slot_of(cluster, kind, index, part) : 0;
        if (slot < 0) continue;
        for (int u = slot; u < (has_part ? slot + 1 : each); ++u)
            links.push_back({kind, index * each + u});
    }
    return links;
}

std::string all_link_names(const Cluster& cluster) {
    std::string text;
    for (int k = 0; k < kNumLinkKinds; ++k) {
        const auto kind = static_cast<LinkKind>(k);
        const int count = num_links(cluster, kind) / links_per_index(cluster, kind);
        if (count == 0) continue;
        text += (text.empty() ? "" : ", ") + std::string(name(kind)) + ":0.." +
                std::to_string(count - 1);
    }
    return text;
}

std::string link_hint(const Cluster& cluster, const std::string& unknown) {
    std::vector<std::string> kinds;
    for (int k = 0; k < kNumLinkKinds; ++k) {
        const auto kind = static_cast<LinkKind>(k);
        if (num_links(cluster, kind) == 0) continue;
        const std::string_view full = name(kind);
        kinds.emplace_back(full.substr(0, full.rfind('_')));  // both directions
        kinds.emplace_back(full);
    }
    const std::string kind = unknown.substr(0, unknown.find(':')), near = did_you_mean(kind, kinds);
    return near.empty() || near == kind ? "" : "did you mean '" + near + "'?";
}

Bandwidth full_bandwidth(const Cluster& c, LinkKind kind) {
    if (num_links(c, kind) == 0) return {};
    const Fabric fabric = c.fabric.value_or(Fabric{});
    switch (kind) {
        case LinkKind::nvlink_up:
        case LinkKind::nvlink_down:
            return c.nvlink->bandwidth;
        case LinkKind::nvlink_pair:
            return c.nvlink->bandwidth / links_per_index(c, kind);
        case LinkKind::pcie_up:
        case LinkKind::pcie_down:
            return c.pcie->bandwidth;
        case LinkKind::pcie_root_up:
        case LinkKind::pcie_root_down:
            return c.pcie->root_bandwidth;
        case LinkKind::nic_up:
        case LinkKind::nic_down:
            if (fabric.nics_per_node <= c.gpus_per_node) return fabric.nic / fabric.planes;
            return fabric.nic * fabric.nics_per_node / c.gpus_per_node / fabric.planes;
        case LinkKind::core_pair:
            return fabric.core->pair_bandwidth;
        case LinkKind::leaf_up:
        case LinkKind::leaf_down:
        case LinkKind::core_up:
        case LinkKind::core_down:
            break;
    }
    const Tiers tiers = tiers_of(c);
    const Tier* tier = tier_of(tiers, kind);
    const double nics = static_cast<double>(tier->nodes) * (fabric.rails ? 1 : merged_nics(c));
    return full_bandwidth(c, LinkKind::nic_up) * nics / tier->narrowing / uplinks_of_plane(c, kind);
}

int leaf_of_nic(const Cluster& cluster, int nic) {
    return block_of_nic(cluster, nic, cluster.fabric->nodes_per_leaf);
}

int pod_of_nic(const Cluster& cluster, int nic) {
    return block_of_nic(cluster, nic, nodes_of_pod(*cluster.fabric));
}

int relay_of(const Cluster& cluster, int source, int destination) {
    const int nics = merged_nics(cluster);
    if (!cluster.fabric->rails ||
        nic_of(cluster, source) % nics == nic_of(cluster, destination) % nics)
        return source;
    const int relay =
        cluster.node_of(source) * cluster.gpus_per_node + destination % cluster.gpus_per_node;
    return path_class(cluster, source, relay) == PathClass::nvlink ? relay : source;
}

int pair_slot(int own, int peer) {
    return peer < own ? peer : peer - 1;
}

Seconds link_latency(const Cluster& cluster, PathClass path) {
    switch (path) {
        case PathClass::nvlink:
            return cluster.nvlink ? cluster.nvlink->latency : Seconds{};
        case PathClass::pcie:
            return cluster.pcie ? cluster.pcie->latency : Seconds{};
        case PathClass::nic:
            return cluster.fabric ? cluster.fabric->nic_latency : Seconds{};
        case PathClass::spine:
            // It passes the NICs too.
            return cluster.fabric ? max(cluster.fabric->spine_latency, cluster.fabric->nic_latency)
                                  : Seconds{};
        case PathClass::core: {
            const Seconds below = link_latency(cluster, PathClass::spine);
            return cluster.fabric && cluster.fabric->core
                       ? max(cluster.fabric->core->latency, below)
                       : below;
        }
        case PathClass::self:
            break;
    }
    return {};
}

double least_link_factor(const Cluster& cluster, PathClass path) {
    if (cluster.link_overrides.empty()) return 1.0;
    double least = 1.0;
    bool any = false;
    std::array<int, static_cast<std::size_t>(kNumLinkKinds)> overridden{};
    for (const LinkOverride& o : cluster.link_overrides) {
        for (const NamedLink& link : links_named(cluster, o.link)) {
            if (path_of(link.kind) != path) continue;
            ++overridden[static_cast<std::size_t>(link.kind)];
            if (o.bandwidth_factor <= 0.0) continue;
            least = any ? std::min(least, o.bandwidth_factor) : o.bandwidth_factor;
            any = true;
        }
    }
    // Links that are as they were hold the others back.
    for (int k = 0; k < kNumLinkKinds; ++k) {
        const auto kind = static_cast<LinkKind>(k);
        if (path_of(kind) == path &&
            overridden[static_cast<std::size_t>(k)] < num_links(cluster, kind))
            least = std::min(least, 1.0);
    }
    return least;
}

}  // namespace headway
