// Cluster: the machine as the user describes it. Ranks are numbered node by node: rank = node *
// gpus_per_node + gpu. Bandwidths are per direction; a link is full duplex. The analytic model
// reads the tiers, the simulator builds its link graph from the same value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/model_spec.hpp"
#include "models/vocab/units.hpp"

namespace headway {

// The most expensive stretch that a pair of ranks has between them.
//   self: same rank; nvlink: same NVLink domain; pcie: same node without NVLink;
//   nic: NICs under one leaf (or one rail switch); spine: NICs across leaves; core: across pods.
enum class PathClass { self, nvlink, pcie, nic, spine, core };
inline constexpr std::array kPathClassNames = {
    std::string_view("self"), std::string_view("nvlink"), std::string_view("pcie"),
    std::string_view("nic"),  std::string_view("spine"),  std::string_view("core")};
inline constexpr int kNumPathClasses = static_cast<int>(kPathClassNames.size());
constexpr std::string_view name(PathClass c) {
    return kPathClassNames[static_cast<std::size_t>(c)];
}

constexpr bool crosses_nic(PathClass c) {
    return c >= PathClass::nic;
}

struct Device {
    std::string name;      // as the driver reports it, e.g. "NVIDIA H200"
    FlopRate peak_matmul;  // dense, bf16
    Bandwidth memory_bandwidth;
    Bytes memory;
    std::array<FlopRate, static_cast<std::size_t>(kNumDtypes)>
        peaks{};  // of other types; 0: not stated

    // Zero for a narrower type whose peak is not stated; a wider one is no faster than bf16.
    FlopRate peak(Dtype type) const {
        const Dtype unit = peak_type(type);
        const FlopRate own = peaks[static_cast<std::size_t>(unit)];
        if (unit == Dtype::bf16) return peak_matmul;
        return own > FlopRate{} || is_narrow(unit) ? own : peak_matmul;
    }
};

// Device memory that a training process cannot give to tensors.
struct Reserve {
    Bytes context = 1.0 * GiB;       // CUDA context, libraries, graphs
    Bytes communicator = 0.6 * GiB;  // NCCL's buffers, of each communicator
    double fragmentation = 0.03;     // of what the allocator holds, tensors and gaps
};

struct NvLink {
    int domain = 0;       // GPUs in one NVLink domain; may span nodes (GB200 NVL72)
    Bandwidth bandwidth;  // per GPU, one direction
    Seconds latency;
    bool pairwise = false;  // no switch: every pair has a link of its own, bandwidth / (domain - 1)
};

struct Pcie {
    Bandwidth bandwidth;      // per GPU, one direction
    int gpus_per_switch = 0;  // 0: every GPU on its own root port
    Bandwidth
        root_bandwidth;  // uplink of one switch, one direction (ignored when gpus_per_switch is 0)
    Seconds latency;
};

// The CPUs of a node and their memory, which its GPUs reach over PCIe or NVLink-C2C.
struct Host {
    Bandwidth bandwidth;         // between one GPU and host memory, one direction
    Bandwidth node_bandwidth;    // of all GPUs of a node together; 0: as many times that
    Bandwidth memory_bandwidth;  // of the memory of a node
    Bytes memory;                // of a node; 0: not stated, and nothing is bounded by it
};

enum class Spraying { ideal, ecmp };  // ecmp: a flow hashes to one uplink of the leaf
inline constexpr std::array kSprayingNames = {std::string_view("ideal"), std::string_view("ecmp")};

// Routes of a dragonfly. minimal: over the link that joins the two pods; valiant: over third pods
// too, so that what leaves a pod for any one other has half of all its links.
enum class PodRouting { minimal, valiant };
inline constexpr std::array kPodRoutingNames = {std::string_view("minimal"),
                                                std::string_view("valiant")};

// The third tier: the spines of some leaves are a pod. Core switches join the pods, or, in a
// dragonfly, links from each pod to each other one.
struct CoreTier {
    int leaves_per_pod = 1;
    double oversubscription =
        1.0;                   // of the pod's spines, their links to leaves over those to cores
    int uplinks_per_pod = 1;   // used by ecmp spraying only
    Bandwidth pair_bandwidth;  // of a pod to each other one, one direction; 0: core switches
    PodRouting routing = PodRouting::minimal;  // between such pods
    Seconds latency;                           // one way, across the core
};

struct Fabric {
    int nics_per_node = 0;
    Bandwidth nic;   // per NIC, one direction
    int planes = 1;  // each NIC has a port, 1 / planes of it, in so many trees that never meet
    bool rails =
        false;  // NIC i of every node hangs on rail switch i; other rails are reached over NVLink
    int nodes_per_leaf = 0;  // nodes under one leaf (rails: nodes under one set of rail switches);
                             // 0: one leaf for all
    double oversubscription = 1.0;        // leaf downlink over uplink capacity, 2.0 is 2:1
    int uplinks_per_leaf = 1;             // used by ecmp spraying only
    Spraying spraying = Spraying::ideal;  // over planes and uplinks
    Seconds nic_latency;                  // one way, under one leaf
    Seconds spine_latency;                // one way, across the spine
    std::optional<CoreTier> core;
};

// A link by its name in `headway explain` / simulate output ("nic:12", "leaf_up:0", "nvlink:3");
// factor 0 is dead.
struct LinkOverride {
    std::string link;
    double bandwidth_factor = 1.0;
    Seconds latency;  // what its paths take longer
};

struct RankOverride {
    int rank = 0;
    double compute_factor = 1.0;  // 0.8: this rank computes at 80 % of the speed
};

struct Cluster {
    std::string name;
    Device device;
    Reserve reserve;
    int num_nodes = 1;
    int gpus_per_node = 1;
    std::optional<NvLink> nvlink;
    std::optional<Pcie> pcie;
    std::optional<Host> host;
    std::optional<Fabric>
        fabric;  // needed when there is more than one node outside one NVLink domain
    std::vector<LinkOverride> link_overrides;
    std::vector<RankOverride> rank_overrides;
    std::string source;

    int num_ranks() const { return num_nodes * gpus_per_node; }
    int node_of(int rank) const { return rank / gpus_per_node; }
    // Ranks that reach each other without a NIC: the NVLink domain, or the node. Node-dedup counts
    // these as nodes.
    int island_size() const {
        return nvlink && nvlink->domain > gpus_per_node ? nvlink->domain : gpus_per_node;
    }
    bool has_pairwise_links() const { return nvlink && nvlink->pairwise && nvlink->domain > 1; }
    bool is_dragonfly() const {
        return fabric && fabric->core && fabric->core->pair_bandwidth > Bandwidth{};
    }
    // Messages between two pods have the links of the pair alone.
    bool has_pod_pairs() const {
        return is_dragonfly() && fabric->core->routing == PodRouting::minimal;
    }
};

// Switches above the NICs, from the leaves up: blocks of so many nodes, and the path class of pairs
// that lie in different ones.
struct Tier {
    PathClass path = PathClass::spine;
    std::int64_t nodes = 0;
    // A node's NICs over its share of the links that leave the block. Pairs of pods: over that of
    // those to one other pod, at least 1 and the tier below's (pair_load()).
    double narrowing = 1.0;
};
struct Tiers {
    std::array<Tier, 2> tier{};
    std::size_t size = 0;

    const Tier* begin() const { return tier.data(); }
    const Tier* end() const { return tier.data() + size; }
};
Tiers tiers_of(const Cluster& cluster);
std::int64_t nodes_of_pod(const Fabric& fabric);  // of one with a core
int num_pods(const Cluster& cluster);             // 1 without a core
// A rank's bytes over the core, at its narrowing, that take as long as a byte between two pods.
double pair_load(const Cluster& cluster);

// Path class of a pair of ranks. [source, destination] Without a fabric, nodes are parts of one
// machine: what lies between them is what lies between its GPUs.
PathClass path_class(const Cluster& cluster, int source, int destination);

// Ranks that `rank` reaches by this path class or a nearer one: [begin, end) of the world. Each
// class adds to the ones before it; `self` is the rank alone.
struct RankSpan {
    int begin = 0, end = 0;
};
std::array<RankSpan, static_cast<std::size_t>(kNumPathClasses)> reach_by_class(
    const Cluster& cluster, int rank);

// One rank's share of the links of a path class, one direction; zero where the cluster has no such
// link. The spine is reached through the NICs.
Bandwidth link_bandwidth(const Cluster& cluster, PathClass path);

// A GPU's part of the path to host memory, one direction, while all GPUs of its node copy that way.
Bandwidth host_bandwidth(const Cluster& cluster);

// The NIC that a rank sends and receives by, over all nodes: GPU g of a node of G has card
// floor(g N / G) of N, so that cards serve G / N GPUs each, rounded either way. With more cards
// than GPUs, each GPU has an equal share of them, which counts as one card.
int nic_of(const Cluster& cluster, int rank);

// How many of the ranks `stride`, 2 `stride`, ... below `num_ranks` are on each path class, seen
// from rank 0.
std::array<int, static_cast<std::size_t>(kNumPathClasses)> peers_by_class(const Cluster& cluster,
                                                                          int num_ranks,
                                                                          int stride = 1);

// How a ring reduction over `group_size` ranks that are `stride` apart lies on the cluster, when
// all such groups reduce at once. k members share an island: k lanes, each a ring with a k-th of
// the bytes that enters and leaves an island through a NIC of its own as far as there are enough.
struct RingLanes {
    PathClass farthest = PathClass::self;  // of any two members of any group
    PathClass inside = PathClass::self;    // between members on one island, if any
    int lanes = 1;      // 1 when the members of a group are not alike on all islands
    Bandwidth of_lane;  // of the farthest path, with as many lanes on a NIC as share it
};
RingLanes ring_lanes(const Cluster& cluster, int group_size, int stride);

}  // namespace headway
