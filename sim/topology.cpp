#include "sim/topology.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "models/vocab/error.hpp"

namespace headway::sim {
namespace {

constexpr Bandwidth kBytesPerSecond = byte / second;

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

}  // namespace

Topology::Topology(const Cluster& given, std::uint64_t ecmp_seed)
    : cluster_(with_merged_nics(given)), ecmp_seed_(ecmp_seed) {
    check(cluster_);
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
    if (override.latency > Seconds{}) {
        latency_.resize(capacity_.size(), 0);
        for (const NamedLink& l : links)
            latency_[link(l.kind, l.index)] += std::llround(override.latency.in(ps));
    }
    if (!links.empty()) return;
    throw InputError(InputProblem{
        .where = "cluster " + cluster_.name + ", link_overrides",
        .found = "no link '" + override.link + "'",
        .accepted = all_link_names(cluster_) + "; without _up or _down: both directions",
        .hint = link_hint(cluster_, override.link)});
}

Path Topology::path(int source, int destination, int plane) const {
    Path path;
    const LinkPath links = link_path(cluster_, source, destination, ecmp_seed_, plane);
    for (const NamedLink& l : links.span()) path.add(link(l.kind, l.index));
    return path;
}

DeadPath::DeadPath(Unreachable what)
    : std::runtime_error(fmt::format("rank {} cannot reach rank {}: link {} is dead", what.source,
                                     what.destination, what.link)),
      where_(std::move(what)) {}

std::vector<Path> Topology::live_paths(int source, int destination) const {
    std::vector<Path> paths;
    const int planes = planes_of(cluster_, path_class(cluster_, source, destination));
    std::uint32_t dead = 0;
    for (int plane = 0; plane < planes; ++plane) {
        const Path path = this->path(source, destination, plane);
        if (is_alive(path)) {
            paths.push_back(path);
            continue;
        }
        for (const std::uint32_t l : path.span()) dead = capacity_[l] > 0.0 ? dead : l;
    }
    if (paths.empty())
        throw DeadPath({.source = source, .destination = destination, .link = link_name(dead)});
    return paths;
}

bool Topology::is_alive(const Path& path) const {
    return std::ranges::all_of(path.span(), [&](std::uint32_t l) { return capacity_[l] > 0.0; });
}

Picoseconds Topology::latency(const Path& path) const {
    Picoseconds sum = 0;
    if (latency_.empty()) return sum;
    for (const std::uint32_t l : path.span()) sum += latency_[l];
    return sum;
}

double Topology::relay_share() const {
    if (!cluster_.fabric || !cluster_.fabric->rails || !cluster_.nvlink) return 0.0;
    if (cluster_.has_pairwise_links()) return 1.0;  // a NIC may fill the one link that leads to it
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
    if (f.planes > 1) return false;
    if (f.nics_per_node <= 0 || c.gpus_per_node % f.nics_per_node != 0) return false;
    const Tiers tiers = tiers_of(c);
    if (tiers.size == 0) return true;
    return c.num_nodes % tiers.end()[-1].nodes == 0 && f.spraying == Spraying::ideal;
}

}  // namespace headway::sim
