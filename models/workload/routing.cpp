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

// Gamma draws by their logarithms, relative to the largest: at a small concentration a draw itself
// is smaller than any number. Weights below e^-690 of the largest are taken for that.
std::vector<double> dirichlet(double concentration, std::size_t n, Random& random) {
    std::vector<double> logs(n);
    for (double& log : logs) log = random.log_gamma(concentration);
    const double most = *std::max_element(logs.begin(), logs.end());
    for (double& log : logs) log = std::exp(std::max(log - most, -690.0));
    return logs;
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
    std::vector<std::int32_t> others;
    std::vector<std::pair<double, std::int32_t>> clocks;
    const std::int64_t patience = 16 * std::int64_t{k} + 64;
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        std::int32_t* chosen = result.expert.data() + t * k;
        int count = 0;
        for (std::int64_t tries = 0; count < k && tries < patience; ++tries) {
            const std::int32_t e = table.draw(random);
            if (std::find(chosen, chosen + count, e) == chosen + count) chosen[count++] = e;
        }
        // Rejection is slow when a few experts hold nearly all the weight: the rest of the token
        // comes by clocks. A token drawn anew would lack the rare experts that took long.
        if (count < k) {
            others.clear();
            for (std::int32_t e = 0; e < shape.num_experts; ++e) {
                if (std::find(chosen, chosen + count, e) == chosen + count) others.push_back(e);
            }
            first_to_ring(weights, others, k - count, random, clocks, chosen + count);
        }
    }
    return result;
}

// A score falls with the time at which an expert's clock rings: the sigmoid of the logit
// -log(ring), as DeepSeek-V3 has it.
double score_of(double ring) {
    return 1.0 / (1.0 + ring);
}

// The open groups of a token whose clocks ring at these times. `random` draws them by weight.
class GroupChoice {
  public:
    GroupChoice(const std::vector<double>& weights, const RouterShape& shape)
        : shape_(shape),
          per_group_(static_cast<std::size_t>(shape.num_experts / shape.num_groups)),
          weight_(static_cast<std::size_t>(shape.num_groups), 0.0) {
        for (std::size_t e = 0; e < weights.size(); ++e) weight_[e / per_group_] += weights[e];
    }

    // Groups in falling order of score; the first `top_groups` are open.
    const std::vector<std::pair<double, std::size_t>>& choose(const std::vector<double>& rings,
                                                              Random& random) {
        order_.clear();
        for (std::size_t g = 0; g < weight_.size(); ++g)
            order_.emplace_back(-score(g, rings, random), g);
        std::partial_sort(order_.begin(), order_.begin() + shape_.top_groups, order_.end());
        return order_;
    }

  private:
    double score(std::size_t g, const std::vector<double>& rings, Random& random) const {
        if (shape_.group_score == GroupScore::random)
            return weight_[g] > 0.0 ? -random.exponential() / weight_[g] : -HUGE_VAL;
        double first = HUGE_VAL, next = HUGE_VAL;
        for (std::size_t e = g * per_group_; e < (g + 1) * per_group_; ++e) {
            next = std::min(next, std::max(first, rings[e]));
            first = std::min(first, rings[e]);
        }
        if (shape_.group_score == GroupScore::max) return -first;
        return score_of(first) + score_of(next);
    }

    RouterShape shape_;
    std::size_t per_group_;
    std::vector<double> weight_;
    std::vector<std::pair<double, std::size_t>> order_;
};

Assignment sample_grouped(const std::vector<double>& weights, const RouterShape& shape,
                          Random random, std::int64_t num_tokens) {
    const int k = shape.top_k, per_group = shape.num_experts / shape.num_groups;
    Assignment result{num_tokens, k, {}};
    result.expert.resize(static_cast<std::size_t>(num_tokens) * static_cast<std::size_t>(k));
    GroupChoice groups(weights, shape);
    std::vector<double> rings(weights.size());
    std::vector<std::pair<double, std::int32_t>> clocks;
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        for (std::size_t e = 0; e < rings.size(); ++e)
            rings[e] = weights[e] > 0.0 ? random.exponential() / weights[e]
                                        : std::numeric_limits<double>::max();
        const auto& order = groups.choose(rings, random);
        clocks.clear();
        for (int g = 0; g < shape.top_groups; ++g) {
            const std::size_t begin =
                order[static_cast<std::size_t>(g)].second * static_cast<std::size_t>(per_group);
            for (std::size_t e = begin; e < begin + static_cast<std::size_t>(per_group); ++e)
                clocks.emplace_back(rings[e], static_cast<std::int32_t>(e));
        }
        std::partial_sort(clocks.begin(), clocks.begin() + k, clocks.end());
        for (int j = 0; j < k; ++j)
            result.expert[static_cast<std::size_t>(t * k + j)] =
                clocks[static_cast<std::size_t>(j)].second;
    }
    return result;
}

// Whole numbers of tokens nearest to T pi_e that sum to T k.
std::vector<std::int64_t> expected_rows(const std::vector<double>& inclusion, int top_k,
                                        std::int64_t num_tokens) {
    std::vector<std::int64_t> rows;
    double cumulative = 0.0;
    std::int64_t given = 0;
    for (std::size_t e = 0; e < inclusion.size(); ++e) {
        cumulative += inclusion[e] * static_cast<double>(num_tokens);
        const std::int64_t end =
            e + 1 == inclusion.size() ? num_tokens * top_k : std::llround(cumulative);
        rows.push_back(std::clamp<std::int64_t>(end - given, 0, num_tokens));
        given += rows.back();
    }
    return rows;
}

// Replaces choices of experts that have too many rows by such with too few, in tokens that do not
// hold these yet and, first, within a group, which leaves the groups of a token as they are.
class Levelling {
  public:
    Levelling(Assignment& assignment, int num_experts, int num_groups,
              std::vector<std::int64_t> wanted)
        : a_(assignment), per_group_(num_experts / num_groups), excess_(std::move(wanted)) {
        for (std::int64_t& rows : excess_) rows = -rows;
        for (const std::int32_t e : a_.expert) ++excess_[static_cast<std::size_t>(e)];
    }

    void run() {
        for (const bool any_group : {false, true}) {
            for (std::int64_t t = 0; t < a_.num_tokens; ++t) {
                for (int j = 0; j < a_.top_k; ++j) replace(t, j, any_group);
            }
        }
    }

  private:
    void replace(std::int64_t token, int choice, bool any_group) {
        std::int32_t* chosen = a_.expert.data() + token * a_.top_k;
        const auto old = static_cast<std::size_t>(chosen[choice]);
        if (excess_[old] <= 0) return;
        const auto group = old / static_cast<std::size_t>(per_group_);
        for (std::size_t e = 0; e < excess_.size(); ++e) {
            if (excess_[e] >= 0) continue;
            const auto other = e / static_cast<std::size_t>(per_group_);
            const bool open =
                other == group || (any_group && std::any_of(chosen, chosen + a_.top_k, [&](int c) {
                                       return static_cast<std::size_t>(c / per_group_) == other;
                                   }));
            const auto id = static_cast<std::int32_t>(e);
            if (!open || std::find(chosen, chosen + a_.top_k, id) != chosen + a_.top_k) continue;
            chosen[choice] = id;
            --excess_[old];
            ++excess_[e];
            return;
        }
    }

    Assignment& a_;
    int per_group_;
    std::vector<std::int64_t> excess_;  // rows beyond the wanted ones [E]
};

}  // namespace

RouterShape router_shape(const Moe& moe) {
    return {moe.num_experts, moe.top_k, moe.num_expert_groups, moe.top_groups, moe.group_score};
}

std::vector<double> expert_popularity(const Routing& routing, const RouterShape& shape,
                                      const RouterId& router) {
    const std::size_t n = static_cast<std::size_t>(shape.num_experts);
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
            weights = dirichlet(routing.parameter, n, random);
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
    if (routing.skew != Skew::trace) return weights;
    for (double& share : weights) share *= shape.top_k;
    return popularity_of_shares(weights, shape);
}

Assignment sample_assignment(const Routing& routing, const RouterShape& shape,
                             const RouterId& router, std::int64_t num_tokens) {
    const std::vector<double> weights = expert_popularity(routing, shape, router);
    const Random random({routing.seed, kTokenStream, static_cast<std::uint64_t>(router.layer),
                         static_cast<std::uint64_t>(router.head),
                         static_cast<std::uint64_t>(router.source_rank),
                         static_cast<std::uint64_t>(router.sample)});
    const bool grouped = shape.num_groups > 1 && shape.top_groups < shape.num_groups;
    Assignment drawn = grouped ? sample_grouped(weights, shape, random, num_tokens)
                               : sample_noisy(weights, shape, random, num_tokens);
    if (!routing.noise) {
        Levelling(drawn, shape.num_experts, grouped ? shape.num_groups : 1,
                  expected_rows(inclusion_probabilities(weights, shape), shape.top_k, num_tokens))
            .run();
    }
    return drawn;
}

}  // namespace headway::inline workload
