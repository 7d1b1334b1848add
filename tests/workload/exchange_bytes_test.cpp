// The bytes of exchanges, which need no profile: equal splits, routed ones without noise, and the
// way back of both stages of node-dedup.
#include "models/workload/exchange_bytes.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "models/vocab/error.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

// T = 4096, k = 4, d = 1024, bf16, N = 8: T k / N copies of d elements to each rank.
TEST(ExchangeBytes, NaiveDispatchSendsEveryRankItsShareOfTheCopies) {
    const Scenario s = toy::scenario();
    const auto exchange = layer_exchange(s, s.plans[0], 0, Phase::dispatch);
    ASSERT_TRUE(exchange);
    ASSERT_EQ(exchange->stages.size(), 1u);
    EXPECT_EQ(exchange->stages[0].latency, Seconds{});
    EXPECT_EQ(exchange->stages[0].efficiency, full_efficiency());
    for (const std::int64_t bytes : group_matrix(*exchange, 0, 0).bytes)
        EXPECT_EQ(bytes, std::int64_t{4096} * 4 / 8 * 1024 * 2);
}

// H = 8 heads of d / H on N = 4 ranks: T H / N sub-tokens of d / H elements to each; two groups,
// nothing between them.
TEST(ExchangeBytes, HeadsAreSplitEvenlyInsideTheirGroup) {
    const Scenario s = toy::scenario();
    const Plan plan = toy::hp(8, s.model, 4);
    const auto exchange = layer_exchange(s, plan, 0, Phase::head_scatter);
    ASSERT_TRUE(exchange);
    const TrafficMatrix world = world_matrix(*exchange, 0, 8);
    for (int i = 0; i < 8; ++i) {
        for (int j = 0; j < 8; ++j)
            EXPECT_EQ(world.at(i, j), i / 4 == j / 4 ? std::int64_t{4096} * 2 * 128 * 2 : 0);
    }
}

// Two nodes of 4, E = 64: a token has one of its 4 experts on the other node unless all are among
// the 32 of its own: 1 - C(32, 4) / C(64, 4). It travels to the rank of the same number there.
TEST(ExchangeBytes, CombineTakesTheStagesOfNodeDedupBack) {
    const Scenario s = toy::scenario(2, 4);
    const Plan plan = toy::ep(Dedup::node, 8);
    const auto there = layer_exchange(s, plan, 0, Phase::dispatch),
               back = layer_exchange(s, plan, 0, Phase::combine);
    ASSERT_TRUE(there && back);
    ASSERT_EQ(there->stages.size(), 2u);
    const double crossing = 1.0 - 32.0 * 31 * 30 * 29 / (64.0 * 63 * 62 * 61);
    const TrafficMatrix over_nic = group_matrix(*there, 0, 0);
    EXPECT_EQ(over_nic.at(1, 5), std::llround(4096 * crossing) * 2048);
    EXPECT_EQ(over_nic.at(1, 4), 0);
    EXPECT_EQ(group_matrix(*back, 1, 0), over_nic.transposed());
    EXPECT_EQ(group_matrix(*back, 0, 0), group_matrix(*there, 1, 0).transposed());
}

TEST(ExchangeBytes, OnlyMoeLayersHaveExchangesAndStagesOfAPipelineAreRefused) {
    Scenario s = toy::scenario();
    s.model.num_dense_layers = 1;
    EXPECT_FALSE(layer_exchange(s, s.plans[0], 0, Phase::dispatch));
    EXPECT_TRUE(layer_exchange(s, s.plans[0], 1, Phase::dispatch));
    EXPECT_FALSE(layer_exchange(s, s.plans[0], 1, Phase::head_scatter));
    EXPECT_FALSE(layer_exchange(s, s.plans[0], 2, Phase::dispatch));
    s.plans[0].parallel.pipeline_model_parallel_size = 2;
    EXPECT_THROW(layer_exchange(s, s.plans[0], 1, Phase::dispatch), InputError);
}

}  // namespace
}  // namespace headway
