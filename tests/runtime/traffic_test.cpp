// Byte for byte: what the layers really exchanged equals the Workload's P x P matrices.
#include <gtest/gtest.h>

#include "models/workload/traffic.hpp"
#include "tests/runtime/forced_routing.hpp"

namespace headway::runtime {
namespace {

CallSite forward(Phase phase) {
    return {phase, Pass::forward};
}
CallSite backward(Phase phase) {
    return {phase, Pass::backward};
}

// Shapes with uneven token counts, idle ranks, k = 1 and k = E.
std::vector<LayerCase> shapes() {
    return {{.num_experts = 8, .top_k = 2, .tokens = {17, 5}},
            {.num_experts = 8, .top_k = 1, .tokens = {9, 0, 30, 2}},
            {.num_experts = 8, .top_k = 8, .tokens = {6, 11, 0, 1}},
            {.num_experts = 4, .top_k = 3, .tokens = {13, 1, 2, 8}},
            {.num_experts = 24, .top_k = 4, .tokens = {7, 0, 3, 12, 1, 5}},
            {.num_experts = 4, .top_k = 2, .tokens = {0, 0}}};
}

TEST(Traffic, EpDispatchAndCombineEqualTheWorkloadsMatrix) {
    const std::int64_t row_bytes = 6 * sizeof(float);  // d elements of fp32
    for (Dedup dedup : {Dedup::none, Dedup::rank}) {
        for (LayerCase c : shapes()) {
            c.dedup = dedup;
            for (const Routing& routing : routings(c.tokens.size())) {
                const auto assignments = draw(routing, c, 0);
                const auto run = run_ep<float>(c, experts_of(assignments));
                const TrafficMatrix expected =
                    scaled(dispatch_copies(assignments, c.num_experts, dedup), row_bytes);
                EXPECT_EQ(run.traffic.at(forward(Phase::dispatch)), expected);
                EXPECT_EQ(run.traffic.at(forward(Phase::combine)), expected.transposed());
                EXPECT_EQ(run.traffic.at(backward(Phase::combine)), expected);
                EXPECT_EQ(run.traffic.at(backward(Phase::dispatch)), expected.transposed());
            }
        }
    }
}

// LatentMoE: copies of l elements.
TEST(Traffic, LatentWidthScalesTheMatrix) {
    LayerCase c{.num_experts = 8, .tokens = {6, 4}, .latent_width = 3};
    const auto assignments = draw({.seed = 3}, c, 0);
    const auto run = run_ep<double>(c, experts_of(assignments));
    EXPECT_EQ(run.traffic.at(forward(Phase::dispatch)),
              scaled(dispatch_copies(assignments, 8, Dedup::none), 3 * 8));
}

// Count exchange of the naive dispatch: E / N counts of 8 bytes to every rank.
TEST(Traffic, CountsAreExchangedByEveryPair) {
    LayerCase c{.num_experts = 8, .tokens = {6, 4, 0, 1}};
    const auto run = run_ep<float>(c);
    for (std::int64_t bytes : run.traffic.at(forward(Phase::count_exchange)).bytes)
        EXPECT_EQ(bytes, 8 / 4 * 8);
}

// N <= H: T_i H / N sub-tokens of d_h elements from rank i to every rank, whatever the routing.
TEST(Traffic, HpScatterAndGatherEqualTheWorkloadsMatrixForEveryRouting) {
    for (LayerCase c : shapes()) {
        const int n = static_cast<int>(c.tokens.size());
        for (int heads : {n, 2 * n}) {
            c.num_heads = heads;
            c.head_width = 3;
            for (const Routing& routing : routings(1)) {
                std::vector<std::vector<std::vector<std::int32_t>>> forced;
                for (int h = 0; h < heads; ++h) forced.push_back(experts_of(draw(routing, c, h)));
                const auto run = run_hp<float>(c, forced);
                const TrafficMatrix expected = scaled(head_scatter_copies(c.tokens, heads), 3 * 4);
                EXPECT_EQ(run.traffic.at(forward(Phase::head_scatter)), expected);
                EXPECT_EQ(run.traffic.at(forward(Phase::head_gather)), expected.transposed());
                EXPECT_EQ(run.traffic.at(backward(Phase::head_gather)), expected);
                EXPECT_EQ(run.traffic.at(backward(Phase::head_scatter)), expected.transposed());
                EXPECT_FALSE(run.traffic.contains(forward(Phase::dispatch)));
            }
        }
    }
}

// N > H: the scatter fills one rank of each head's group; inside that group runs an EP dispatch of
// the sub-tokens that each of its c = N / H members holds.
TEST(Traffic, HpTimesEpAlsoDispatchesInsideEachHead) {
    for (Dedup dedup : {Dedup::none, Dedup::rank}) {
        LayerCase c{.num_experts = 8,
                    .top_k = 3,
                    .tokens = {5, 2, 0, 9, 4, 1},
                    .dedup = dedup,
                    .num_heads = 3,
                    .head_width = 3};
        const int n = 6, sharers = 2;
        std::vector<std::vector<std::vector<std::int32_t>>> forced;
        TrafficMatrix expected(n);
        for (int h = 0; h < c.num_heads; ++h) {
            const auto by_source = draw({.skew = Skew::zipf, .parameter = 1.0, .seed = 5}, c, h);
            forced.push_back(experts_of(by_source));
            std::vector<Assignment> held(sharers, Assignment{0, c.top_k, {}});
            for (int source = 0; source < n; ++source) {
                const Assignment& a = by_source[static_cast<std::size_t>(source)];
                Assignment& member = held[static_cast<std::size_t>(source % sharers)];
                member.num_tokens += a.num_tokens;
                member.expert.insert(member.expert.end(), a.expert.begin(), a.expert.end());
            }
            const TrafficMatrix inner =
                scaled(dispatch_copies(held, c.num_experts, dedup), 3 * sizeof(float));
            for (int i = 0; i < sharers; ++i) {
                for (int j = 0; j < sharers; ++j)
                    expected.at(h * sharers + i, h * sharers + j) = inner.at(i, j);
            }
        }
        const auto run = run_hp<float>(c, forced);
        EXPECT_EQ(run.traffic.at(forward(Phase::head_scatter)),
                  scaled(head_scatter_copies(c.tokens, c.num_heads), 3 * sizeof(float)));
        EXPECT_EQ(run.traffic.at(forward(Phase::dispatch)), expected);
        EXPECT_EQ(run.traffic.at(backward(Phase::dispatch)), expected.transposed());
    }
}

}  // namespace
}  // namespace headway::runtime
