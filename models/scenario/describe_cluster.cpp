#include "models/scenario/describe.hpp"

namespace headway::inline scenario {
namespace {

// Below these a machine is a slip of the pen, and times overflow what can be read.
constexpr Range kBandwidth = {.low = 1e3, .high = 1e16};
constexpr Range kMemoryBandwidth = {.low = 1e6, .high = 1e16};
constexpr Range kPeak = {.low = 1e9, .high = 1e18};
constexpr Range kMemory = {.low = 1048576, .high = 1e15};
constexpr Range kReserve = {.low = 0, .high = 1e15};
constexpr Range kLatency = {.low = 0, .high = 1};

void describe_device(Fields& f, Device& device) {
    f.text("name", device.name, "as the driver reports it; a profile is compared with it");
    f.quantity("peak_matmul", device.peak_matmul, kPeak, "dense matrix peak in bf16");
    f.quantity("memory_bandwidth", device.memory_bandwidth, kMemoryBandwidth, "device memory");
    f.quantity("memory", device.memory, kMemory,
               "device memory as PyTorch reports its total capacity");
    f.map(
        "peaks", device, "dense matrix peaks of other types",
        [](Fields& g, Device& d) {
            for (const Dtype type : {Dtype::fp64, Dtype::fp32, Dtype::fp8, Dtype::nvfp4}) {
                const auto i = static_cast<std::size_t>(type);
                std::optional<FlopRate> peak;
                if (d.peaks[i] > FlopRate{}) peak = d.peaks[i];
                g.quantity(kDtypeNames[i], peak, kPeak,
                           is_narrow(type) ? "left out: this type cannot be priced"
                                           : "left out: no faster than bf16");
                if (peak) d.peaks[i] = *peak;
            }
        },
        optional);
}

void describe_reserve(Fields& f, Reserve& reserve) {
    f.quantity("context", reserve.context, kReserve,
               "CUDA context, libraries and graphs of a process", optional);
    f.quantity("communicator", reserve.communicator, kReserve,
               "buffers of one NCCL communicator; a plan has up to four", optional);
    f.number("fragmentation", reserve.fragmentation, {0, 0.9},
             "share of what the allocator holds that no tensor fills", optional,
             UnitClass::percent);
}

void describe_nvlink(Fields& f, NvLink& nvlink) {
    f.derived_integer("domain", nvlink.domain, {1, 1 << 20},
                      "GPUs in one NVLink domain; may span nodes; left out: the GPUs of a node");
    f.quantity("bandwidth", nvlink.bandwidth, kBandwidth, "per GPU, one direction");
    f.quantity("latency", nvlink.latency, kLatency, "one way");
    f.flag("pairwise", nvlink.pairwise,
           "no switch: each pair of GPUs has a link of its own, bandwidth / (domain - 1), as xGMI",
           optional);
}

void describe_pcie(Fields& f, Pcie& pcie) {
    f.quantity("bandwidth", pcie.bandwidth, kBandwidth, "per GPU, one direction");
    f.integer("gpus_per_switch", pcie.gpus_per_switch, {0, 1024},
              "GPUs behind one PCIe switch; 0: every GPU on its own root port", optional);
    f.quantity("root_bandwidth", pcie.root_bandwidth, {.low = 0, .high = 1e16},
               "uplink of one switch, one direction; unused without switches", optional);
    f.quantity("latency", pcie.latency, kLatency, "one way");
}

void describe_host(Fields& f, Host& host) {
    f.quantity("bandwidth", host.bandwidth, kBandwidth,
               "between one GPU and host memory (PCIe, NVLink-C2C), one direction");
    f.quantity("node_bandwidth", host.node_bandwidth, {.low = 0, .high = 1e16},
               "of all GPUs of a node together, one direction; 0: as many times that", optional);
    f.quantity("memory_bandwidth", host.memory_bandwidth, kMemoryBandwidth,
               "of the host memory of a node, all sockets");
    f.quantity("memory", host.memory, {.low = 0, .high = 1e15},
               "host memory of a node; 0: not stated, and no plan is bounded by it", optional);
}

void describe_core(Fields& f, CoreTier& core) {
    f.integer("leaves_per_pod", core.leaves_per_pod, {1, 1 << 20},
              "leaves below the spines of one pod");
    f.number("oversubscription", core.oversubscription, {.low = 1e-3, .high = 1000},
             "of a pod's spines: links to leaves over links to cores", optional);
    f.integer("uplinks_per_pod", core.uplinks_per_pod, {1, 65536},
              "links from a pod to the core; used by ecmp only", optional);
    f.quantity("pair_bandwidth", core.pair_bandwidth, {.low = 0, .high = 1e16},
               "a dragonfly: links from each pod to each other one, in all, one direction; 0: core "
               "switches",
               optional);
    f.choice("routing", core.routing, kPodRoutingNames,
             "of a dragonfly: minimal, over the links of two pods alone; valiant, over third pods "
             "too",
             optional);
    f.quantity("latency", core.latency, kLatency, "one way, across the core");
}

void describe_fabric(Fields& f, Fabric& fabric) {
    f.integer("nics_per_node", fabric.nics_per_node, {1, 1024},
              "network cards of a node; GPU g of G uses card floor(g N / G) of N, or an equal "
              "share of more "
              "cards than GPUs");
    f.quantity("nic", fabric.nic, kBandwidth, "bandwidth of one card, one direction");
    f.integer("planes", fabric.planes, {1, 64},
              "trees that never meet: each card has a port, an equal part of it, in every one",
              optional);
    f.flag("rails", fabric.rails,
           "card i of every node hangs on rail switch i; other rails are reached over NVLink",
           optional);
    f.integer("nodes_per_leaf", fabric.nodes_per_leaf, {0, 1 << 20},
              "nodes under one leaf (rails: one set of rail switches); 0: one leaf for all",
              optional);
    f.number("oversubscription", fabric.oversubscription, {.low = 1e-3, .high = 1000},
             "leaf downlink over uplink capacity; 2 is 2:1", optional);
    f.integer("uplinks_per_leaf", fabric.uplinks_per_leaf, {1, 65536},
              "links from a leaf to the spine; used by ecmp only", optional);
    f.choice("spraying", fabric.spraying, kSprayingNames,
             "ideal: over all planes and uplinks; ecmp: a flow hashes to one plane and one uplink",
             optional);
    f.quantity("nic_latency", fabric.nic_latency, kLatency, "one way, under one leaf");
    f.quantity("spine_latency", fabric.spine_latency, kLatency, "one way, across the spine");
    f.map("core", fabric.core, "a third tier of switches, which joins pods of leaves",
          describe_core);
}

void describe_link_override(Fields& f, LinkOverride& link) {
    f.text("link", link.link, "name of the link, such as 'nic:12', 'leaf_up:0' or 'nvlink:3'");
    f.number("bandwidth_factor", link.bandwidth_factor, {0, 100},
             "times its bandwidth; 0: the link is dead", optional);
    f.quantity("latency", link.latency, kLatency,
               "added to that of each path over the link, one way", optional);
}

void describe_rank_override(Fields& f, RankOverride& rank) {
    f.integer("rank", rank.rank, {0, (1 << 20) - 1}, "rank = node * gpus_per_node + GPU");
    f.number("compute_factor", rank.compute_factor, {.low = 0, .high = 100, .above_low = true},
             "times its compute speed; 0.8: 80 %");
}

}  // namespace

void describe(Fields& f, Cluster& cluster) {
    f.text("name", cluster.name, "name in tables and messages");
    f.map("device", cluster.device, "the GPU", describe_device);
    f.map("reserve", cluster.reserve, "device memory that tensors cannot have", describe_reserve,
          optional);
    f.integer("nodes", cluster.num_nodes, {1, 1 << 20}, "nodes in the job", optional);
    f.integer("gpus_per_node", cluster.gpus_per_node, {1, 1024}, "GPUs of a node, a rank each");
    f.map("nvlink", cluster.nvlink, "NVLink or NVSwitch domain", describe_nvlink);
    f.map("pcie", cluster.pcie, "the path between GPUs of a node without NVLink", describe_pcie);
    f.map("host", cluster.host, "CPUs and memory of a node; needed by plans that offload",
          describe_host);
    f.map("fabric", cluster.fabric, "network between nodes", describe_fabric);
    f.list("link_overrides", cluster.link_overrides, "links that are slower, faster or dead",
           describe_link_override, optional);
    f.list("rank_overrides", cluster.rank_overrides, "ranks that are slower or faster",
           describe_rank_override, optional);
    f.text("source", cluster.source, "where the numbers come from", optional);
}

}  // namespace headway::inline scenario
