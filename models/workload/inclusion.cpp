#include "models/workload/inclusion.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

#include "models/workload/ring_integral.hpp"

namespace headway::inline workload {
namespace {

// C(n - m, k) / C(n, k): the chance that k draws without replacement from n all miss m given ones.
double miss_without_replacement(int n, int m, int k) {
    double miss = 1.0;
    for (int i = 0; i < k; ++i) {
        if (n - m - i <= 0) return 0.0;
        miss *= static_cast<double>(n - m - i) / static_cast<double>(n - i);
    }
    return miss;
}

double log_choose(int n, int k) {
    return std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0);
}

bool is_uniform(const std::vector<double>& weights) {
    if (weights.empty()) return true;
    const auto [low, high] = std::minmax_element(weights.begin(), weights.end());
    return *high - *low <= 1e-12 * *high;
}

// Whether the limit can ever bind: groups that hold a best expert are open, so that under `max` no
// more than k are needed.
bool is_limited(const RouterShape& shape) {
    if (shape.num_groups <= 1 || shape.top_groups >= shape.num_groups) return false;
    return shape.group_score != GroupScore::max || shape.top_groups < shape.top_k;
}

// Parts of `m` experts lie inside groups, or are whole groups.
bool is_aligned(int m, int per_group) {
    return m <= per_group ? per_group % m == 0 : m % per_group == 0;
}

// Groups chosen apart from the experts: hypergeometric in both.
double uniform_hit_by_weight(const RouterShape& shape, int m) {
    const int per_group = shape.num_experts / shape.num_groups, open = shape.top_groups * per_group,
              k = shape.top_k;
    if (m <= per_group) {
        const double chosen = static_cast<double>(shape.top_groups) / shape.num_groups;
        return chosen * (1.0 - miss_without_replacement(open, m, k));
    }
    const int span = m / per_group;  // whole groups of the part
    double miss = 0.0;
    for (int i = 0; i <= std::min(span, shape.top_groups); ++i) {
        if (shape.top_groups - i > shape.num_groups - span) continue;
        const double log_weight = log_choose(span, i) +
                                  log_choose(shape.num_groups - span, shape.top_groups - i) -
                                  log_choose(shape.num_groups, shape.top_groups);
        miss += std::exp(log_weight) * miss_without_replacement(open, i * per_group, k);
    }
    return 1.0 - miss;
}

// Groups chosen by their best score: experts are drawn one after the other from all groups until
// `top_groups` of these have been met, then from those alone. State: groups met that hold nothing
// of the part, and whether the part's own group is among them (for a part inside one group).
double uniform_hit_by_score(const RouterShape& shape, int m) {
    const int per_group = shape.num_experts / shape.num_groups, top = shape.top_groups;
    const int span = std::max(1, m / per_group);  // groups that the part has experts of
    const double inside = std::min(m, per_group) * span, rest = span * per_group - inside;
    std::vector<std::array<double, 2>> chance(static_cast<std::size_t>(top) + 1, {0.0, 0.0});
    chance[0][0] = 1.0;
    for (int drawn = 0; drawn < shape.top_k; ++drawn) {
        std::vector<std::array<double, 2>> next(chance.size(), {0.0, 0.0});
        for (int met = 0; met <= top; ++met) {
            for (int own = 0; own < 2; ++own) {
                const double now = chance[static_cast<std::size_t>(met)][own ? 1 : 0];
                if (now <= 0.0) continue;
                const auto to = [&](int groups, int is_own) -> double& {
                    return next[static_cast<std::size_t>(groups)][is_own ? 1 : 0];
                };
                const double kept = double{1} * met * per_group - drawn;  // of the groups met
                if (met == top) {
                    to(met, own) += now * (own ? (kept - inside) / kept : 1.0);
                    continue;
                }
                const double all = shape.num_experts - drawn,
                             others = double{1} * (shape.num_groups - met - (own ? 0 : span)) *
                                      per_group;
                to(met + 1, own) += now * others / all;
                if (!own) to(met + 1, 1) += now * rest / all;
                to(met, own) += now * (kept - (own ? inside : 0.0)) / all;
            }
        }
        chance = std::move(next);
    }
    double miss = 0.0;
    for (const auto& c : chance) miss += c[0] + c[1];
    return 1.0 - miss;
}

double uniform_hit(const RouterShape& shape, int m) {
    if (!is_limited(shape))
        return 1.0 - miss_without_replacement(shape.num_experts, m, shape.top_k);
    return shape.group_score == GroupScore::random ? uniform_hit_by_weight(shape, m)
                                                   : uniform_hit_by_score(shape, m);
}

// Chance that each group is open if each were open by itself with these odds, given that `top` are.
std::vector<double> conditional_openings(const std::vector<double>& odds, int top) {
    const std::size_t n = odds.size(), width = static_cast<std::size_t>(top) + 1;
    std::vector<double> before((n + 1) * width, 0.0), after(width, 0.0), chance(n);
    before[0] = after[0] = 1.0;
    for (std::size_t g = 0; g < n; ++g) {
        for (std::size_t t = 0; t < width; ++t)
            before[(g + 1) * width + t] =
                before[g * width + t] + (t > 0 ? odds[g] * before[g * width + t - 1] : 0.0);
    }
    const double all = before.back();
    for (std::size_t g = n; g-- > 0;) {
        double others = 0.0;
        for (std::size_t t = 0; t + 1 < width; ++t)
            others += before[g * width + t] * after[width - 2 - t];
        chance[g] = odds[g] * others / all;
        for (std::size_t t = width; t-- > 1;) after[t] += odds[g] * after[t - 1];
    }
    return chance;
}

double odds_of(double chance) {
    const double bounded = std::min(chance, 1.0 - 1e-9);
    return bounded / (1.0 - bounded);
}

// The first clock of a group rings at the sum of its experts' rates: Plackett-Luce among groups.
OpenGroups open_groups(const std::vector<double>& popularity, const RouterShape& shape) {
    const std::size_t per_group = static_cast<std::size_t>(shape.num_experts / shape.num_groups);
    std::vector<double> total(static_cast<std::size_t>(shape.num_groups), 0.0);
    for (std::size_t e = 0; e < popularity.size(); ++e) total[e / per_group] += popularity[e];
    OpenGroups groups{.top = shape.top_groups, .chance = {}, .odds = {}};
    groups.chance = inclusion_probabilities(
        total, {.num_experts = shape.num_groups, .top_k = shape.top_groups});
    for (const double chance : groups.chance) groups.odds.push_back(odds_of(chance));
    for (int i = 0; i < 50; ++i) {
        const std::vector<double> now = conditional_openings(groups.odds, groups.top);
        double error = 0.0;
        for (std::size_t g = 0; g < now.size(); ++g) {
            error = std::max(error, std::abs(now[g] - groups.chance[g]));
            if (now[g] > 0.0) groups.odds[g] *= odds_of(groups.chance[g]) / odds_of(now[g]);
        }
        if (error < 1e-7) break;
    }
    return groups;
}

// Where scores choose the groups, an open group's best expert is among the best: the chance to miss
// a part of it is a power of what it would be if groups were open whatever their experts, the power
// that is exact for equal popularity.
void favour_open_groups(std::vector<double>& hits, const RouterShape& shape,
                        const OpenGroups& groups) {
    const int per_group = shape.num_experts / shape.num_groups,
              m = shape.num_experts / static_cast<int>(hits.size());
    const bool inside = per_group % m == 0;
    const int whole = m < per_group ? m : m / per_group * per_group;
    const double open = inside ? static_cast<double>(shape.top_groups) / shape.num_groups : 1.0;
    const double apart = 1.0 - uniform_hit_by_weight(shape, whole) / open,
                 scored = 1.0 - uniform_hit_by_score(shape, whole) / open;
    if (apart <= 0.0 || apart >= 1.0) return;
    const double power = std::log(std::max(scored, 1e-12)) / std::log(apart);
    for (std::size_t p = 0; p < hits.size(); ++p) {
        const std::size_t g = p * static_cast<std::size_t>(m) / static_cast<std::size_t>(per_group);
        const double chance = inside ? groups.chance[g] : 1.0;
        if (chance <= 0.0) continue;
        const double miss = std::clamp(1.0 - hits[p] / chance, 0.0, 1.0);
        hits[p] = chance * (1.0 - std::pow(miss, power));
    }
}

// Sums to k, as it must; the integral does so to 1e-5.
void rescale(std::vector<double>& inclusion, double k) {
    const double sum = std::accumulate(inclusion.begin(), inclusion.end(), 0.0);
    for (double& chance : inclusion) chance = std::min(1.0, chance * k / sum);
}

// Whoever has a positive weight is chosen for sure.
std::vector<double> certain(const std::vector<double>& popularity, int num_parts) {
    const std::size_t parts = static_cast<std::size_t>(num_parts);
    std::vector<double> hits(parts, 0.0);
    for (std::size_t e = 0; e < popularity.size(); ++e) {
        if (popularity[e] > 0.0) hits[e * parts / popularity.size()] = 1.0;
    }
    return hits;
}

std::vector<double> part_sums(const std::vector<double>& popularity, int num_parts) {
    const std::size_t parts = static_cast<std::size_t>(num_parts);
    std::vector<double> sums(parts, 0.0);
    for (std::size_t e = 0; e < popularity.size(); ++e)
        sums[e * parts / popularity.size()] += popularity[e];
    return sums;
}

}  // namespace

double uniform_hit_probability(const RouterShape& shape, int num_parts) {
    return uniform_hit(shape, std::max(1, shape.num_experts / num_parts));
}

double distinct_destinations(const RouterShape& shape, int num_parts) {
    return num_parts * uniform_hit_probability(shape, num_parts);
}

std::vector<std::vector<double>> hit_probabilities(const std::vector<double>& popularity,
                                                   const RouterShape& shape,
                                                   const std::vector<int>& partitions) {
    const bool limited = is_limited(shape);
    const int per_group = shape.num_experts / shape.num_groups;
    std::vector<std::vector<double>> hits;
    const bool aligned = std::all_of(partitions.begin(), partitions.end(), [&](int parts) {
        return is_aligned(shape.num_experts / parts, per_group);
    });
    if (is_uniform(popularity) && (aligned || !limited)) {
        for (const int parts : partitions)
            hits.emplace_back(static_cast<std::size_t>(parts),
                              uniform_hit_probability(shape, parts));
        return hits;
    }
    if (popularity.empty()) {
        return hit_probabilities(std::vector<double>(static_cast<std::size_t>(shape.num_experts),
                                                     1.0 / shape.num_experts),
                                 shape, partitions);
    }
    const auto positive = std::count_if(popularity.begin(), popularity.end(),
                                        [](double weight) { return weight > 0.0; });
    if (!limited && positive <= shape.top_k) {
        for (const int parts : partitions) hits.push_back(certain(popularity, parts));
        return hits;
    }
    if (!limited && shape.top_k == 1) {
        for (const int parts : partitions) hits.push_back(part_sums(popularity, parts));
        return hits;
    }
    OpenGroups groups;
    if (limited) groups = open_groups(popularity, shape);
    hits = reached_by_first_rings(popularity, shape.top_k, limited ? &groups : nullptr, partitions);
    for (std::vector<double>& h : hits) {
        if (limited && shape.group_score != GroupScore::random)
            favour_open_groups(h, shape, groups);
        if (h.size() == popularity.size()) rescale(h, shape.top_k);
    }
    return hits;
}

std::vector<double> hit_probabilities(const std::vector<double>& popularity,
                                      const RouterShape& shape, int num_parts) {
    return hit_probabilities(popularity, shape, std::vector<int>{num_parts}).front();
}

std::vector<double> inclusion_probabilities(const std::vector<double>& popularity,
                                            const RouterShape& shape) {
    return hit_probabilities(popularity, shape, shape.num_experts);
}

std::vector<double> popularity_of_shares(const std::vector<double>& share,
                                         const RouterShape& shape) {
    // Silence -log(1 - share) is in proportion to the rate where all tokens take equally long.
    const auto silence = [](double s) { return -std::log1p(-std::min(s, 1.0 - 1e-9)); };
    const auto normalised = [](std::vector<double> weights) {
        const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
        for (double& w : weights) w /= sum;
        return weights;
    };
    if (shape.top_k == 1) return normalised(share);
    std::vector<double> rates;
    for (const double s : share) rates.push_back(silence(s));
    rates = normalised(std::move(rates));
    for (int i = 0; i < 50; ++i) {
        const std::vector<double> now = inclusion_probabilities(rates, shape);
        double error = 0.0;
        for (std::size_t e = 0; e < rates.size(); ++e) {
            error = std::max(error, std::abs(now[e] - share[e]));
            if (now[e] > 0.0) rates[e] *= silence(share[e]) / silence(now[e]);
        }
        if (error < 1e-6) break;
        rates = normalised(std::move(rates));
    }
    return rates;
}

}  // namespace headway::inline workload
