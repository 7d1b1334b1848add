// The links that a message crosses between two ranks: read by the simulator's topology, and for
// what links add to its latency.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <utility>

#include "models/vocab/cluster.hpp"
#include "models/vocab/links.hpp"

namespace headway {

// In order. Empty: the message stays on its rank.
struct LinkPath {
    // Two to a rank on the right rail, then up and down through NIC, leaf and one tier more.
    static constexpr std::size_t kMaxLinks = 8;
    std::array<NamedLink, kMaxLinks> links{};
    std::size_t size = 0;

    void add(LinkKind kind, int index) { links[size++] = {kind, index}; }
    std::span<const NamedLink> span() const&& = delete;
    std::span<const NamedLink> span() const& { return {links.data(), size}; }
};

// Planes that a message between ranks of this class is sprayed over; hashed flows stay on one.
int planes_of(const Cluster& cluster, PathClass path);
// In one of them. `ecmp_seed` moves the pairs to other uplinks and planes where flows are hashed.
LinkPath link_path(const Cluster& cluster, int source, int destination, std::uint64_t ecmp_seed = 0,
                   int plane = 0);

// What links add by latencies of their own (link_overrides).
class AddedLatency {
  public:
    explicit AddedLatency(const Cluster& cluster);
    bool any() const { return !of_link_.empty(); }
    // The most that a path of this class adds between two of {r, r + stride, ...}, `count` ranks,
    // over all such groups that tile the world.
    Seconds worst(PathClass path, int count, int stride) const;

  private:
    Seconds of(const LinkPath& path) const;
    int index_of(NamedLink link) const;

    const Cluster& cluster_;
    // By kind and index; of links that share one, the most.
    std::map<std::pair<LinkKind, int>, Seconds> of_link_;
};

}  // namespace headway
