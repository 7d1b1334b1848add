#include "sim/topology.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "models/vocab/error.hpp"

namespace headway::sim {
namespace {

constexpr Bandwidth kBytesPerSecond = byte / second;

int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

bool needs_fabric(const Cluster& c) {
    if (c.num_nodes == 1) return false;
    return !c.nvlink || c.nvlink->domain < c.num_ranks();
}

void check(const Cluster& c) {
    if (needs_fabric(c) && !c.fabric) {
        throw InputError(InputProblem{.where = "cluster " + c.name,
                                      .found = fmt::format("{} nodes and no fabric", c.num_nodes),
                                      .accepted = "a fabric, or one NVLink domain over all ranks",
                                      .hint = ""});
    }
    const int reach = c.nvlink ? c.nvlink->domain : 1;
    if (c.gpus_per_node > reach && !c.pcie) {
        throw InputError(
            InputProblem{.where = "cluster " + c.name,
                         .found = fmt::format("{} GPUs in a node, NVLink domains of {} and no PCIe",
                                              c.gpus_per_node, reach),
                         .accepted = "NVLink over the whole node, or pcie",
                         .hint = ""});
    }
}

// A GPU with several NICs of its own sees them as one NIC of their sum.
Cluster with_merged_nics(Cluster c) {
    if (c.fabric && c.fabric->nics_per_node > c.gpus_per_node) {
        c.fabric->nic = c.fabric->nic * c.fabric->nics_per_node / c.gpus_per_node;
        c.fabric->nics_per_node = c.gpus_per_node;
    }
    return c;
}

// splitmix64 finaliser.
std::uint64_t mix(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

}  // namespace

Topology::Topology(const Cluster& given, std::uint64_t ecmp_seed)
    : cluster_(with_merged_nics(given)), ecmp_seed_(ecmp_seed) {
    check(cluster_);
    num_uplinks_ = links_per_leaf(cluster_);
    for (int k = 0; k < kNumLinkKinds; ++k) {
        const auto kind = static_cast<LinkKind>(k);
        add_links(kind, full_bandwidth(cluster_, kind).in(kBytesPerSecond));
    }
    for (const LinkOverride& o : cluster_.link_overrides) apply(o);
}

void Topology::add_links(LinkKind kind, double bytes_per_second) {
    const auto k = static_cast<std::size_t>(kind);
    const int count = headway::num_links(cluster_, kind);
    first_[k] = static_cast<std::uint32_t>(capacity_.size());
    capacity_.insert(capacity_.end(), static_cast<std::size_t>(count), bytes_per_second);
    first_[k + 1] = static_cast<std::uint32_t>(capacity_.size());
}

LinkKind Topology::kind(std::uint32_t link) const {
    int k = 0;
    while (link >= first_[static_cast<std::size_t>(k) + 1]) ++k;
    return static_cast<LinkKind>(k);
}

std::string Topology::link_name(std::uint32_t link) const {
    const LinkKind k = kind(link);
    const auto index = static_cast<int>(link - first_[static_cast<std::size_t>(k)]);
    return headway::link_name(cluster_, {k, index});
}

void Topology::apply(const LinkOverride& override) {
    const std::vector<NamedLink> links = links_named(cluster_, override.link);
    for (const NamedLink& l : links) capacity_[link(l.kind, l.index)] *= override.bandwidth_factor;
    if (!links.empty()) return;
    throw InputError(InputProblem{
        .where = "cluster " + cluster_.name + ", link_overrides",
        .found = "no link '" + override.link + "'",
        .accepted = all_link_names(cluster_) + "; without _up or _down: both directions",
        .hint = link_hint(cluster_, override.link)});
}

int Topology::uplink_of(int source, int destination) const {
    if (num_uplinks_ == 1) return 0;
    const auto pair = static_cast<std::uint64_t>(source) << 32 |
                      static_cast<std::uint64_t>(static_cast<std::uint32_t>(destination));
    return static_cast<int>(mix(ecmp_seed_ ^ mix(pair)) % static_cast<std::uint64_t>(num_uplinks_));
}

void Topology::add_pcie_path(int source, int destination, Path& path) const {
    const int per_switch = cluster_.pcie->gpus_per_switch;
    const auto switch_of = [&](int rank) {
        return cluster_.node_of(rank) * divide_up(cluster_.gpus_per_node, per_switch) +
               rank % cluster_.gpus_per_node / per_switch;
    };
    path.add(link(LinkKind::pcie_up, source));
    if (per_switch > 0 && switch_of(source) != switch_of(destination)) {
        path.add(link(LinkKind::pcie_root_up, switch_of(source)));
        path.add(link(LinkKind::pcie_root_down, switch_of(destination)));
    }
    path.add(link(LinkKind::pcie_down, destination));
}

void Topology::add_nic_path(int source, int destination, Path& path) const {
    const int relay = relay_of(cluster_, source, destination);
    if (relay != source) {
        path.add(link(LinkKind::nvlink_up, source));
        path.add(link(LinkKind::nvlink_down, relay));
    }
    const int from = nic_of(cluster_, relay), to = nic_of(cluster_, destination);
    path.add(link(LinkKind::nic_up, from));
    if (cluster_.fabric->nodes_per_leaf > 0 &&
        leaf_of_nic(cluster_, from) != leaf_of_nic(cluster_, to)) {
        const int uplink = uplink_of(source, destination);
        path.add(link(LinkKind::leaf_up, leaf_of_nic(cluster_, from) * num_uplinks_ + uplink));
        path.add(link(LinkKind::leaf_down, leaf_of_nic(cluster_, to) * num_uplinks_ + uplink));
    }
    path.add(link(LinkKind::nic_down, to));
}

Path Topology::path(int source, int destination) const {
    Path path;
    switch (path_class(cluster_, source, destination)) {
        case PathClass::self:
            break;
        case PathClass::nvlink:
            path.add(link(LinkKind::nvlink_up, source));
            path.add(link(LinkKind::nvlink_down, destination));
            break;
        case PathClass::pcie:
            add_pcie_path(source, destination, path);
            break;
        case PathClass::nic:
        case PathClass::spine:
            add_nic_path(source, destination, path);
            break;
    }
    return path;
}

DeadPath::DeadPath(Unreachable what)
    : std::runtime_error(fmt::format("rank {} cannot reach rank {}: link {} is dead", what.source,
                                     what.destination, what.link)),
      where_(std::move(what)) {}

Path Topology::live_path(int source, int destination) const {
    const Path path = this->path(source, destination);
    for (const std::uint32_t l : path.span()) {
        if (capacity_[l] > 0.0) continue;
        throw DeadPath({.source = source, .destination = destination, .link = link_name(l)});
    }
    return path;
}

double Topology::relay_share() const {
    if (!cluster_.fabric || !cluster_.fabric->rails || !cluster_.nvlink) return 0.0;
    const Fabric& f = *cluster_.fabric;
    double slowest = std::numeric_limits<double>::infinity();
    for (const LinkKind kind : {LinkKind::nvlink_up, LinkKind::nvlink_down}) {
        for (int r = 0; r < num_ranks(); ++r) slowest = std::min(slowest, capacity_[link(kind, r)]);
    }
    const int others = std::max(1, f.nics_per_node - 1);
    return slowest > 0.0 ? others * f.nic.in(kBytesPerSecond) / slowest : 1.0;
}

bool Topology::is_symmetric() const {
    const Cluster& c = cluster_;
    if (!c.link_overrides.empty()) return false;
    if (c.nvlink && c.num_ranks() % c.nvlink->domain != 0) return false;
    if (c.pcie && c.pcie->gpus_per_switch > 0 && c.gpus_per_node % c.pcie->gpus_per_switch != 0) {
        return false;
    }
    if (!c.fabric) return true;
    const Fabric& f = *c.fabric;
    if (f.nics_per_node <= 0 || c.gpus_per_node % f.nics_per_node != 0) return false;
    if (f.nodes_per_leaf == 0) return true;
    return c.num_nodes % f.nodes_per_leaf == 0 && (f.spraying == Spraying::ideal);
}

}  // namespace headway::sim
