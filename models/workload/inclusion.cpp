#include "models/workload/inclusion.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

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

// Time at which the expected number of rung clocks is `target`, and each clock's chance of silence
// until then. The count is concave in time, so Newton from the left never overshoots. Infinite when
// fewer clocks exist.
struct RingTime {
    double time = 0.0;
    std::vector<double> silent;  // exp(-w_e time)
};

RingTime ring_time(const std::vector<double>& weights, const std::vector<double>& presence,
                   double target, double start, double tolerance) {
    RingTime ring{start, std::vector<double>(weights.size())};
    for (int iteration = 0; iteration < 200; ++iteration) {
        double rung = 0.0, rate = 0.0;
        for (std::size_t e = 0; e < weights.size(); ++e) {
            ring.silent[e] = std::exp(-weights[e] * ring.time);
            const double left = presence[e] * ring.silent[e];
            rung += presence[e] - left;
            rate += left * weights[e];
        }
        const double missing = target - rung;
        if (missing <= tolerance * std::max(target, 1.0)) return ring;
        if (rate <= 1e-290) break;
        ring.time += missing / rate;
    }
    ring.time = HUGE_VAL;
    return ring;
}

// Chance that each group is among the chosen ones. [num_groups]
std::vector<double> group_presence(const std::vector<double>& weights, const RouterShape& shape) {
    const std::size_t per_group = static_cast<std::size_t>(shape.num_experts / shape.num_groups);
    std::vector<double> total(static_cast<std::size_t>(shape.num_groups), 0.0);
    for (std::size_t e = 0; e < weights.size(); ++e) total[e / per_group] += weights[e];
    if (!is_group_limited(shape)) return std::vector<double>(total.size(), 1.0);
    const std::vector<double> ones(total.size(), 1.0);
    const RingTime ring = ring_time(total, ones, shape.top_groups, 0.0, kExact);
    for (std::size_t g = 0; g < total.size(); ++g) total[g] = 1.0 - ring.silent[g];
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
        // The rate is only good to the expansion's own error: no need to solve it further.
        if (slope <= 0.0 || std::abs(missing - value) <= kExact * (1.0 + rings)) break;
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
    const RingTime ring = ring_time(popularity, presence, k, 0.0, kExact);
    std::vector<double> result(popularity.size());
    for (std::size_t e = 0; e < result.size(); ++e)
        result[e] = presence[e] * (1.0 - ring.silent[e]);
    return result;
}

RingPoints ring_points(const std::vector<double>& popularity, const RouterShape& shape) {
    RingPoints points{.popularity = popularity, .is_uniform = is_uniform(popularity)};
    if (points.is_uniform) return points;
    points.group = group_presence(popularity, shape);
    points.presence = expert_presence(points.group, shape);
    double s = 0.0;
    for (int j = 0; j < shape.top_k; ++j) {
        RingTime ring = ring_time(popularity, points.presence, j, s, kNear);
        s = ring.time;
        if (!std::isfinite(s)) break;
        points.silent.push_back(std::move(ring.silent));
    }
    return points;
}

std::vector<double> hit_probabilities(const RingPoints& points, const RouterShape& shape,
                                      int num_parts) {
    const std::size_t parts = static_cast<std::size_t>(num_parts);
    if (points.is_uniform)
        return std::vector<double>(parts, uniform_hit_probability(shape, num_parts));
    const std::vector<double>& popularity = points.popularity;
    const std::size_t num_groups = static_cast<std::size_t>(shape.num_groups);
    const std::size_t per_part = popularity.size() / parts,
                      per_group = popularity.size() / num_groups;
    const bool limited = is_group_limited(shape) && per_part <= per_group;
    // Inside a chosen group the group's own experts are present for sure.
    const auto presence_in_part = [&](std::size_t e) { return limited ? 1.0 : points.presence[e]; };
    std::vector<double> own(parts, 0.0), miss(parts, 1.0);
    for (std::size_t p = 0; p < parts; ++p) {
        for (std::size_t e = p * per_part; e < (p + 1) * per_part; ++e)
            own[p] += presence_in_part(e) * popularity[e];
    }
    std::vector<Moments> of_part(parts), of_group(limited ? num_groups : 0);
    for (std::size_t j = 0; j < points.silent.size(); ++j) {
        const std::vector<double>& silent = points.silent[j];
        Moments all;
        for (std::size_t e = 0; e < popularity.size(); ++e)
            all.add(points.presence[e], popularity[e], silent[e]);
        for (std::size_t p = 0; p < parts; ++p) {
            of_part[p] = {};
            for (std::size_t e = p * per_part; e < (p + 1) * per_part; ++e)
                of_part[p].add(presence_in_part(e), popularity[e], silent[e]);
        }
        for (std::size_t g = 0; g < of_group.size(); ++g) {
            of_group[g] = {};
            for (std::size_t e = g * per_group; e < (g + 1) * per_group; ++e)
                of_group[g].add(1.0, popularity[e], silent[e]);
        }
        for (std::size_t p = 0; p < parts; ++p) {
            const std::size_t g = p * per_part / per_group;
            Moments complement = all;
            if (limited) {
                // Given that group g is open, t-1 of the others are.
                const double scale = (shape.top_groups - 1) / (shape.top_groups - points.group[g]);
                const Moments others = combine(1.0, all, -points.group[g], of_group[g]);
                complement = combine(scale, others, 1.0, of_group[g]);
            }
            complement = combine(1.0, complement, -1.0, of_part[p]);
            const double rest = rate_after(complement, static_cast<double>(j));
            miss[p] *= rest + own[p] > 0.0 ? rest / (rest + own[p]) : 0.0;
        }
    }
    // Fewer clocks than choices: every part is reached.
    if (points.silent.size() < static_cast<std::size_t>(shape.top_k))
        std::fill(miss.begin(), miss.end(), 0.0);
    for (std::size_t p = 0; p < parts; ++p) {
        const double open = limited ? points.group[p * per_part / per_group] : 1.0;
        miss[p] = open * (1.0 - miss[p]);
    }
    return miss;
}

std::vector<double> hit_probabilities(const std::vector<double>& popularity,
                                      const RouterShape& shape, int num_parts) {
    return hit_probabilities(ring_points(popularity, shape), shape, num_parts);
}

}  // namespace headway::inline workload
