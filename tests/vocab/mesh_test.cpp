// The rank tables of Megatron-LM's order tp-cp-ep-dp-pp (core/parallel_state.py): every group is
// (size, stride), and all of its kind together hold every rank once.
#include "models/vocab/mesh.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "models/vocab/scenario.hpp"

namespace headway {
namespace {

Plan plan_of(int t, int c, int p, int n, int e) {
    Plan plan{.name = "p", .layer = ExpertParallel{}, .group_size = n};
    plan.parallel.tensor_model_parallel_size = t;
    plan.parallel.context_parallel_size = c;
    plan.parallel.pipeline_model_parallel_size = p;
    plan.parallel.expert_tensor_parallel_size = e;
    return plan;
}

std::vector<int> ranks(const RankGroup& group) {
    std::vector<int> result;
    for (int i = 0; i < group.size; ++i) result.push_back(group.rank(i));
    return result;
}

// W 64, t 2, c 2, p 2, N 8, e 1: DP = 8, EDP = 4.
TEST(Mesh, RankTableOfTheFoldedExample) {
    const Mesh mesh = mesh_of(64, plan_of(2, 2, 2, 8, 1));
    EXPECT_EQ(mesh.dp, 8);
    EXPECT_EQ(mesh.edp, 4);
    EXPECT_EQ(ranks(mesh.tp_group()), (std::vector{0, 1}));
    EXPECT_EQ(ranks(mesh.cp_group()), (std::vector{0, 2}));
    EXPECT_EQ(mesh.dp_cp_group(), (RankGroup{0, 16, 2}));
    EXPECT_EQ(ranks(mesh.ep_group()), (std::vector{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(ranks(mesh.edp_group()), (std::vector{0, 8, 16, 24}));
    EXPECT_EQ(ranks(mesh.pp_group()), (std::vector{0, 32}));
    EXPECT_EQ(ranks(mesh.embedding_group(1)), (std::vector{0, 32}));
}

// TP4 CP2 PP4 on 256 ranks: experts may spread over t c DP = 64 ranks of a stage.
TEST(Mesh, ExpertGroupsFoldOverTensorContextAndData) {
    const Mesh mesh = mesh_of(256, plan_of(4, 2, 4, 64, 1));
    EXPECT_EQ(mesh.dp, 8);
    EXPECT_EQ(mesh.edp, 1);
    EXPECT_EQ(mesh.ep_group(), (RankGroup{0, 64, 1}));
    EXPECT_EQ(mesh.embedding_group(3), (RankGroup{0, 2, 192}));
}

TEST(Mesh, ExpertTensorParallelRanksLieInsideTheExpertGroup) {
    const Mesh mesh = mesh_of(64, plan_of(2, 1, 1, 8, 2));
    EXPECT_EQ(mesh.etp_group(), (RankGroup{0, 2, 1}));
    EXPECT_EQ(mesh.ep_group(), (RankGroup{0, 8, 2}));
    EXPECT_EQ(mesh.edp_group(), (RankGroup{0, 4, 16}));
}

// W 8, t 2, e 2, N 2: the all-to-all is among every second rank, experts have EDP = 2 replicas.
TEST(Mesh, RankTableOfExpertTensorParallelism) {
    const Mesh mesh = mesh_of(8, plan_of(2, 1, 1, 2, 2));
    EXPECT_EQ(ranks(mesh.tp_group()), (std::vector{0, 1}));
    EXPECT_EQ(ranks(mesh.dp_cp_group()), (std::vector{0, 2, 4, 6}));
    EXPECT_EQ(ranks(mesh.etp_group()), (std::vector{0, 1}));
    EXPECT_EQ(ranks(mesh.ep_group()), (std::vector{0, 2}));
    EXPECT_EQ(ranks(mesh.edp_group()), (std::vector{0, 4}));
}

TEST(Mesh, WithoutParallelKeysEveryRankHasItsOwnTokens) {
    const Mesh mesh = mesh_of(32, plan_of(1, 1, 1, 8, 1));
    EXPECT_EQ(mesh.dp_cp_group(), (RankGroup{0, 32, 1}));
    EXPECT_EQ(mesh.ep_group(), (RankGroup{0, 8, 1}));
    EXPECT_EQ(mesh.edp_group(), (RankGroup{0, 4, 8}));
    EXPECT_EQ(mesh.embedding_group(0).size, 1);
}

// MBS S tokens of a micro-batch: c context-parallel ranks have a c-th each, and under sequence
// parallelism a rank of t has a t-th of that outside of attention.
TEST(Mesh, TokensOfARank) {
    const Batch batch{.sequence_length = 4096, .sequences_per_rank = 3};
    Parallel parallel{.tensor_model_parallel_size = 4, .context_parallel_size = 2};
    EXPECT_EQ(rank_tokens(batch, parallel).group, 3 * 4096 / 2);
    EXPECT_EQ(rank_tokens(batch, parallel).own, 3 * 4096 / 2);
    parallel.sequence_parallel = true;
    EXPECT_EQ(rank_tokens(batch, parallel).group, 3 * 4096 / 2);
    EXPECT_EQ(rank_tokens(batch, parallel).own, 3 * 4096 / 2 / 4);
    EXPECT_EQ(rank_tokens(batch, Parallel{}).own, batch.tokens_per_rank());
}

}  // namespace
}  // namespace headway
