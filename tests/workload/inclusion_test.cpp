// Expected traffic against sampling: D_g in closed form, and the skewed approximations within
// stated errors.
#include "models/workload/inclusion.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/workload/random.hpp"
#include "models/workload/traffic.hpp"

namespace headway {
namespace {

// Mean share of tokens that reach each of `parts` runs of experts, by sampling.
std::vector<double> sampled_hits(const Routing& routing, const RouterShape& shape, int parts,
                                 std::int64_t tokens) {
    const Assignment a = sample_assignment(routing, shape, {}, tokens);
    std::vector<double> hits(static_cast<std::size_t>(parts), 0.0);
    const int per_part = shape.num_experts / parts;
    for (std::int64_t t = 0; t < tokens; ++t) {
        std::vector<bool> seen(hits.size(), false);
        for (int j = 0; j < shape.top_k; ++j) {
            seen[static_cast<std::size_t>(a.expert[static_cast<std::size_t>(t * shape.top_k + j)] /
                                          per_part)] = true;
        }
        for (std::size_t p = 0; p < hits.size(); ++p)
            hits[p] += seen[p] ? 1.0 / static_cast<double>(tokens) : 0.0;
    }
    return hits;
}

// k = 8, E = 256: the published values of D_g at g = 2, 4, 8, 16, 64.
TEST(DistinctDestinations, MatchesTheHypergeometricValues) {
    const RouterShape shape{256, 8, 1, 1};
    const std::vector<std::pair<int, double>> table = {
        {2, 1.993}, {4, 3.614}, {8, 5.295}, {16, 6.523}, {64, 7.676}};
    for (const auto& [g, expected] : table)
        EXPECT_NEAR(distinct_destinations(shape, g), expected, 5e-4) << g;
}

TEST(DistinctDestinations, LimitsAreOneAndK) {
    EXPECT_DOUBLE_EQ(distinct_destinations({64, 4, 1, 1}, 1), 1.0);     // one part: always reached
    EXPECT_NEAR(distinct_destinations({64, 4, 1, 1}, 64), 4.0, 1e-12);  // a part an expert: k
    EXPECT_NEAR(distinct_destinations({64, 64, 1, 1}, 8), 8.0, 1e-12);  // k = E: everywhere
    EXPECT_LE(distinct_destinations({256, 8, 8, 4}, 8), 4.0);           // group limit t
}

TEST(DistinctDestinations, GroupLimitedMatchesSampling) {
    const RouterShape shape{256, 8, 8, 4};
    Routing routing;
    for (int parts : {2, 4, 8, 64}) {
        const std::vector<double> hits = sampled_hits(routing, shape, parts, 40000);
        const double sampled = std::accumulate(hits.begin(), hits.end(), 0.0);
        EXPECT_NEAR(distinct_destinations(shape, parts) / sampled, 1.0, 5e-3) << parts;
    }
}

struct SkewCase {
    Skew skew;
    double parameter;
    RouterShape shape;
    int parts;
};

TEST(SkewedHits, AgreeWithSamplingWithinOneAndAHalfPercent) {
    const std::vector<SkewCase> cases = {
        {Skew::zipf, 0.6, {256, 8, 1, 1}, 8},       {Skew::zipf, 1.0, {128, 4, 1, 1}, 4},
        {Skew::power_law, 1.2, {256, 8, 1, 1}, 64}, {Skew::dirichlet, 1.0, {64, 6, 1, 1}, 8},
        {Skew::zipf, 0.8, {256, 8, 8, 4}, 64},      {Skew::zipf, 0.5, {8, 2, 1, 1}, 8},
    };
    for (const SkewCase& c : cases) {
        Routing routing;
        routing.skew = c.skew;
        routing.parameter = c.parameter;
        routing.seed = 7;
        const std::vector<double> popularity = expert_popularity(routing, c.shape, {});
        const std::vector<double> expected = hit_probabilities(popularity, c.shape, c.parts);
        const std::vector<double> sampled = sampled_hits(routing, c.shape, c.parts, 100000);
        for (std::size_t p = 0; p < expected.size(); ++p) {
            EXPECT_NEAR(expected[p], sampled[p], 0.015 * expected[p] + 0.006)
                << kSkewNames[static_cast<std::size_t>(c.skew)] << " part " << p;
        }
    }
}

TEST(Inclusion, SumsToKAndAgreesWithSampling) {
    Routing routing;
    routing.skew = Skew::zipf;
    routing.parameter = 1.0;
    const RouterShape shape{64, 4, 1, 1};
    const std::vector<double> popularity = expert_popularity(routing, shape, {});
    const std::vector<double> pi = inclusion_probabilities(popularity, shape);
    EXPECT_NEAR(std::accumulate(pi.begin(), pi.end(), 0.0), 4.0, 1e-6);
    const std::vector<double> sampled = sampled_hits(routing, shape, 64, 200000);
    for (std::size_t e = 0; e < pi.size(); ++e)
        EXPECT_NEAR(pi[e], sampled[e], 0.02 * sampled[e] + 0.003) << e;
}

double sum_of(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
}

Routing given(Skew skew, std::vector<double> weights) {
    Routing routing;
    routing.skew = skew;
    routing.weights = {std::move(weights)};
    return routing;
}

// k = 1: a token takes expert e with its share w_e of the weights. [4, 1 x 7] on 8 ranks: the
// busiest has 4/11 of the rows, 8 * 4/11 = 2.909 times the mean.
TEST(Inclusion, OneChoiceTakesEachExpertWithItsWeight) {
    const RouterShape shape{8, 1};
    const Routing routing = given(Skew::histogram, {4, 1, 1, 1, 1, 1, 1, 1});
    const auto pi = inclusion_probabilities(expert_popularity(routing, shape, {}), shape);
    EXPECT_NEAR(8 * pi[0], 32.0 / 11.0, 1e-12);
    EXPECT_NEAR(pi[3], 1.0 / 11.0, 1e-12);
}

// k = 2 of weights a, b, c (sum 1): P(a) = a + b a/(1-b) + c a/(1-c).
TEST(Inclusion, TwoChoicesOfThree) {
    const double a = 0.7, b = 0.2, c = 0.1;
    const auto pi = inclusion_probabilities({a, b, c}, {3, 2});
    EXPECT_NEAR(pi[0], a + b * a / (1 - b) + c * a / (1 - c), 2e-5);
    EXPECT_NEAR(pi[2], c + a * c / (1 - a) + b * c / (1 - b), 2e-5);
}

// A trace of counts c_e: expert e takes k c_e / sum(c) of the tokens, whatever k.
TEST(Inclusion, TraceGivesEachExpertItsShareOfTheChoices) {
    const std::vector<double> counts = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
    const double total = sum_of(counts);
    const Routing routing = given(Skew::trace, counts);
    for (const int k : {1, 2, 4, 5}) {
        const RouterShape shape{12, k};
        const auto pi = inclusion_probabilities(expert_popularity(routing, shape, {}), shape);
        for (std::size_t e = 0; e < counts.size(); ++e)
            EXPECT_NEAR(pi[e], k * counts[e] / total, 2e-5) << k;
    }
    // max / mean of k = 4: 183 * 12 / 1033.
    const auto sampled = sampled_hits(routing, {12, 4}, 12, 100000);
    EXPECT_NEAR(sampled[10], 4 * 183 / total, 0.006);
    // One expert in every token, and one in none.
    const auto edge = inclusion_probabilities(
        expert_popularity(given(Skew::trace, {4, 3, 1, 0}), {4, 2}, {}), {4, 2});
    EXPECT_NEAR(edge[0], 1.0, 1e-4);
    EXPECT_NEAR(edge[1], 0.75, 1e-4);
    EXPECT_EQ(edge[3], 0.0);
}

// Nearly equal popularity is equal popularity: 8 groups on 4 nodes (two whole groups a node) and on
// 3 parts that cut groups.
TEST(GroupLimited, SkewTowardsNothingIsTheUniformFormula) {
    Routing routing;
    routing.skew = Skew::dirichlet;
    routing.parameter = 1e9;
    for (const GroupScore score : {GroupScore::random, GroupScore::max, GroupScore::top2_sum}) {
        const RouterShape shape{256, 8, 8, 4, score};
        const auto popularity = expert_popularity(routing, shape, {});
        for (const int parts : {2, 4, 8, 32, 256}) {
            EXPECT_NEAR(sum_of(hit_probabilities(popularity, shape, parts)),
                        distinct_destinations(shape, parts),
                        2e-3 * distinct_destinations(shape, parts))
                << parts;
        }
    }
    const RouterShape cut{96, 6, 8, 3};
    const auto hits = hit_probabilities({}, cut, 3), sampled = sampled_hits({}, cut, 3, 60000);
    for (std::size_t p = 0; p < 3; ++p) EXPECT_NEAR(hits[p], sampled[p], 0.008);
}

// DeepSeek's rule reaches more of the open groups than groups drawn by weight: 3.98 of 4 against
// 3.63 (8 of 256 experts, 4 of 8 groups). `max` is exact, top2_sum within 1 %.
TEST(GroupLimited, ScoresReachNearlyAllOpenGroups) {
    EXPECT_NEAR(distinct_destinations({256, 8, 8, 4, GroupScore::random}, 8), 3.629, 2e-3);
    EXPECT_NEAR(distinct_destinations({256, 8, 8, 4, GroupScore::max}, 8), 3.983, 2e-3);
    struct Case {
        RouterShape shape;
        std::vector<int> parts;
    };
    const std::vector<Case> cases = {{{256, 8, 8, 4}, {2, 4, 8, 32}},
                                     {{160, 6, 8, 3}, {4, 8, 40}},
                                     {{64, 4, 4, 2}, {2, 4, 16}},
                                     {{256, 8, 16, 4}, {8, 16, 64}},
                                     {{32, 6, 8, 2}, {4, 8, 32}}};
    for (Case c : cases) {
        for (const GroupScore score : {GroupScore::max, GroupScore::top2_sum}) {
            c.shape.group_score = score;
            for (const int parts : c.parts) {
                const double sampled = sum_of(sampled_hits({}, c.shape, parts, 40000));
                const double tolerance = score == GroupScore::max ? 0.004 : 0.012;
                EXPECT_NEAR(distinct_destinations(c.shape, parts) / sampled, 1.0, tolerance)
                    << c.shape.num_experts << " in " << parts;
            }
        }
    }
}

// Random routers and popularity: the closed form against 20,000 sampled tokens, part by part,
// within five standard errors and the stated error (5 % of an expert where scores choose groups).
TEST(Inclusion, AgreesWithSamplesOfRandomRouters) {
    std::uint64_t state = 20261129;
    const auto pick = [&](int bound) {
        return static_cast<int>(splitmix64(state) % static_cast<std::uint64_t>(bound));
    };
    const std::int64_t tokens = 20000;
    for (int i = 0; i < 60; ++i) {
        RouterShape shape{.num_experts = 8 << pick(4), .top_k = 1 + pick(6)};
        if (pick(2) == 1) {
            shape.num_groups = 4 << pick(2);
            shape.top_groups = 1 + pick(shape.num_groups);
            shape.group_score = static_cast<GroupScore>(pick(3));
            shape.top_k =
                std::min(shape.top_k, shape.num_experts / shape.num_groups * shape.top_groups);
        }
        Routing routing;
        routing.seed = static_cast<std::uint64_t>(i);
        routing.skew = static_cast<Skew>(pick(4));
        routing.parameter =
            routing.skew == Skew::dirichlet ? 0.2 + 0.4 * pick(5) : 0.3 + 0.3 * pick(4);
        const bool scored = shape.num_groups > 1 && shape.group_score != GroupScore::random;
        const auto popularity = expert_popularity(routing, shape, {});
        for (const int parts : {2, 8, shape.num_experts}) {
            const auto expected = hit_probabilities(popularity, shape, parts);
            const auto sampled = sampled_hits(routing, shape, parts, tokens);
            for (std::size_t p = 0; p < expected.size(); ++p) {
                const double error = std::sqrt(std::max(sampled[p] * (1.0 - sampled[p]), 1e-4) /
                                               static_cast<double>(tokens));
                EXPECT_NEAR(expected[p], sampled[p], 5.0 * error + (scored ? 0.08 : 1e-4))
                    << "router " << i << ", part " << p << " of " << parts << ", E "
                    << shape.num_experts << " k " << shape.top_k << " G " << shape.num_groups
                    << " t " << shape.top_groups;
            }
            EXPECT_NEAR(sum_of(expected) / sum_of(sampled), 1.0, scored ? 0.03 : 0.01) << i;
        }
    }
}

// A concentration so small that most weights are below any number: a token still takes the k
// largest, and the ten thousandth part of what lies between them decides nothing.
TEST(Inclusion, TinyConcentrationIsNotUniform) {
    Routing routing;
    routing.skew = Skew::dirichlet;
    routing.parameter = 0.01;
    const RouterShape shape{64, 4};
    const auto pi = inclusion_probabilities(expert_popularity(routing, shape, {}), shape);
    EXPECT_NEAR(sum_of(pi), 4.0, 1e-6);
    const auto sampled = sampled_hits(routing, shape, 64, 20000);
    for (std::size_t e = 0; e < pi.size(); ++e) EXPECT_NEAR(pi[e], sampled[e], 0.02);
    EXPECT_GE(std::count_if(pi.begin(), pi.end(), [](double p) { return p > 0.95; }), 2);
}

}  // namespace
}  // namespace headway
