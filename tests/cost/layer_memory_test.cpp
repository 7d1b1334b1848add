// Memory of one layer as the CUDA runtime runs it, against its formula in docs/model.md written
// out.
#include <gtest/gtest.h>

#include "models/cost/moe_layer.hpp"

namespace headway {
namespace {

Scenario one_layer(const Plan& plan, int tokens, int top_k) {
    Scenario s{.name = "layer"};
    s.model = {.hidden = 256,
               .num_layers = 1,
               .moe = {.num_experts = 16,
                       .top_k = top_k,
                       .expert_width = 128,
                       .activation = Activation::gelu},
               .dtype = Dtype::bf16};
    s.cluster = {.name = "box", .num_nodes = 1, .gpus_per_node = plan.group_size};
    s.cluster.pcie = Pcie{.bandwidth = GB / second};
    s.batch = {.sequence_length = tokens};
    s.plans = {plan};
    return s;
}

Plan ep_plan(int ranks, Dedup dedup = Dedup::none) {
    return {.name = "ep", .layer = ExpertParallel{.dedup = dedup}, .group_size = ranks};
}
Plan hp_plan(int ranks, int top_k) {
    return {.name = "hp",
            .layer = HeadParallel{.num_heads = 4,
                                  .head_width = 64,
                                  .num_experts = 16,
                                  .top_k = top_k,
                                  .expert_width = 128},
            .group_size = ranks};
}

double memory_of(const Plan& plan, int tokens, int top_k) {
    return moe_layer_memory(one_layer(plan, tokens, top_k), plan, 0).in(byte);
}

// One rank, P = T k rows: parameters E d + 2 E f d in bf16 with fp32 gradients; x, y, dy, dx; given
// choices; places, gates and indices; rows, hidden rows twice; backward's hidden and row gradients
// and the routing's.
TEST(LayerMemory, OfExpertParallelOnOneRankIsItsFormula) {
    const double T = 512, k = 2, d = 256, E = 16, f = 128, P = T * k;
    const double parameters = E * d + 2 * E * f * d;
    const double standing = (2 + 4) * parameters + 4 * 2 * T * d + 4 * P;
    const double saved = 3 * 4 * P + P * (2 * d + 2 * 2 * f) + P * 2 * d;
    const double backward = 4 * P + P * (2 * f + 2 * d) + 2 * T * E + P * 2 * d;
    EXPECT_NEAR(memory_of(ep_plan(1), 512, 2), standing + saved + backward, 1.0);
}

TEST(LayerMemory, GrowsWithTokensAndChoices) {
    for (const int ranks : {1, 4}) {
        for (const int k : {1, 2, 4}) {
            for (const auto& plan :
                 {ep_plan(ranks), ep_plan(ranks, Dedup::rank), hp_plan(ranks, k)})
                EXPECT_GT(memory_of(plan, 1024, k), memory_of(plan, 512, k)) << plan.name;
            EXPECT_GT(memory_of(ep_plan(ranks), 512, 2 * k), memory_of(ep_plan(ranks), 512, k));
            EXPECT_GT(memory_of(hp_plan(ranks, 2 * k), 512, 2 * k),
                      memory_of(hp_plan(ranks, k), 512, k));
        }
    }
}

// k copies of a token against at most one a rank: with k = 8 on 4 ranks, fewer are held.
TEST(LayerMemory, RankDedupHoldsFewerCopies) {
    EXPECT_LT(memory_of(ep_plan(4, Dedup::rank), 4096, 8), memory_of(ep_plan(4), 4096, 8));
}

}  // namespace
}  // namespace headway
