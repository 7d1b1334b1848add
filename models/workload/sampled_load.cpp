// Load of one MoE layer on the ranks of a group, counted from drawn tokens.
#include <algorithm>
#include <cstdint>
#include <numeric>

#include "models/workload/drawn_group.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/link_load.hpp"
#include "models/workload/workload.hpp"
#include "models/workload/worst_group.hpp"

namespace headway::inline workload {
namespace {

std::size_t slot_of(PathClass c) {
    return static_cast<std::size_t>(c);
}

void tally(const TrafficMatrix& copies, const Cluster& cluster, int first, PathCounts& mean,
           PathCounts& most) {
    const int n = copies.num_ranks;
    for (int r = 0; r < n; ++r) {
        PathCounts sent{}, received{};
        for (int peer = 0; peer < n; ++peer) {
            if (peer == r) continue;
            sent[slot_of(path_class(cluster, first + r, first + peer))] +=
                static_cast<double>(copies.at(r, peer));
            received[slot_of(path_class(cluster, first + peer, first + r))] +=
                static_cast<double>(copies.at(peer, r));
        }
        for (std::size_t c = 0; c < sent.size(); ++c) mean[c] += sent[c] / n;
        keep_slowest(cluster, sent, most);
        keep_slowest(cluster, received, most);
    }
}

// As if all groups were drawn alike.
LinkCounts links_of(const TrafficMatrix& copies, const Cluster& cluster) {
    const int n = copies.num_ranks;
    LinkLoad load = group_load(cluster, n);
    for (int first = 0; first + n <= load.num_ranks(); first += n) {
        for (int r = 0; r < n; ++r) {
            for (int peer = 0; peer < n; ++peer)
                load.add(first + r, first + peer, static_cast<double>(copies.at(r, peer)));
        }
    }
    return busiest_links(load, cluster, n);
}

}  // namespace

GroupLoad sampled_load(const Scenario& scenario, const Plan& plan, int layer, int sample) {
    const ExpertLayout layout = expert_layout(scenario, plan);
    if (!layout.exchanges() || !scenario.routing.noise) return expected_load(scenario, plan, layer);
    const int n = layout.ranks(), first = worst_group(scenario.cluster, n);
    const DrawnGroup drawn = draw_group(scenario, plan, layer, 0, sample, Drawing::by_token);
    GroupLoad load;
    load.rows_mean = layout.tokens_per_rank * layout.router.top_k * layout.expert_tensor;
    load.rows_max = static_cast<double>(*std::max_element(drawn.rows.begin(), drawn.rows.end()));
    load.spread = expected_load(scenario, plan, layer).spread;
    const int island = std::min(scenario.cluster.island_size(), n);
    const auto arrived_max = [n](const TrafficMatrix& copies) {
        std::int64_t most = 0;
        for (int r = 0; r < n; ++r) most = std::max(most, copies.received(r) + copies.at(r, r));
        return static_cast<double>(most);
    };
    const auto mean_row = [n](const TrafficMatrix& copies) {
        return static_cast<double>(
                   std::accumulate(copies.bytes.begin(), copies.bytes.end(), std::int64_t{0})) /
               n;
    };
    if (layout.gathers_tokens) {
        load.copies_sent = load.copies_received = load.rows_max;
    } else if (drawn.forwarded) {
        const NodeCopies& copies = drawn.staged;
        load.forwarded = true;
        tally(copies.over_nic, scenario.cluster, first, load.copies_mean, load.copies_max);
        tally(copies.inside, scenario.cluster, first, load.forward_mean, load.forward_max);
        const LinkCounts across = links_of(copies.over_nic, scenario.cluster),
                         inside = links_of(copies.inside, scenario.cluster);
        load.copies_on_curve = across.on_curve;
        load.copies_links = across.links;
        load.forward_on_curve = inside.on_curve;
        load.forward_links = inside.links;
        // One island in n / island is a token's own: its copies there are not forwarded.
        const double own = mean_row(copies.inside) / (n / island);
        load.copies_sent = mean_row(copies.over_nic) + own;
        load.copies_forwarded = mean_row(copies.inside) - own;
        load.copies_received = arrived_max(copies.inside);
    } else {
        tally(drawn.copies, scenario.cluster, first, load.copies_mean, load.copies_max);
        const LinkCounts links = links_of(drawn.copies, scenario.cluster);
        load.copies_on_curve = links.on_curve;
        load.copies_links = links.links;
        load.copies_sent = mean_row(drawn.copies);
        load.copies_received = arrived_max(drawn.copies);
    }
    if (layout.capacity_factor) {
        load.rows_max = std::min(load.rows_max, *layout.capacity_factor * load.rows_mean);
    }
    return load;
}

}  // namespace headway::inline workload
