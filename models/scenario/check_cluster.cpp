#include <fmt/format.h>

#include <cstdint>

#include "models/scenario/check_scenario.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::int64_t kMaxRanks = 1 << 20;

bool divides_either_way(int a, int b) {
    return a % b == 0 || b % a == 0;
}

void check_links(const Cluster& cluster, std::vector<InputProblem>& problems) {
    const int domain = cluster.nvlink ? cluster.nvlink->domain : 1;
    if (domain < cluster.gpus_per_node && !cluster.pcie) {
        problems.push_back(
            {"", fmt::format("no path between the {} GPUs of a node", cluster.gpus_per_node),
             fmt::format("nvlink with a domain of at least {}, or pcie", cluster.gpus_per_node),
             ""});
    }
    if (cluster.num_nodes > 1 && domain < cluster.num_ranks() && !cluster.fabric) {
        problems.push_back({"", fmt::format("no path between {} nodes", cluster.num_nodes),
                            "fabric, or nvlink with a domain of all GPUs", ""});
    }
    if (cluster.nvlink && !divides_either_way(domain, cluster.gpus_per_node)) {
        problems.push_back({"nvlink.domain",
                            fmt::format("domain {} and gpus_per_node {} do not divide", domain,
                                        cluster.gpus_per_node),
                            "a divisor or a multiple of gpus_per_node", ""});
    }
    if (cluster.pcie && cluster.pcie->gpus_per_switch > 0 &&
        !(cluster.pcie->root_bandwidth > Bandwidth{})) {
        problems.push_back({"pcie.gpus_per_switch", "PCIe switches without root_bandwidth",
                            "root_bandwidth above 0 B/s, or gpus_per_switch: 0", ""});
    }
}

void check_overrides(const Cluster& cluster, std::vector<InputProblem>& problems) {
    for (std::size_t i = 0; i < cluster.rank_overrides.size(); ++i) {
        const int rank = cluster.rank_overrides[i].rank;
        if (rank < cluster.num_ranks()) continue;
        problems.push_back({fmt::format("rank_overrides[{}].rank", i),
                            fmt::format("rank {} of {} ranks", rank, cluster.num_ranks()),
                            fmt::format("0 to {}", cluster.num_ranks() - 1), ""});
    }
}

}  // namespace

std::vector<InputProblem> check_cluster(const Cluster& cluster) {
    std::vector<InputProblem> problems;
    const std::int64_t num_ranks = std::int64_t{cluster.num_nodes} * cluster.gpus_per_node;
    if (num_ranks > kMaxRanks) {
        problems.push_back({"nodes",
                            fmt::format("{} nodes of {} GPUs are {} ranks", cluster.num_nodes,
                                        cluster.gpus_per_node, num_ranks),
                            fmt::format("at most {} ranks", kMaxRanks), ""});
        return problems;
    }
    check_links(cluster, problems);
    check_overrides(cluster, problems);
    return problems;
}

}  // namespace headway::inline scenario
