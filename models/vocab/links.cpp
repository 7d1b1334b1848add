#include "models/vocab/links.hpp"

#include <algorithm>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

bool is_of_leaf(LinkKind kind) {
    return kind == LinkKind::leaf_up || kind == LinkKind::leaf_down;
}

int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

// A GPU with several NICs of its own sees them as one of their sum.
int merged_nics(const Cluster& c) {
    return std::min(c.fabric->nics_per_node, c.gpus_per_node);
}

int num_leaves(const Cluster& c) {
    if (!c.fabric || c.fabric->nodes_per_leaf == 0) return 0;
    return divide_up(c.num_nodes, c.fabric->nodes_per_leaf) *
           (c.fabric->rails ? merged_nics(c) : 1);
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
            return PathClass::nvlink;
        case LinkKind::nic_up:
        case LinkKind::nic_down:
            return PathClass::nic;
        case LinkKind::leaf_up:
        case LinkKind::leaf_down:
            return PathClass::spine;
        case LinkKind::pcie_up:
        case LinkKind::pcie_root_up:
        case LinkKind::pcie_root_down:
        case LinkKind::pcie_down:
            break;
    }
    return PathClass::pcie;
}

int links_per_leaf(const Cluster& cluster) {
    return cluster.fabric && cluster.fabric->spraying == Spraying::ecmp
               ? cluster.fabric->uplinks_per_leaf
               : 1;
}

int num_links(const Cluster& c, LinkKind kind) {
    const int per_switch = c.pcie ? c.pcie->gpus_per_switch : 0;
    switch (kind) {
        case LinkKind::nvlink_up:
        case LinkKind::nvlink_down:
            return c.nvlink ? c.num_ranks() : 0;
        case LinkKind::pcie_up:
        case LinkKind::pcie_down:
            return c.pcie ? c.num_ranks() : 0;
        case LinkKind::pcie_root_up:
        case LinkKind::pcie_root_down:
            return per_switch > 0 ? c.num_nodes * divide_up(c.gpus_per_node, per_switch) : 0;
        case LinkKind::nic_up:
        case LinkKind::nic_down:
            return c.fabric ? c.num_nodes * merged_nics(c) : 0;
        case LinkKind::leaf_up:
        case LinkKind::leaf_down:
            return num_leaves(c) * links_per_leaf(c);
    }
    return 0;
}

std::string link_name(const Cluster& cluster, NamedLink link) {
    std::string text = std::string(name(link.kind)) + ':';
    const bool several =
        is_of_leaf(link.kind) && cluster.fabric && cluster.fabric->spraying == Spraying::ecmp;
    if (!several) return text + std::to_string(link.index);
    const int each = links_per_leaf(cluster);
    return text + std::to_string(link.index / each) + '.' + std::to_string(link.index % each);
}

std::vector<NamedLink> links_named(const Cluster& cluster, const std::string& name) {
    std::vector<NamedLink> links;
    const std::size_t colon = name.find(':');
    if (colon == std::string::npos) return links;
    const std::string kind_name = name.substr(0, colon);
    const std::size_t dot = name.find('.', colon);
    const bool one_of_leaf = dot != std::string::npos;
    const int index = index_of(std::string_view(name).substr(
                  colon + 1, one_of_leaf ? dot - colon - 1 : std::string::npos)),
              part = one_of_leaf ? index_of(std::string_view(name).substr(dot + 1)) : 0;
    if (index < 0 || part < 0) return links;
    for (int k = 0; k < kNumLinkKinds; ++k) {
        const auto kind = static_cast<LinkKind>(k);
        const std::string own(headway::name(kind));
        if (own != kind_name && own != kind_name + "_up" && own != kind_name + "_down") continue;
        const bool leaf = is_of_leaf(kind);
        const int each = leaf ? links_per_leaf(cluster) : 1;
        if (one_of_leaf && (!leaf || cluster.fabric->spraying != Spraying::ecmp || part >= each))
            continue;
        if (index >= num_links(cluster, kind) / each) continue;
        for (int u = one_of_leaf ? part : 0; u < (one_of_leaf ? part + 1 : each); ++u)
            links.push_back({kind, index * each + u});
    }
    return links;
}

std::string all_link_names(const Cluster& cluster) {
    std::string text;
    for (int k = 0; k < kNumLinkKinds; ++k) {
        const auto kind = static_cast<LinkKind>(k);
        const int count =
            num_links(cluster, kind) / (is_of_leaf(kind) ? links_per_leaf(cluster) : 1);
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
    const std::string near = did_you_mean(unknown.substr(0, unknown.find(':')), kinds);
    return near.empty() ? "" : "did you mean '" + near + "'?";
}

Bandwidth full_bandwidth(const Cluster& c, LinkKind kind) {
    if (num_links(c, kind) == 0) return {};
    const Fabric fabric = c.fabric.value_or(Fabric{});
    switch (kind) {
        case LinkKind::nvlink_up:
        case LinkKind::nvlink_down:
            return c.nvlink->bandwidth;
        case LinkKind::pcie_up:
        case LinkKind::pcie_down:
            return c.pcie->bandwidth;
        case LinkKind::pcie_root_up:
        case LinkKind::pcie_root_down:
            return c.pcie->root_bandwidth;
        case LinkKind::nic_up:
        case LinkKind::nic_down:
            if (fabric.nics_per_node <= c.gpus_per_node) return fabric.nic;
            return fabric.nic * fabric.nics_per_node / c.gpus_per_node;
        case LinkKind::leaf_up:
        case LinkKind::leaf_down:
            break;
    }
    const int nics = fabric.nodes_per_leaf * (fabric.rails ? 1 : merged_nics(c));
    return full_bandwidth(c, LinkKind::nic_up) * nics / fabric.oversubscription / links_per_leaf(c);
}

int leaf_of_nic(const Cluster& cluster, int nic) {
    const int nics = merged_nics(cluster), per_leaf = cluster.fabric->nodes_per_leaf,
              group = per_leaf > 0 ? nic / nics / per_leaf : 0;
    return cluster.fabric->rails ? group * nics + nic % nics : group;
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
