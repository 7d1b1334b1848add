// The links of a cluster by name: "nic_up:12", or "nic:12" for both directions. The simulator's
// link graph has them, and overrides name them.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/cluster.hpp"

namespace headway {

constexpr int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

enum class LinkKind {
    nvlink_up,
    nvlink_down,
    nvlink_pair,
    pcie_up,
    pcie_root_up,
    pcie_root_down,
    pcie_down,
    nic_up,
    leaf_up,
    core_up,
    core_down,
    core_pair,
    leaf_down,
    nic_down
};
inline constexpr std::array kLinkKindNames = {
    std::string_view("nvlink_up"),    std::string_view("nvlink_down"),
    std::string_view("nvlink_pair"),  std::string_view("pcie_up"),
    std::string_view("pcie_root_up"), std::string_view("pcie_root_down"),
    std::string_view("pcie_down"),    std::string_view("nic_up"),
    std::string_view("leaf_up"),      std::string_view("core_up"),
    std::string_view("core_down"),    std::string_view("core_pair"),
    std::string_view("leaf_down"),    std::string_view("nic_down")};
inline constexpr int kNumLinkKinds = static_cast<int>(kLinkKindNames.size());
constexpr std::string_view name(LinkKind kind) {
    return kLinkKindNames[static_cast<std::size_t>(kind)];
}
// From one GPU, or pod, to one other.
constexpr bool is_pair(LinkKind kind) {
    return kind == LinkKind::nvlink_pair || kind == LinkKind::core_pair;
}
// The path class whose traffic it carries and may slow down.
PathClass path_of(LinkKind kind);

// NICs, leaves and pods have a link in each plane, "nic_up:2.1"; leaves and pods several with ecmp,
// "leaf_up:0.3", those of one plane before the next's; a rank has one to every
// other of its domain with pairwise links, "nvlink_pair:8.1" to the GPU that is number 1 of the
// domain, and a pod of a dragonfly one to every other pod, "core_pair:2.0" to pod 0. "leaf_up:0"
// and "nvlink_pair:8" name them all.
int links_per_index(const Cluster& cluster, LinkKind kind);
// In each plane, of a NIC, a leaf or a pod of a cluster with a fabric.
int uplinks_of_plane(const Cluster& cluster, LinkKind kind);
int num_links(const Cluster& cluster, LinkKind kind);

struct NamedLink {
    LinkKind kind = LinkKind::nvlink_up;
    int index = 0;  // below num_links()

    friend bool operator==(const NamedLink&, const NamedLink&) = default;
};
std::string link_name(const Cluster& cluster, NamedLink link);
std::vector<NamedLink> links_named(const Cluster& cluster, const std::string& name);  // or none
// "nvlink_up:0..7, ..."
std::string all_link_names(const Cluster& cluster);
std::string link_hint(const Cluster& cluster, const std::string& unknown);  // or empty

// What one link of this kind carries in one direction, overrides aside; the uplinks of a leaf share
// its trunk.
Bandwidth full_bandwidth(const Cluster& cluster, LinkKind kind);
// Which of a GPU's (a pod's) pairwise links goes to `peer`, both numbers inside the domain.
int pair_slot(int own, int peer);
// Where a NIC hangs, below num_links(leaf_up) / links_per_index, and the pod above, of core_up;
// with rails every rail has its own.
int leaf_of_nic(const Cluster& cluster, int nic);
int pod_of_nic(const Cluster& cluster, int nic);
// With rails, a message to another rail first goes over NVLink to the GPU of its own node that has
// the number of the destination (NCCL's PXN), so that it never changes rails: that rank. Else the
// source.
int relay_of(const Cluster& cluster, int source, int destination);

// No message over a path of this class arrives before.
Seconds link_latency(const Cluster& cluster, PathClass path);

// The least bandwidth factor of a path class's links that are not dead: what an exchange of all
// ranks waits for.
double least_link_factor(const Cluster& cluster, PathClass path);

}  // namespace headway
