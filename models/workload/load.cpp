// Expected and sampled load of one MoE layer on the ranks of a group.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/workload/extremes.hpp"
#include "models/workload/inclusion.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/traffic.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {
namespace {

using PathCounts = std::array<double, static_cast<std::size_t>(kNumPathClasses)>;

std::size_t index(PathClass c) {
    return static_cast<std::size_t>(c);
}

// Variance, per token, of the number of its k experts that fall into a set with share p of the
// picks (hypergeometric for equal experts).
double rows_variance(double p, const RouterShape& shape) {
    if (shape.num_experts <= 1) return 0.0;
    return shape.top_k * p * (1.0 - p) * (shape.num_experts - shape.top_k) /
           (shape.num_experts - 1.0);
}

// What reaches each rank: mean per token of rows and of copies, with variances. [rank]
struct Arrivals {
    std::vector<double> rows, rows_var, copies, copies_var;
    RingPoints points;  // deduplicated copies only
};

Arrivals arrivals(const ExpertLayout& layout, const std::vector<double>& popularity, Dedup dedup) {
    const std::size_t n = static_cast<std::size_t>(layout.group_size);
    const std::vector<double> pi = inclusion_probabilities(popularity, layout.router);
    const std::size_t per_rank = pi.size() / n;
    Arrivals a{std::vector<double>(n, 0.0), std::vector<double>(n), {}, {}, {}};
    for (std::size_t e = 0; e < pi.size(); ++e) a.rows[e / per_rank] += pi[e];
    for (std::size_t r = 0; r < n; ++r)
        a.rows_var[r] = rows_variance(a.rows[r] / layout.router.top_k, layout.router);
    if (dedup == Dedup::none) {
        a.copies = a.rows;
        a.copies_var = a.rows_var;
    } else {
        a.points = ring_points(popularity, layout.router);
        a.copies = hit_probabilities(a.points, layout.router, layout.group_size);
        a.copies_var.resize(n);
        for (std::size_t r = 0; r < n; ++r) a.copies_var[r] = a.copies[r] * (1.0 - a.copies[r]);
    }
    return a;
}

// Expected largest of `tokens` sums with the given per-token mean and variance.
double busiest(const std::vector<double>& mean, const std::vector<double>& variance, double tokens,
               bool noise) {
    const auto [low, high] = std::minmax_element(mean.begin(), mean.end());
    if (!noise) return tokens * *high;
    if (*high - *low <= 1e-12 * *high) {
        const int count = static_cast<int>(mean.size());
        return tokens * *high +
               std::sqrt(tokens * variance.front()) * expected_max_of_normals(count);
    }
    std::vector<double> scaled_mean(mean.size()), sigma(mean.size());
    for (std::size_t r = 0; r < mean.size(); ++r) {
        scaled_mean[r] = tokens * mean[r];
        sigma[r] = std::sqrt(tokens * variance[r]);
    }
    return expected_max(scaled_mean, sigma);
}

// One-stage dispatch: every rank sends its copies straight to the destination ranks.
void add_direct(GroupLoad& load, const Cluster& cluster, const ExpertLayout& layout,
                const Arrivals& a, bool noise) {
    const double n = layout.group_size, tokens = layout.tokens_per_rank;
    const auto peers = peers_by_class(cluster, layout.group_size);
    const double mean = std::accumulate(a.copies.begin(), a.copies.end(), 0.0) / n;
    // The busiest receiver: what arrives from n-1 sources, shared over the classes as its peers
    // are.
    const double received =
        n > 1 ? busiest(a.copies, a.copies_var, tokens * (n - 1), noise) / (n - 1) : 0.0;
    for (std::size_t c = 0; c < peers.size(); ++c) {
        load.copies_mean[c] = tokens * mean * peers[c];
        load.copies_max[c] = std::max(load.copies_mean[c], received * peers[c]);
    }
    load.copies_sent = tokens * mean * n;
    load.copies_received = n > 1 ? received * n : tokens * mean;
}

// Two stages: a copy per distinct remote island over the NIC, then forwarding inside.
void add_forwarded(GroupLoad& load, const Cluster& cluster, const ExpertLayout& layout,
                   const Arrivals& a, bool noise) {
    const int island = std::min(cluster.island_size(), layout.group_size),
              islands = layout.group_size / island;
    const double tokens = layout.tokens_per_rank, n = layout.group_size;
    const std::vector<double> hits = hit_probabilities(a.points, layout.router, islands);
    std::vector<double> variance(hits.size());
    for (std::size_t i = 0; i < hits.size(); ++i) variance[i] = hits[i] * (1.0 - hits[i]);
    const double mean_hit = std::accumulate(hits.begin(), hits.end(), 0.0) / islands;
    const double received = busiest(hits, variance, tokens * (islands - 1), noise) / (islands - 1);
    for (int node = 1; node < islands; ++node) {
        const std::size_t c = index(path_class(cluster, 0, node * island));
        load.copies_mean[c] += tokens * mean_hit;
        load.copies_max[c] += std::max(received, tokens * mean_hit);
    }
    load.forwarded = true;
    const double mean = std::accumulate(a.copies.begin(), a.copies.end(), 0.0) / n;
    const double sources =
        n - islands;  // whose copies reach a rank from another rank of its island
    const double most =
        sources > 0 ? busiest(a.copies, a.copies_var, tokens * sources, noise) : 0.0;
    const std::size_t inside = index(path_class(cluster, 0, 1));
    load.forward_mean[inside] = tokens * mean * sources;
    load.forward_max[inside] = std::max(most, load.forward_mean[inside]);
    load.copies_sent = tokens * (mean_hit * (islands - 1) + mean * island);
    load.copies_received = std::max(most, tokens * mean * sources) + tokens * mean * islands;
    load.copies_forwarded = tokens * mean * (n - island);
}

// Routing that stays on the rank: every rank works on all rows of its own routers, whatever the
// skew.
GroupLoad local_load(const ExpertLayout& layout) {
    const double rows = layout.tokens_per_rank * layout.router.top_k;
    return {.rows_mean = rows, .rows_max = rows, .copies_sent = rows, .copies_received = rows};
}

GroupLoad load_of(const Cluster& cluster, const ExpertLayout& layout,
                  const std::vector<double>& popularity, bool noise) {
    GroupLoad load;
    const Arrivals a = arrivals(layout, popularity, layout.dedup);
    const double n = layout.group_size, group_tokens = layout.tokens_per_rank * n;
    load.rows_mean = layout.tokens_per_rank * layout.router.top_k;
    load.rows_max = std::max(load.rows_mean, busiest(a.rows, a.rows_var, group_tokens, noise));
    if (noise) {
        const std::size_t hot = static_cast<std::size_t>(
            std::max_element(a.rows.begin(), a.rows.end()) - a.rows.begin());
        load.rows_sigma =
            std::sqrt(group_tokens * a.rows_var[hot]) * sigma_of_max_of_normals(layout.group_size);
    }
    if (layout.dedup == Dedup::node && layout.group_size > cluster.island_size()) {
        add_forwarded(load, cluster, layout, a, noise);
    } else {
        add_direct(load, cluster, layout, a, noise);
    }
    if (layout.capacity_factor) {
        load.rows_max = std::min(load.rows_max, *layout.capacity_factor * load.rows_mean);
    }
    return load;
}

void tally(const TrafficMatrix& copies, const Cluster& cluster, PathCounts& mean,
           PathCounts& most) {
    const int n = copies.num_ranks;
    for (int r = 0; r < n; ++r) {
        PathCounts sent{}, received{};
        for (int peer = 0; peer < n; ++peer) {
            if (peer == r) continue;
            sent[index(path_class(cluster, r, peer))] += static_cast<double>(copies.at(r, peer));
            received[index(path_class(cluster, peer, r))] +=
                static_cast<double>(copies.at(peer, r));
        }
        for (std::size_t c = 0; c < sent.size(); ++c) {
            mean[c] += sent[c] / n;
            most[c] = std::max({most[c], sent[c], received[c]});
        }
    }
}

}  // namespace

GroupLoad expected_load(const Scenario& scenario, const Plan& plan, int layer) {
    const ExpertLayout layout = expert_layout(scenario, plan);
    if (layout.group_size == 1) return local_load(layout);
    const Routing& routing = scenario.routing;
    std::vector<double> popularity =
        expert_popularity(routing, layout.router.num_experts, {.layer = layer});
    if (routing.scope == SkewScope::per_source && routing.skew != Skew::none) {
        // Arrivals add up over sources, so the mean popularity carries the expectation of every
        // destination.
        for (int source = 1; source < layout.group_size; ++source) {
            const auto own = expert_popularity(routing, layout.router.num_experts,
                                               {.layer = layer, .source_rank = source});
            for (std::size_t e = 0; e < own.size(); ++e) popularity[e] += own[e];
        }
        for (double& p : popularity) p /= layout.group_size;
    }
    return load_of(scenario.cluster, layout, popularity, routing.noise);
}

GroupLoad sampled_load(const Scenario& scenario, const Plan& plan, int layer, int sample) {
    const ExpertLayout layout = expert_layout(scenario, plan);
    if (layout.group_size == 1) return local_load(layout);
    const int n = layout.group_size;
    std::vector<Assignment> group;
    for (int source = 0; source < n; ++source) {
        group.push_back(sample_assignment(scenario.routing, layout.router,
                                          {.layer = layer, .source_rank = source, .sample = sample},
                                          static_cast<std::int64_t>(layout.tokens_per_rank)));
    }
    GroupLoad load;
    const std::vector<std::int64_t> rows = rows_per_rank(group, layout.router.num_experts);
    load.rows_mean = layout.tokens_per_rank * layout.router.top_k;
    load.rows_max = static_cast<double>(*std::max_element(rows.begin(), rows.end()));
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
    if (layout.dedup == Dedup::node && n > island) {
        const NodeCopies copies = node_dispatch_copies(group, layout.router.num_experts, island);
        load.forwarded = true;
        tally(copies.over_nic, scenario.cluster, load.copies_mean, load.copies_max);
        tally(copies.inside, scenario.cluster, load.forward_mean, load.forward_max);
        // One island in n / island is a token's own: its copies there are not forwarded.
        const double own = mean_row(copies.inside) / (n / island);
        load.copies_sent = mean_row(copies.over_nic) + own;
        load.copies_forwarded = mean_row(copies.inside) - own;
        load.copies_received = arrived_max(copies.inside);
    } else {
        const Dedup dedup = layout.dedup == Dedup::node ? Dedup::rank : layout.dedup;
        const TrafficMatrix copies = dispatch_copies(group, layout.router.num_experts, dedup);
        tally(copies, scenario.cluster, load.copies_mean, load.copies_max);
        load.copies_sent = mean_row(copies);
        load.copies_received = arrived_max(copies);
    }
    if (layout.capacity_factor) {
        load.rows_max = std::min(load.rows_max, *layout.capacity_factor * load.rows_mean);
    }
    return load;
}

}  // namespace headway::inline workload
