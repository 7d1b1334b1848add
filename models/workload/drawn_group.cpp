#include "models/workload/drawn_group.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/workload/inclusion.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/random.hpp"

namespace headway::inline workload {
namespace {

constexpr std::uint64_t kCountStream = 3;
constexpr double kTokenChoices = 1 << 20;

std::int64_t draw_count(Random& random, double tokens, double mean, double variance,
                        std::int64_t most, bool noise) {
    const double value =
        tokens * mean + (noise ? std::sqrt(tokens * variance) * random.normal() : 0.0);
    return std::clamp<std::int64_t>(std::llround(value), 0, most);
}

// Moves single copies until the row sums to `total`, starting at a random destination.
void settle(std::vector<std::int64_t>& row, std::int64_t total, std::int64_t most, Random& random) {
    std::int64_t missing = total - std::accumulate(row.begin(), row.end(), std::int64_t{0});
    std::size_t d = random.below(row.size());
    while (missing != 0) {
        const std::int64_t step = missing > 0 ? 1 : -1, next = row[d] + step;
        if (next >= 0 && next <= most) {
            row[d] = next;
            missing -= step;
        }
        d = d + 1 == row.size() ? 0 : d + 1;
    }
}

RouterId router_of(const ExpertLayout& layout, int layer, int group, int source, int sample) {
    return {.layer = layer,
            .head = group % layout.num_heads,
            .source_rank = group * layout.group_size + source,
            .sample = sample};
}

// What member `source` of a group routes: its own tokens; of a shared head, those of every rank
// whose number among the sharers is its own.
Assignment routed_by(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                     int source, int sample) {
    const int num_ranks = layout.group_size * layout.num_heads;  // of the plan's group
    RouterId id = router_of(layout, layer, group, source, sample);
    const auto tokens = static_cast<std::int64_t>(layout.tokens_per_rank) / layout.num_heads;
    Assignment all{.top_k = layout.router.top_k};
    for (int r = source; r < num_ranks; r += layout.group_size) {
        id.source_rank = group / layout.num_heads * num_ranks + r;
        const Assignment part = sample_assignment(scenario.routing, layout.router, id, tokens);
        all.num_tokens += part.num_tokens;
        all.expert.insert(all.expert.end(), part.expert.begin(), part.expert.end());
    }
    return all;
}

DrawnGroup by_token(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                    int sample) {
    std::vector<Assignment> assignments;
    for (int source = 0; source < layout.group_size; ++source)
        assignments.push_back(routed_by(scenario, layout, layer, group, source, sample));
    DrawnGroup drawn{.rows = rows_per_rank(assignments, layout.router.num_experts)};
    const int island = std::min(scenario.cluster.island_size(), layout.group_size);
    drawn.forwarded = layout.dedup == Dedup::node && layout.group_size > island;
    if (drawn.forwarded) {
        drawn.staged = node_dispatch_copies(assignments, layout.router.num_experts, island);
    } else {
        drawn.copies = dispatch_copies(assignments, layout.router.num_experts,
                                       layout.dedup == Dedup::none ? Dedup::none : Dedup::rank);
    }
    return drawn;
}

DrawnGroup by_count(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                    int sample) {
    const int n = layout.group_size, k = layout.router.top_k;
    const bool noise = scenario.routing.noise, naive = layout.dedup == Dedup::none;
    const int island = std::min(scenario.cluster.island_size(), n), islands = n / island;
    const auto tokens = static_cast<std::int64_t>(layout.tokens_per_rank);
    const std::size_t per_rank = static_cast<std::size_t>(layout.router.num_experts / n);
    DrawnGroup drawn{.rows = std::vector<std::int64_t>(static_cast<std::size_t>(n), 0)};
    drawn.forwarded = layout.dedup == Dedup::node && n > island;
    if (drawn.forwarded) {
        drawn.staged = {TrafficMatrix(n), TrafficMatrix(n)};
    } else {
        drawn.copies = TrafficMatrix(n);
    }

    std::vector<double> popularity, rows_mean(static_cast<std::size_t>(n)), hits, node_hits;
    std::vector<std::int64_t> row(static_cast<std::size_t>(n));
    for (int source = 0; source < n; ++source) {
        const RouterId id = router_of(layout, layer, group, source, sample);
        if (source == 0 || scenario.routing.scope == SkewScope::per_source) {
            popularity = expert_popularity(scenario.routing, layout.router.num_experts, id);
            const std::vector<double> pi = inclusion_probabilities(popularity, layout.router);
            std::fill(rows_mean.begin(), rows_mean.end(), 0.0);
            for (std::size_t e = 0; e < pi.size(); ++e) rows_mean[e / per_rank] += pi[e];
            if (!naive) hits = hit_probabilities(popularity, layout.router, n);
            if (drawn.forwarded) node_hits = hit_probabilities(popularity, layout.router, islands);
        }
        Random random({scenario.routing.seed, kCountStream, static_cast<std::uint64_t>(layer),
                       static_cast<std::uint64_t>(id.source_rank),
                       static_cast<std::uint64_t>(sample)});
        for (int d = 0; d < n; ++d) {
            const std::size_t i = static_cast<std::size_t>(d);
            const double share = rows_mean[i] / k, experts = layout.router.num_experts;
            const double variance =
                naive ? k * share * (1.0 - share) * (experts - k) / std::max(1.0, experts - 1.0)
                      : hits[i] * (1.0 - hits[i]);
            const std::int64_t most =
                naive ? tokens * std::min<std::int64_t>(k, static_cast<std::int64_t>(per_rank))
                      : tokens;
            row[i] = draw_count(random, static_cast<double>(tokens), naive ? rows_mean[i] : hits[i],
                                variance, most, noise);
        }
        if (naive)
            settle(row, tokens * k,
                   tokens * std::min<std::int64_t>(k, static_cast<std::int64_t>(per_rank)), random);
        const int home = source / island, local = source % island;
        for (int d = 0; d < n; ++d) {
            const std::size_t i = static_cast<std::size_t>(d);
            const int entry = d / island == home ? source : d / island * island + local;
            (drawn.forwarded ? drawn.staged.inside.at(entry, d) : drawn.copies.at(source, d)) +=
                row[i];
            // A copy stands for the rows of its token there.
            drawn.rows[i] += naive ? row[i]
                                   : std::llround(static_cast<double>(row[i]) * rows_mean[i] /
                                                  std::max(hits[i], 1e-300));
        }
        if (!drawn.forwarded) continue;
        for (int node = 0; node < islands; ++node) {
            if (node == home) continue;
            const double hit = node_hits[static_cast<std::size_t>(node)];
            drawn.staged.over_nic.at(source, node * island + local) = draw_count(
                random, static_cast<double>(tokens), hit, hit * (1.0 - hit), tokens, noise);
        }
    }
    return drawn;
}

}  // namespace

DrawnGroup draw_group(const Scenario& scenario, const Plan& plan, int layer, int group, int sample,
                      Drawing drawing) {
    const ExpertLayout layout = expert_layout(scenario, plan);
    const double choices = layout.tokens_per_rank * layout.router.top_k * layout.group_size;
    const bool tokens =
        drawing == Drawing::by_token || (drawing == Drawing::automatic && choices <= kTokenChoices);
    DrawnGroup drawn = tokens ? by_token(scenario, layout, layer, group, sample)
                              : by_count(scenario, layout, layer, group, sample);
    if (layout.capacity_factor) {
        const auto limit = static_cast<std::int64_t>(*layout.capacity_factor *
                                                     layout.tokens_per_rank * layout.router.top_k);
        for (std::int64_t& r : drawn.rows) r = std::min(r, limit);
    }
    return drawn;
}

}  // namespace headway::inline workload
