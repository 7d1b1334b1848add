#include "models/workload/routing.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

#include "models/workload/inclusion.hpp"
#include "models/workload/random.hpp"

namespace headway::inline workload {
namespace {

constexpr std::uint64_t kPopularityStream = 1, kTokenStream = 2;

void normalise(std::vector<double>& weights) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& w : weights) w /= sum;
}

// The draw that inference collectors use for skewed loads: Pareto truncated to [1, 0.8 * 8192],
// exponent a (aiconfigurator's power_law, with the token count of its published tables).
double truncated_power_law(double a, double u) {
    constexpr double x_min = 1.0, x_max = 0.8 * 8192;
    if (std::abs(a - 1.0) < 1e-9) return x_min * std::pow(x_max / x_min, u);
    const double b = 1.0 - a;
    return std::pow((std::pow(x_max, b) - std::pow(x_min, b)) * u + std::pow(x_min, b), 1.0 / b);
}

// Draws without replacement by exponential clocks: the first `count` of `from` to ring.
void first_to_ring(const std::vector<double>& weights, const std::vector<std::int32_t>& from,
                   int count, Random& random, std::vector<std::pair<double, std::int32_t>>& clocks,
                   std::int32_t* chosen) {
    clocks.clear();
    for (std::int32_t e : from) {
        const double w = weights[static_cast<std::size_t>(e)];
        const double ring = w > 0.0 ? random.exponential() / w : std::numeric_limits<double>::max();
        clocks.emplace_back(ring, e);
    }
    std::partial_sort(clocks.begin(), clocks.begin() + count, clocks.end());
    for (int j = 0; j < count; ++j) chosen[j] = clocks[static_cast<std::size_t>(j)].second;
}

// Walker's alias table: one draw with given probabilities in constant time.
class AliasTable {
  public:
    explicit AliasTable(const std::vector<double>& weights)
        : accept_(weights.size(), 1.0), alias_(weights.size(), 0) {
        const double mean = std::accumulate(weights.begin(), weights.end(), 0.0) /
                            static_cast<double>(weights.size());
        std::vector<std::size_t> small, large;
        std::vector<double> scaled(weights.size());
        for (std::size_t i = 0; i < weights.size(); ++i) {
            scaled[i] = weights[i] / mean;
            (scaled[i] < 1.0 ? small : large).push_back(i);
        }
        while (!small.empty() && !large.empty()) {
            const std::size_t s = small.back(), l = large.back();
            small.pop_back();
            accept_[s] = scaled[s];
            alias_[s] = static_cast<std::int32_t>(l);
            scaled[l] -= 1.0 - scaled[s];
            if (scaled[l] < 1.0) {
                large.pop_back();
                small.push_back(l);
            }
        }
    }

    std::int32_t draw(Random& random) const {
        const std::size_t i = random.below(accept_.size());
        return random.uniform() < accept_[i] ? static_cast<std::int32_t>(i) : alias_[i];
    }

  private:
    std::vector<double> accept_;
    std::vector<std::int32_t> alias_;
};

Assignment sample_noisy(const std::vector<double>& weights, const RouterShape& shape, Random random,
                        std::int64_t num_tokens) {
    const int k = shape.top_k;
    Assignment result{num_tokens, k, {}};
    result.expert.resize(static_cast<std::size_t>(num_tokens) * static_cast<std::size_t>(k));
    const AliasTable table(weights);
    std::vector<std::int32_t> all(weights.size());
    std::iota(all.begin(), all.end(), 0);
    std::vector<std::pair<double, std::int32_t>> clocks;
    const std::int64_t patience = 16 * std::int64_t{k} + 64;
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        std::int32_t* chosen = result.expert.data() + t * k;
        int count = 0;
        for (std::int64_t tries = 0; count < k && tries < patience; ++tries) {
            const std::int32_t e = table.draw(random);
            if (std::find(chosen, chosen + count, e) == chosen + count) chosen[count++] = e;
        }
        // Rejection is slow when a few experts hold nearly all the weight: draw the whole token
        // anew by clocks.
        if (count < k) first_to_ring(weights, all, k, random, clocks, chosen);
    }
    return result;
}

Assignment sample_grouped(const std::vector<double>& weights, const RouterShape& shape,
                          Random random, std::int64_t num_tokens) {
    const int k = shape.top_k, per_group = shape.num_experts / shape.num_groups;
    Assignment result{num_tokens, k, {}};
    result.expert.resize(static_cast<std::size_t>(num_tokens) * static_cast<std::size_t>(k));
    std::vector<double> group_weights(static_cast<std::size_t>(shape.num_groups), 0.0);
    for (int e = 0; e < shape.num_experts; ++e) {
        group_weights[static_cast<std::size_t>(e / per_group)] +=
            weights[static_cast<std::size_t>(e)];
    }
    std::vector<std::int32_t> groups(group_weights.size()),
        open_groups(static_cast<std::size_t>(shape.top_groups));
    std::iota(groups.begin(), groups.end(), 0);
    std::vector<std::int32_t> candidates;
    std::vector<std::pair<double, std::int32_t>> clocks;
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        first_to_ring(group_weights, groups, shape.top_groups, random, clocks, open_groups.data());
        candidates.clear();
        for (std::int32_t g : open_groups) {
            for (int i = 0; i < per_group; ++i) candidates.push_back(g * per_group + i);
        }
        first_to_ring(weights, candidates, k, random, clocks, result.expert.data() + t * k);
    }
    return result;
}

// Without noise: expert e gets round(T pi_e) tokens. Dealing the sorted list of rows with stride T
// gives no token the same expert twice, since no expert has more than T rows.
Assignment deal_expectation(const std::vector<double>& weights, const RouterShape& shape,
                            std::int64_t num_tokens) {
    const std::vector<double> pi = inclusion_probabilities(weights, shape);
    const std::int64_t rows = num_tokens * shape.top_k;
    Assignment result{num_tokens, shape.top_k, {}};
    result.expert.resize(static_cast<std::size_t>(rows));
    double cumulative = 0.0;
    std::int64_t row = 0;
    for (std::size_t e = 0; e < pi.size(); ++e) {
        cumulative += pi[e] * static_cast<double>(num_tokens);
        const std::int64_t end =
            e + 1 == pi.size()
                ? rows
                : std::min(rows, static_cast<std::int64_t>(std::llround(cumulative)));
        for (; row < end; ++row) {
            const std::int64_t token = row % num_tokens, choice = row / num_tokens;
            result.expert[static_cast<std::size_t>(token * shape.top_k + choice)] =
                static_cast<std::int32_t>(e);
        }
    }
    return result;
}

}  // namespace

RouterShape router_shape(const Moe& moe) {
    return {moe.num_experts, moe.top_k, moe.num_expert_groups, moe.top_groups};
}

RouterShape router_shape(const HeadParallel& heads) {
    return {heads.num_experts, heads.top_k, 1, 1};
}

std::vector<double> expert_popularity(const Routing& routing, int num_experts,
                                      const RouterId& router) {
    const std::size_t n = static_cast<std::size_t>(num_experts);
    std::vector<double> weights(n, 1.0);
    Random random({routing.seed, kPopularityStream,
                   routing.per_layer ? static_cast<std::uint64_t>(router.layer) : 0,
                   static_cast<std::uint64_t>(router.head),
                   routing.scope == SkewScope::per_source
                       ? static_cast<std::uint64_t>(router.source_rank)
                       : 0});
    switch (routing.skew) {
        case Skew::none:
            break;
        case Skew::zipf:
            for (std::size_t i = 0; i < n; ++i)
                weights[i] = std::pow(static_cast<double>(i + 1), -routing.parameter);
            random.shuffle(weights);
            break;
        case Skew::power_law:
            for (double& w : weights) w = truncated_power_law(routing.parameter, random.uniform());
            break;
        case Skew::dirichlet:
            // A tiny floor keeps a very small concentration from making every weight zero.
            for (double& w : weights) w = std::max(random.gamma(routing.parameter), 1e-300);
            break;
        case Skew::histogram:
        case Skew::trace: {
            assert(!routing.weights.empty());
            weights =
                routing.weights[static_cast<std::size_t>(router.layer) % routing.weights.size()];
            assert(weights.size() == n);
            break;
        }
    }
    normalise(weights);
    return weights;
}

Assignment sample_assignment(const Routing& routing, const RouterShape& shape,
                             const RouterId& router, std::int64_t num_tokens) {
    const std::vector<double> weights = expert_popularity(routing, shape.num_experts, router);
    if (!routing.noise) return deal_expectation(weights, shape, num_tokens);
    const Random random({routing.seed, kTokenStream, static_cast<std::uint64_t>(router.layer),
                         static_cast<std::uint64_t>(router.head),
                         static_cast<std::uint64_t>(router.source_rank),
                         static_cast<std::uint64_t>(router.sample)});
    return shape.num_groups > 1 && shape.top_groups < shape.num_groups
               ? sample_grouped(weights, shape, random, num_tokens)
               : sample_noisy(weights, shape, random, num_tokens);
}

}  // namespace headway::inline workload
