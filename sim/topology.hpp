// Topology: the link graph of a Cluster, and the links that a message crosses between two ranks.
// Links are one-way (every cable is two of them) and named kind:index, as link_overrides spell it:
//   nvlink_up:R, nvlink_down:R        NVLink ports of rank R, into and out of the NVSwitch
//   nvlink_pair:R.S                   pairwise link of rank R to number S of its domain
//   pcie_up:R, pcie_down:R            PCIe link of rank R
//   pcie_root_up:S, pcie_root_down:S  uplink of PCIe switch S (S counts over all nodes)
//   nic_up:N, nic_down:N              NIC N (N = node * nics_per_node + i); all NICs of a GPU that
//                                     has several are one
//   nic_up:N.P, nic_down:N.P          port P of it, with planes
//   leaf_up:L, leaf_down:L            all uplinks of leaf L as one pipe (ideal spraying); with
//                                     rails L = group * nics_per_node + rail
//   leaf_up:L.U, leaf_down:L.U        uplink U of leaf L (ecmp spraying), or its uplinks in plane U
//   core_up:P, core_down:P            the same of pod P, to the core switches
//   core_pair:P.Q                     links of pod P to pod Q of a dragonfly
// In an override "nic:3" means both directions of NIC 3, "leaf:0" every uplink of leaf 0.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/link_path.hpp"
#include "models/vocab/links.hpp"
#include "sim/flow_engine.hpp"

namespace headway::sim {

// The links of one message, in order. Empty: the message stays on its rank.
struct Path {
    static constexpr std::size_t kMaxLinks = LinkPath::kMaxLinks;
    std::array<std::uint32_t, kMaxLinks> links{};
    std::int16_t size = 0;
    std::int16_t skip = 0;  // so many leading links are known never to slow the message down

    void add(std::uint32_t link) { links[static_cast<std::size_t>(size++)] = link; }
    // The links that it competes for.
    std::span<const std::uint32_t> shared() const&& = delete;
    std::span<const std::uint32_t> shared() const& {
        return {links.data() + skip, static_cast<std::size_t>(size - skip)};
    }
    // Not of a temporary: a range-for over it would outlive the path.
    std::span<const std::uint32_t> span() const&& = delete;
    std::span<const std::uint32_t> span() const& {
        return {links.data(), static_cast<std::size_t>(size)};
    }
};

// Traffic that cannot be delivered: a result of a cluster with dead links, not an error in it.
struct Unreachable {
    int source = 0, destination = 0;  // ranks
    std::string link;
};

class DeadPath : public std::runtime_error {
  public:
    explicit DeadPath(Unreachable what);
    const Unreachable& where() const { return where_; }

  private:
    Unreachable where_;
};

class Topology {
  public:
    // Throws InputError when the cluster leaves ranks unconnected or an override names no link.
    explicit Topology(const Cluster& cluster, std::uint64_t ecmp_seed = 0);

    const Cluster& cluster() const { return cluster_; }
    int num_ranks() const { return cluster_.num_ranks(); }
    int num_links() const { return static_cast<int>(capacity_.size()); }
    // Bytes per second, overrides applied; 0: dead.
    std::span<const double> capacity() const { return capacity_; }
    std::string link_name(std::uint32_t link) const;
    LinkKind kind(std::uint32_t link) const;

    Path path(int source, int destination, int plane = 0) const;
    // A path in each plane that a message is sprayed over, but for those where a link is dead;
    // throws DeadPath when no plane is left.
    std::vector<Path> live_paths(int source, int destination) const;
    bool is_alive(const Path& path) const;
    // What the path's links add to its latency.
    Picoseconds latency(const Path& path) const;
    // The largest fraction of an NVLink port that traffic from or to the NICs of other GPUs of the
    // node can take: what those NICs can carry together over the port's bandwidth.
    double relay_share() const;

    // True if any rank can be mapped on any other with all links: full leaves and domains, ideal
    // spraying, no overrides. Then one rank's flows stand for everybody's in a uniform exchange.
    bool is_symmetric() const;

  private:
    std::uint32_t link(LinkKind kind, int index) const {
        return first_[static_cast<std::size_t>(kind)] + static_cast<std::uint32_t>(index);
    }
    void add_links(LinkKind kind, double bytes_per_second);
    void apply(const LinkOverride& override);

    Cluster cluster_;
    std::uint64_t ecmp_seed_ = 0;
    std::array<std::uint32_t, static_cast<std::size_t>(kNumLinkKinds) + 1> first_{};
    std::vector<double> capacity_;
    std::vector<Picoseconds> latency_;  // [link]; empty: none has any of its own
};

}  // namespace headway::sim
