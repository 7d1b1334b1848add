#include "models/workload/drawn_group.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/workload/layout.hpp"
#include "models/workload/member_rates.hpp"
#include "models/workload/random.hpp"

namespace headway::inline workload {
namespace {

constexpr std::uint64_t kCountStream = 3;
constexpr double kTokenChoices = 1 << 20;

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

// What member `source` of a group routes: its own tokens; of a shared head, those of every rank
// whose number among the sharers is its own.
Assignment routed_by(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                     int source, int sample) {
    const auto tokens = static_cast<std::int64_t>(layout.tokens_per_rank) / layout.num_heads;
    Assignment all{.top_k = layout.router.top_k};
    for (const RouterId& id : routers_of(layout, layer, group, source, sample)) {
        const Assignment part = sample_assignment(scenario.routing, layout.router, id, tokens);
        all.num_tokens += part.num_tokens;
        all.expert.insert(all.expert.end(), part.expert.begin(), part.expert.end());
    }
    return all;
}

DrawnGroup by_token(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                    int sample) {
    std::vector<Assignment> assignments;
    for (int source = 0; source < layout.ranks(); ++source)
        assignments.push_back(routed_by(scenario, layout, layer, group, source, sample));
    const int experts = layout.router.num_experts, e = layout.expert_tensor;
    DrawnGroup drawn{.rows = rows_per_rank(assignments, experts, e)};
    const int island = std::min(scenario.cluster.island_size(), layout.ranks());
    drawn.forwarded = is_forwarded(scenario.cluster, layout);
    if (drawn.forwarded) {
        drawn.staged = node_dispatch_copies(assignments, experts, island, e);
    } else {
        drawn.copies = dispatch_copies(assignments, experts,
                                       layout.dedup == Dedup::none ? Dedup::none : Dedup::rank, e);
    }
    return drawn;
}

// Counts of one member's tokens, drawn from their means and variances; without noise the means.
class CountDraw {
  public:
    CountDraw(const ExpertLayout& layout, bool noise, Random random)
        : layout_(layout),
          tokens_(static_cast<std::int64_t>(layout.tokens_per_rank)),
          noise_(noise),
          random_(random) {}

    // Copies to each part.
    std::vector<std::int64_t> copies(const MemberRates& rates) {
        const int k = layout_.router.top_k, experts = layout_.router.num_experts;
        const std::int64_t per_rank = experts / layout_.group_size;
        const bool naive = layout_.dedup == Dedup::none;
        const std::int64_t most = tokens_ * (naive ? std::min<std::int64_t>(k, per_rank) : 1);
        std::vector<std::int64_t> row;
        for (const double mean : rates.copies) {
            const double share = mean / k;
            const double variance =
                naive ? k * share * (1.0 - share) * (experts - k) / std::max(1.0, experts - 1.0)
                      : mean * (1.0 - mean);
            row.push_back(draw(mean, variance, most));
        }
        if (naive) settle(row, tokens_ * k, most, random_);
        return row;
    }

    // Copies to each island of `parts` parts: at least one of those that they get there, at most
    // all of them.
    std::vector<std::int64_t> node_copies(const MemberRates& rates,
                                          const std::vector<std::int64_t>& row, int parts) {
        std::vector<std::int64_t> nodes;
        for (std::size_t node = 0; node < rates.node_copies.size(); ++node) {
            const double mean = rates.node_copies[node];
            const auto begin = row.begin() + static_cast<std::ptrdiff_t>(node) * parts;
            const std::int64_t least = *std::max_element(begin, begin + parts),
                               most = std::accumulate(begin, begin + parts, std::int64_t{0});
            nodes.push_back(std::clamp(draw(mean, mean * (1.0 - mean), tokens_), least,
                                       std::min(most, tokens_)));
        }
        return nodes;
    }

    // Rows at each part that these copies stand for.
    std::vector<std::int64_t> rows(const MemberRates& rates, std::vector<std::int64_t> row) {
        if (layout_.dedup == Dedup::none) return row;
        const int k = layout_.router.top_k;
        const std::int64_t per_rank = layout_.router.num_experts / layout_.group_size;
        for (std::size_t d = 0; d < row.size(); ++d) {
            const double a_copy = rates.rows[d] / std::max(rates.copies[d], 1e-300);
            row[d] = std::llround(static_cast<double>(row[d]) * a_copy);
        }
        settle(row, tokens_ * k, tokens_ * std::min<std::int64_t>(k, per_rank), random_);
        return row;
    }

  private:
    std::int64_t draw(double mean, double variance, std::int64_t most) {
        const double tokens = static_cast<double>(tokens_);
        const double luck = noise_ ? std::sqrt(tokens * variance) * random_.normal() : 0.0;
        return std::clamp<std::int64_t>(std::llround(tokens * mean + luck), 0, most);
    }

    const ExpertLayout& layout_;
    std::int64_t tokens_;
    bool noise_;
    Random random_;
};

DrawnGroup by_count(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                    int sample) {
    const int n = layout.ranks(), e = layout.expert_tensor;
    const int island = std::min(scenario.cluster.island_size(), n), islands = n / island;
    DrawnGroup drawn{.rows = std::vector<std::int64_t>(static_cast<std::size_t>(n), 0)};
    drawn.forwarded = is_forwarded(scenario.cluster, layout);
    if (drawn.forwarded) {
        drawn.staged = {TrafficMatrix(n), TrafficMatrix(n)};
    } else {
        drawn.copies = TrafficMatrix(n);
    }
    MemberRates rates;
    for (int source = 0; source < n; ++source) {
        if (source == 0 || !members_alike(scenario.routing))
            rates = member_rates(scenario, layout, layer, group, source);
        const RouterId id = routers_of(layout, layer, group, source, sample).front();
        CountDraw draw(
            layout, scenario.routing.noise,
            Random({scenario.routing.seed, kCountStream, static_cast<std::uint64_t>(layer),
                    static_cast<std::uint64_t>(id.head), static_cast<std::uint64_t>(id.source_rank),
                    static_cast<std::uint64_t>(sample)}));
        const std::vector<std::int64_t> row = draw.copies(rates);
        const int home = source / island, local = source % island;
        for (int d = 0; d < n; ++d) {
            if (layout.gathers_rows() && d % e != source % e) continue;
            const int entry = d / island == home ? source : d / island * island + local;
            (drawn.forwarded ? drawn.staged.inside.at(entry, d) : drawn.copies.at(source, d)) +=
                row[static_cast<std::size_t>(d / e)];
        }
        if (drawn.forwarded) {
            const std::vector<std::int64_t> nodes = draw.node_copies(rates, row, island / e);
            for (int node = 0; node < islands; ++node) {
                if (node != home)
                    drawn.staged.over_nic.at(source, node * island + local) =
                        nodes[static_cast<std::size_t>(node)];
            }
        }
        const std::vector<std::int64_t> rows = draw.rows(rates, row);
        for (int d = 0; d < n; ++d)
            drawn.rows[static_cast<std::size_t>(d)] += rows[static_cast<std::size_t>(d / e)];
    }
    return drawn;
}

}  // namespace

DrawnGroup draw_group(const Scenario& scenario, const Plan& plan, int layer, int group, int sample,
                      Drawing drawing) {
    const ExpertLayout layout = expert_layout(scenario, plan);
    const double choices = layout.tokens_per_rank * layout.router.top_k * layout.ranks();
    // The expectation is of counts: no set of whole tokens has just those of every rank and node.
    const bool tokens =
        scenario.routing.noise && (drawing == Drawing::by_token ||
                                   (drawing == Drawing::automatic && choices <= kTokenChoices));
    DrawnGroup drawn = tokens ? by_token(scenario, layout, layer, group, sample)
                              : by_count(scenario, layout, layer, group, sample);
    if (layout.capacity_factor) {
        const auto limit =
            static_cast<std::int64_t>(*layout.capacity_factor * layout.tokens_per_rank *
                                      layout.router.top_k * layout.expert_tensor);
        for (std::int64_t& r : drawn.rows) r = std::min(r, limit);
    }
    return drawn;
}

std::vector<DrawnGroup> draw_groups(const Scenario& scenario, const Plan& plan, int layer,
                                    int first, int count, int sample) {
    std::vector<DrawnGroup> groups;
    const ExpertLayout layout = expert_layout(scenario, plan);
    const int n = layout.ranks();
    if (!layout.exchanges() || !scenario.model.is_moe_layer(layer)) return groups;
    for (int g = first / n; g < (first + count) / n; ++g)
        groups.push_back(draw_group(scenario, plan, layer, g, sample));
    return groups;
}

}  // namespace headway::inline workload
