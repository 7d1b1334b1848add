#include "models/workload/worst_group.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace headway::inline workload {
namespace {

// Ranks in one NVLink domain, node, leaf and pod: the pattern of classes repeats with each of them.
std::vector<std::int64_t> blocks_of(const Cluster& cluster) {
    std::vector<std::int64_t> blocks = {cluster.gpus_per_node};
    if (cluster.nvlink) blocks.push_back(cluster.nvlink->domain);
    for (const Tier& tier : tiers_of(cluster)) blocks.push_back(tier.nodes * cluster.gpus_per_node);
    return blocks;
}

double worst_rank(const Cluster& cluster, int first, int group_size) {
    double worst = 0.0;
    for (int r = first; r < first + group_size; ++r)
        worst = std::max(worst, link_seconds(cluster, peers_of(cluster, r, first, group_size, 1)));
    return worst;
}

}  // namespace

double link_seconds(const Cluster& cluster, const PathCounts& counts) {
    PathCounts load = counts;
    const auto at = [](PathClass c) { return static_cast<std::size_t>(c); };
    // What crosses a tier passes all below it.
    load[at(PathClass::spine)] += counts[at(PathClass::core)];
    load[at(PathClass::nic)] += load[at(PathClass::spine)];
    for (const Tier& tier : tiers_of(cluster)) load[at(tier.path)] *= std::max(1.0, tier.narrowing);
    double seconds = 0.0;
    for (std::size_t c = 0; c < load.size(); ++c) {
        const double rate = link_bandwidth(cluster, static_cast<PathClass>(c)).in(byte / second);
        if (load[c] > 0.0 && rate > 0.0) seconds = std::max(seconds, load[c] / rate);
    }
    return seconds;
}

PathCounts peers_of(const Cluster& cluster, int rank, int first, int count, int stride) {
    const auto reach = reach_by_class(cluster, rank);
    PathCounts peers{};
    double nearer = 0.0;
    for (std::size_t c = 0; c < peers.size(); ++c) {
        // Members first + i stride, i < count, in [begin, end).
        const auto below = [&](int end) {
            const int steps = end <= first ? 0 : (end - first + stride - 1) / stride;
            return static_cast<double>(std::min(count, steps));
        };
        const double reached = below(reach[c].end) - below(reach[c].begin);
        peers[c] = reached - nearer;
        nearer = reached;
    }
    peers[static_cast<std::size_t>(PathClass::self)] = 0.0;
    return peers;
}

PathCounts by_class(const Cluster& cluster, int rank, int first, const std::vector<double>& running,
                    int stride) {
    const auto reach = reach_by_class(cluster, rank);
    const int members = static_cast<int>(running.size()) - 1;
    const auto below = [&](int end) {
        const int steps = end <= first ? 0 : (end - first + stride - 1) / stride;
        return running[static_cast<std::size_t>(std::min(steps, members))];
    };
    PathCounts sums{};
    double nearer = 0.0;
    for (std::size_t c = 0; c < sums.size(); ++c) {
        const double reached = below(reach[c].end) - below(reach[c].begin);
        sums[c] = std::max(0.0, reached - nearer);
        nearer = reached;
    }
    sums[static_cast<std::size_t>(PathClass::self)] = 0.0;
    return sums;
}

bool groups_alike(const Cluster& cluster, int group_size) {
    const std::vector<std::int64_t> blocks = blocks_of(cluster);
    return std::all_of(blocks.begin(), blocks.end(), [&](std::int64_t block) {
        return group_size % block == 0 || block % group_size == 0;
    });
}

int worst_group(const Cluster& cluster, int group_size) {
    if (groups_alike(cluster, group_size)) return 0;
    std::int64_t period = group_size;
    for (const std::int64_t block : blocks_of(cluster)) period = std::lcm(period, block);
    int worst = 0;
    double most = -1.0;
    for (int first = 0; first + group_size <= cluster.num_ranks(); first += group_size) {
        // The pattern repeats, but for a last block that is not full.
        if (first >= period && cluster.num_ranks() - first > period) continue;
        const double seconds = worst_rank(cluster, first, group_size);
        if (seconds > most * (1.0 + 1e-9)) {
            most = seconds;
            worst = first;
        }
    }
    return worst;
}

PeerCounts exchange_peers(const Cluster& cluster, int group_size, int stride) {
    const int first = worst_group(cluster, group_size), count = group_size / stride;
    if (groups_alike(cluster, group_size) && groups_alike(cluster, stride)) {
        const PathCounts peers = peers_of(cluster, first, first, count, stride);
        return {peers, peers};
    }
    PeerCounts peers;
    for (int r = 0; r < group_size; ++r) {
        const PathCounts of_rank = peers_of(cluster, first + r, first + r % stride, count, stride);
        for (std::size_t c = 0; c < of_rank.size(); ++c) peers.mean[c] += of_rank[c] / group_size;
        if (link_seconds(cluster, of_rank) > link_seconds(cluster, peers.worst))
            peers.worst = of_rank;
    }
    return peers;
}

}  // namespace headway::inline workload
