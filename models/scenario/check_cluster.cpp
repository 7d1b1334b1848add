#include <fmt/format.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "models/scenario/check_scenario.hpp"
#include "models/vocab/links.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::int64_t kMaxRanks = 1 << 20;

bool divides_either_way(int a, int b) {
    return a % b == 0 || b % a == 0;
}

void check_dragonfly(const Cluster& cluster, std::vector<InputProblem>& problems) {
    if (!cluster.fabric || !cluster.fabric->core) return;
    const Fabric& fabric = *cluster.fabric;
    if (!cluster.is_dragonfly()) {
        if (fabric.core->routing != PodRouting::minimal)
            problems.push_back({"fabric.core.routing", "routing between pods that switches join",
                                "pair_bandwidth, or no routing", ""});
        return;
    }
    if (fabric.core->oversubscription != 1.0)
        problems.push_back({"fabric.core.oversubscription",
                            "pair_bandwidth, which says how much leaves a pod, and this",
                            "one of the two", ""});
    if (fabric.rails || fabric.planes > 1)
        problems.push_back({"fabric.core.pair_bandwidth",
                            fmt::format("a dragonfly with {}", fabric.rails ? "rails" : "planes"),
                            "rails: false and planes: 1", ""});
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
    if (cluster.fabric && cluster.fabric->core && cluster.fabric->nodes_per_leaf == 0) {
        problems.push_back({"fabric.core", "a third tier above one leaf",
                            "nodes_per_leaf of at least 1, or no core", ""});
    }
    check_dragonfly(cluster, problems);
    if (cluster.has_pairwise_links() && domain % cluster.gpus_per_node != 0) {
        problems.push_back({"nvlink.pairwise",
                            fmt::format("pairwise links between {} of the {} GPUs of a node",
                                        domain, cluster.gpus_per_node),
                            "a domain of whole nodes", ""});
    }
    if (cluster.pcie && cluster.pcie->gpus_per_switch > 0 &&
        !(cluster.pcie->root_bandwidth > Bandwidth{})) {
        problems.push_back({"pcie.gpus_per_switch", "PCIe switches without root_bandwidth",
                            "root_bandwidth above 0 B/s, or gpus_per_switch: 0", ""});
    }
}

void check_rank_overrides(const Cluster& cluster, std::vector<InputProblem>& problems) {
    std::set<int> seen;
    for (std::size_t i = 0; i < cluster.rank_overrides.size(); ++i) {
        const int rank = cluster.rank_overrides[i].rank;
        const std::string where = fmt::format("rank_overrides[{}].rank", i);
        if (rank >= cluster.num_ranks()) {
            problems.push_back({where,
                                fmt::format("rank {} of {} ranks", rank, cluster.num_ranks()),
                                fmt::format("0 to {}", cluster.num_ranks() - 1), ""});
        } else if (!seen.insert(rank).second) {
            problems.push_back(
                {where, fmt::format("a second override of rank {}", rank), "one a rank", ""});
        }
    }
}

void check_link_overrides(const Cluster& cluster, std::vector<InputProblem>& problems) {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < cluster.link_overrides.size(); ++i) {
        const std::string& link = cluster.link_overrides[i].link;
        const std::string where = fmt::format("link_overrides[{}].link", i);
        const std::vector<NamedLink> links = links_named(cluster, link);
        if (links.empty()) {
            problems.push_back({where, fmt::format("no link '{}'", link),
                                all_link_names(cluster) + "; without _up or _down: both directions",
                                link_hint(cluster, link)});
        }
        for (const NamedLink& l : links) {
            const std::string full = link_name(cluster, l);
            if (seen.insert(full).second) continue;
            problems.push_back(
                {where, fmt::format("a second override of {}", full), "one a link", ""});
            break;
        }
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
    check_rank_overrides(cluster, problems);
    if (problems.empty()) check_link_overrides(cluster, problems);
    return problems;
}

}  // namespace headway::inline scenario
