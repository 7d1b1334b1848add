#include "models/workload/inclusion.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace headway {
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

constexpr double kExact = 1e-9;
// Near enough for an expansion point: rate_after corrects to third order.
constexpr double kNear = 0.02;

bool is_group_limited(const RouterShape& shape) {
    return shape.num_groups > 1 && shape.top_groups < shape.num_groups;
}

bool is_uniform(const std::vector<double>& weights) {
    const auto [low, high] = std::minmax_element(weights.begin(), weights.end());
    return *high - *low <= 1e-12 * *high;
}

// Sums over a set of experts at time s, presence-weighted: rung N, and the rate W not rung yet with
// its first two derivatives (negated): N' = W, W' = -V, V' = -U.
struct Moments {
    double rung = 0.0, rate = 0.0, second = 0.0, third = 0.0;

    void add(double presence, double w, double silent) {
        const double left = presence * silent, first = left * w;
        rung += presence - left;
        rate += first;
        second += first * w;
        third += first * w * w;
    }
};

Moments combine(double a, const Moments& x, double b, const Moments& y) {
    return {a * x.rung + b * y.rung, a * x.rate + b * y.rate, a * x.second + b * y.second,
            a * x.third + b * y.third};
}

// Time at which the expected number of rung clocks is `target`. The count is concave in time, so
// Newton from the left never overshoots. Returns infinity when fewer clocks exist.
double ring_time(const std::vector<double>& weights, const std::vector<double>& presence,
                 double target, double start, double tolerance) {
    double s = start;
    for (int iteration = 0; iteration < 200; ++iteration) {
        double rung = 0.0, rate = 0.0;
        for (std::size_t e = 0; e < weights.size(); ++e) {
            const double silent = presence[e] * std::exp(-weights[e] * s);
            rung += presence[e] - silent;
            rate += silent * weights[e];
        }
        const double missing = target - rung;
        if (missing <= tolerance * std::max(target, 1.0)) return s;
        if (rate <= 1e-290) return HUGE_VAL;
        s += missing / rate;
    }
    return s;
}

// Chance that each group is among the chosen ones. [num_groups]
std::vector<double> group_presence(const std::vector<double>& weights, const RouterShape& shape) {
    const std::size_t per_group = static_cast<std::size_t>(shape.num_experts / shape.num_groups);
    std::vector<double> total(static_cast<std::size_t>(shape.num_groups), 0.0);
    for (std::size_t e = 0; e < weights.size(); ++e) total[e / per_group] += weights[e];
    if (!is_group_limited(shape)) return std::vector<double>(total.size(), 1.0);
    const std::vector<double> ones(total.size(), 1.0);
    const double s = ring_time(total, ones, shape.top_groups, 0.0, kExact);
    for (double& p : total) p = 1.0 - std::exp(-p * s);
    return total;
}

std::vector<double> expert_presence(const std::vector<double>& group, const RouterShape& shape) {
    const std::size_t per_group = static_cast<std::size_t>(shape.num_experts / shape.num_groups);
    std::vector<double> presence(static_cast<std::size_t>(shape.num_experts));
    for (std::size_t e = 0; e < presence.size(); ++e) presence[e] = group[e / per_group];
    return presence;
}

// Rate of the complement that has not rung when `rings` of it have, from its moments at a nearby
// time: third-order expansion of N(s + delta) = rings.
double rate_after(const Moments& c, double rings) {
    const double missing = rings - c.rung;
    if (c.rate <= 0.0) return 0.0;
    double delta = missing / c.rate;
    for (int i = 0; i < 3; ++i) {
        const double value = delta * (c.rate - delta * (c.second / 2 - delta * c.third / 6));
        const double slope = c.rate - delta * (c.second - delta * c.third / 2);
        if (slope <= 0.0) break;
        delta += (missing - value) / slope;
    }
    return std::max(0.0, c.rate - delta * (c.second - delta * c.third / 2));
}

}  // namespace

double uniform_hit_probability(const RouterShape& shape, int num_parts) {
    const int m = std::max(1, shape.num_experts / num_parts), k = shape.top_k;
    if (!is_group_limited(shape)) return 1.0 - miss_without_replacement(shape.num_experts, m, k);
    const int per_group = shape.num_experts / shape.num_groups, open = shape.top_groups * per_group;
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

double distinct_destinations(const RouterShape& shape, int num_parts) {
    return num_parts * uniform_hit_probability(shape, num_parts);
}

std::vector<double> inclusion_probabilities(const std::vector<double>& popularity,
                                            const RouterShape& shape) {
    const double k = shape.top_k;
    if (is_uniform(popularity))
        return std::vector<double>(popularity.size(), k / shape.num_experts);
    const std::vector<double> presence = expert_presence(group_presence(popularity, shape), shape);
    const double s = ring_time(popularity, presence, k, 0.0, kExact);
    std::vector<double> result(popularity.size());
    for (std::size_t e = 0; e < result.size(); ++e) {
        result[e] = presence[e] * (1.0 - std::exp(-popularity[e] * s));
    }
    return result;
}

std::vector<double> hit_probabilities(const std::vector<double>& popularity,
                                      const RouterShape& shape, int num_parts) {
    const std::size_t parts = static_cast<std::size_t>(num_parts);
    if (is_uniform(popularity))
        return std::vector<double>(parts, uniform_hit_probability(shape, num_parts));
    const std::size_t num_groups = static_cast<std::size_t>(shape.num_groups);
    const std::size_t per_part = popularity.size() / parts,
                      per_group = popularity.size() / num_groups;
    const std::vector<double> group = group_presence(popularity, shape);
    const std::vector<double> presence = expert_presence(group, shape);
    const bool limited = is_group_limited(shape) && per_part <= per_group;
    std::vector<double> miss(parts, 1.0);
    double s = 0.0;
    for (int j = 0; j < shape.top_k; ++j) {
        s = ring_time(popularity, presence, j, s, kNear);
        if (!std::isfinite(s)) {
            std::fill(miss.begin(), miss.end(), 0.0);
            break;
        }
        Moments all;
        std::vector<Moments> of_part(parts), of_group(num_groups);
        for (std::size_t e = 0; e < popularity.size(); ++e) {
            // Inside a chosen group the group's own experts are present for sure.
            const double silent = std::exp(-popularity[e] * s);
            of_part[e / per_part].add(limited ? 1.0 : presence[e], popularity[e], silent);
            if (limited) of_group[e / per_group].add(1.0, popularity[e], silent);
            all.add(presence[e], popularity[e], silent);
        }
        for (std::size_t p = 0; p < parts; ++p) {
            const std::size_t g = p * per_part / per_group;
            Moments complement = all;
            if (limited) {
                // Given that group g is open, t-1 of the others are.
                const double scale = (shape.top_groups - 1) / (shape.top_groups - group[g]);
                complement =
                    combine(scale, combine(1.0, all, -group[g], of_group[g]), 1.0, of_group[g]);
            }
            complement = combine(1.0, complement, -1.0, of_part[p]);
            double own = 0.0;
            for (std::size_t e = p * per_part; e < (p + 1) * per_part; ++e) {
                own += (limited ? 1.0 : presence[e]) * popularity[e];
            }
            const double rest = rate_after(complement, j);
            miss[p] *= rest + own > 0.0 ? rest / (rest + own) : 0.0;
        }
    }
    for (std::size_t p = 0; p < parts; ++p) {
        const double open = limited ? group[p * per_part / per_group] : 1.0;
        miss[p] = open * (1.0 - miss[p]);
    }
    return miss;
}

}  // namespace headway
