// Expected traffic against sampling: D_g in closed form, and the skewed approximations within
// stated errors.
#include "models/workload/inclusion.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

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
        const std::vector<double> popularity = expert_popularity(routing, c.shape.num_experts, {});
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
    const std::vector<double> popularity = expert_popularity(routing, 64, {});
    const std::vector<double> pi = inclusion_probabilities(popularity, shape);
    EXPECT_NEAR(std::accumulate(pi.begin(), pi.end(), 0.0), 4.0, 1e-6);
    const std::vector<double> sampled = sampled_hits(routing, shape, 64, 200000);
    for (std::size_t e = 0; e < pi.size(); ++e)
        EXPECT_NEAR(pi[e], sampled[e], 0.02 * sampled[e] + 0.003) << e;
}

}  // namespace
}  // namespace headway
