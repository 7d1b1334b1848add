// What recompute repeats in backward: which phases, where, and how many FLOPs.
#include "models/workload/recompute.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cost/toy.hpp"

namespace headway {
namespace {

Scenario scenario() {
    Scenario s = toy::scenario();
    s.model.num_dense_layers = 1;
    s.model.dense_width = 4096;
    s.model.attention.latent = LatentAttention{512, 256, 64, 32, 64};
    s.model.moe.num_shared_experts = 1;
    s.model.moe.shared_expert_width = 256;
    return s;
}

LayerWork layer_of(const Scenario& s, Plan plan, RecomputeModules selected, bool moe = true) {
    plan.recompute.granularity = RecomputeGranularity::selective;
    plan.recompute.modules = selected;
    const Workload workload = build_workload(s, plan);
    return workload.layers[moe ? 1 : 0];
}

// "norm dispatch": the repeated phases of backward, in order.
std::string repeated(const LayerWork& layer) {
    std::string text;
    for (const PhaseWork& p : layer.backward)
        if (p.again) text += (text.empty() ? "" : " ") + std::string(name(p.phase));
    return text;
}

Flops flops(const std::vector<PhaseWork>& phases, bool again) {
    Flops sum;
    for (const PhaseWork& p : phases) {
        const auto* compute = std::get_if<ComputeWork>(&p.work);
        if (compute == nullptr || p.again != again) continue;
        for (int i = 0; i < compute->num_kernels; ++i)
            sum += compute->kernels[static_cast<std::size_t>(i)].flops;
    }
    return sum;
}

using enum RecomputeModule;

TEST(Recompute, RepeatsThePhasesOfEachModule) {
    const Scenario s = scenario();
    const Plan plan = toy::ep(Dedup::rank, 8);
    const auto of = [&](auto... m) { return repeated(layer_of(s, plan, modules(m...))); };
    EXPECT_EQ(of(core_attn), "attention_core");
    EXPECT_EQ(of(mla_up_proj), "attention_qkv");
    EXPECT_EQ(of(layernorm), "norm norm");
    EXPECT_EQ(of(moe_act), "expert shared_expert");
    EXPECT_EQ(of(shared_experts), "shared_expert");
    EXPECT_EQ(of(experts), "regroup expert");
    EXPECT_EQ(of(mlp), "");
    // Megatron's: dispatch and combine too; the counts are known.
    EXPECT_EQ(of(moe),
              "shared_expert route permute dispatch regroup expert ungroup combine unpermute");
    EXPECT_EQ(of(moe, moe_act, shared_experts, experts), of(moe));
    EXPECT_EQ(of(moe_act, experts), "regroup expert shared_expert");
    EXPECT_EQ(of(core_attn, mla_up_proj), "attention_qkv attention_core");
    EXPECT_EQ(repeated(layer_of(s, plan, modules(mlp), false)), "dense_mlp");
    EXPECT_EQ(repeated(layer_of(s, plan, modules(moe, experts), false)), "");
}

// The chunks of an exchange that is repeated, and of one that stands behind what is inserted, keep
// their phases.
TEST(Recompute, LeavesPipelinesOfChunksWhole) {
    const Scenario s = scenario();
    Plan plan = toy::ep(Dedup::rank, 8);
    plan.overlap_chunks = 2;
    for (const RecomputeModules set :
         {modules(layernorm), modules(moe_act), modules(moe), modules(moe, layernorm, core_attn)}) {
        const LayerWork layer = layer_of(s, plan, set);
        ASSERT_EQ(layer.backward_pipelines.size(), (set & modules(moe)) != 0u ? 2u : 1u);
        for (const PhaseRange& range : layer.backward_pipelines) {
            const PhaseWork& first = layer.backward[static_cast<std::size_t>(range.begin)];
            const PhaseWork& last = layer.backward[static_cast<std::size_t>(range.end) - 1];
            EXPECT_EQ(first.phase, first.again ? Phase::dispatch : Phase::combine);
            EXPECT_EQ(last.phase, first.again ? Phase::combine : Phase::dispatch);
            EXPECT_EQ(first.again, last.again);
        }
    }
}

// FLOPs: up projections 2 T (q_r h (n + r) + kv_r h (n + v)); a checkpointed module those of its
// forward; norms none.
TEST(Recompute, CountsItsFlops) {
    const Scenario s = scenario();
    const Plan plan = toy::ep(Dedup::none, 8);
    const auto extra = [&](auto... m) {
        return flops(layer_of(s, plan, modules(m...)).backward, true).in(flop);
    };
    const double tokens = 4096, h = 8;
    EXPECT_DOUBLE_EQ(extra(mla_up_proj), 2 * tokens * h * (512.0 * 96 + 256.0 * 128));
    EXPECT_DOUBLE_EQ(extra(experts), 2 * 2 * tokens * 4 * 1024 * 512);
    EXPECT_DOUBLE_EQ(extra(shared_experts), 2 * 2 * tokens * 1024 * 256);
    EXPECT_DOUBLE_EQ(extra(layernorm), 0.0);
    EXPECT_DOUBLE_EQ(extra(core_attn), tokens * 2 * 2048 * h * (96 + 64));
    const LayerWork none = layer_of(s, plan, modules(mlp));
    const LayerWork moe_again = layer_of(s, plan, modules(moe));
    EXPECT_DOUBLE_EQ(flops(none.backward, false).in(flop),
                     flops(moe_again.backward, false).in(flop))
        << "backward itself is the same";
}

// HP's fused experts compute their hidden rows again in any case: of the activation, the shared
// expert's alone is repeated. `moe` repeats both exchanges.
TEST(Recompute, OfHeads) {
    const Scenario s = scenario();
    const Plan plan = toy::hp(8, s.model, 8);
    EXPECT_EQ(repeated(layer_of(s, plan, modules(moe_act))), "shared_expert");
    EXPECT_EQ(repeated(layer_of(s, plan, modules(experts))), "");
    EXPECT_EQ(repeated(layer_of(s, plan, modules(moe))),
              "shared_expert head_project head_scatter route permute expert unpermute head_gather "
              "head_merge");
}

// Block of n: the first n layers of every chunk; uniform: all.
TEST(Recompute, BlockIsTheFirstLayersOfAChunk) {
    Scenario s = toy::scenario();
    s.model.num_layers = 8;
    Plan plan = toy::ep(Dedup::none, 8);
    plan.parallel.pipeline_model_parallel_size = 2;
    plan.recompute = RecomputeLevel::full;
    for (int layer = 0; layer < 8; ++layer) EXPECT_TRUE(recomputes_layer(s.model, plan, layer));
    plan.recompute.method = RecomputeMethod::block;
    plan.recompute.num_layers = 3;
    for (int layer = 0; layer < 8; ++layer)
        EXPECT_EQ(recomputes_layer(s.model, plan, layer), layer % 4 < 3) << layer;
    plan.parallel = {};
    const Workload workload = build_workload(s, plan);
    ASSERT_EQ(workload.layers.size(), 2u);
    EXPECT_EQ(workload.layers[0].count, 3);
    EXPECT_FALSE(repeated(workload.layers[0]).empty());
    EXPECT_EQ(workload.layers[1].count, 5);
    EXPECT_TRUE(repeated(workload.layers[1]).empty());
}

TEST(Recompute, TheOlderKeyStandsForModules) {
    EXPECT_EQ(Recompute(RecomputeLevel::activation).selected(), modules(moe_act));
    EXPECT_EQ(Recompute(RecomputeLevel::moe).selected(), modules(moe_act, experts));
    EXPECT_TRUE(Recompute(RecomputeLevel::full).is_full());
    for (const RecomputeLevel level : kRecomputeLevels)
        EXPECT_EQ(recompute_text(level), kRecomputeNames[static_cast<std::size_t>(level)]);
    Recompute some;
    some.granularity = RecomputeGranularity::selective;
    some.modules = modules(core_attn, layernorm);
    EXPECT_EQ(recompute_text(some), "core_attn+layernorm");
}

}  // namespace
}  // namespace headway
