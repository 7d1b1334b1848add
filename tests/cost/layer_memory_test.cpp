// Memory of one layer as the CUDA runtime runs it, against its formula in docs/reference/model.md
// written out.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/cost/moe_layer.hpp"
#include "models/workload/inclusion.hpp"

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

// Node-dedup on 2 nodes of L = 2 ranks: with q_g the probability that one of k choices is in one of
// g parts, A = T q_2 copies come from the other node, B = L T q_4 from the own one, C = L T q_4 go
// on to this rank; a rank sends A + B and sends C on. Copies that arrive and records are A + B and
// C; the rows are those of all ranks' choices here.
TEST(LayerMemory, OfNodeDedupIsItsFormula) {
    const Plan plan = ep_plan(4, Dedup::node);
    for (const int k : {2, 5}) {
        Scenario s = one_layer(plan, 512, k);
        s.cluster.num_nodes = 2;
        s.cluster.gpus_per_node = 2;
        s.routing.noise = false;
        const auto hit = [&](int parts) { return uniform_hit_probability({16, k, 1, 1}, parts); };
        const double T = 512, d = 256, E = 16, f = 128, P = T * k;
        const double A = T * hit(2), B = 2 * T * hit(4), C = B, row = 2 * d;
        const double parameters = E * d + 2 * E / 4 * f * d;
        const double standing = (2 + 4) * parameters + 4 * T * row + 4 * P;
        const double saved = 4 * 4 * P + T * std::min(k, 3) * row + 3 * 4 * k * (A + B) +
                             3 * 4 * k * (A + B + C) + P * (2 * row + 2 * 2 * f);
        const double backward = 4 * P + 4 * k * (A + B + C) + (A + B) * row + (A + B + C) * row +
                                P * (2 * row + 2 * f) + C * row;
        EXPECT_NEAR(moe_layer_memory(s, plan, 0).in(byte), standing + saved + backward, 2.0);
    }
}

// On one node it is rank-dedup.
TEST(LayerMemory, OfNodeDedupOnOneNodeIsThatOfRankDedup) {
    EXPECT_EQ(memory_of(ep_plan(4, Dedup::node), 512, 2),
              memory_of(ep_plan(4, Dedup::rank), 512, 2));
}

// HP x EP, H = 4 heads of w on N = 8 ranks, s = 2 sharers: the layer of EP of S = T H sub-tokens of
// width w on s ranks (whose x, y, dy, dx are of S w), one block S w more, both projections d H w
// with their gradients, and x, y, dy, dx of T d.
TEST(LayerMemory, OfSharedHeadsIsExpertParallelInsideThem) {
    const double T = 512, d = 256, H = 4, w = 64;
    for (const Dedup dedup : {Dedup::none, Dedup::rank}) {
        Plan shared = hp_plan(8, 2);
        std::get<HeadParallel>(shared.layer).dedup = dedup;
        Scenario head = one_layer(ep_plan(2, dedup), static_cast<int>(T * H), 2);
        head.model.hidden = static_cast<int>(w);
        const double inside = moe_layer_memory(head, head.plans.front(), 0).in(byte);
        const double expected = inside + 2 * T * H * w + (2 + 4) * 2 * d * H * w + 4 * 2 * T * d;
        EXPECT_NEAR(memory_of(shared, 512, 2), expected, 1.0);
    }
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
