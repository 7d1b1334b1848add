// What one layer keeps for backward, against closed forms and against the table that the
// Megatron-Core MoE report computes for DeepSeek-V3 (arXiv 2603.07685, table 3).
#include "models/workload/saved_tensors.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr double kMiB = 1048576.0;

// DeepSeek-V3 with T = 4096 tokens.
Scenario deepseek() {
    Scenario s = toy::scenario(32, 8);
    toy::widen_to_deepseek_v3(s.model);
    s.plans = {toy::ep(Dedup::none, 64)};
    return s;
}

double mebibytes(const LayerMemory& m) {
    return (m.kept[0] + m.kept[1] + m.kept[2]) / kMiB;
}

LayerMemory layer_of(const Scenario& s, const Plan& plan) {
    const GroupLoad load = expected_load(s, plan, 0);
    return layer_memory(saved_tensors(s, plan, &load), plan.recompute.selected());
}

double kept(const Scenario& s, Plan plan, RecomputeModules selected = 0u) {
    if (selected != 0u) {
        plan.recompute.granularity = RecomputeGranularity::selective;
        plan.recompute.modules = selected;
    }
    return mebibytes(layer_of(s, plan));
}

TEST(SavedTensors, OneLayerOfDeepSeekV3IsThatOfTheReport) {
    const Scenario s = deepseek();
    Plan plan = s.plans[0];
    EXPECT_NEAR(kept(s, plan), 1788.0, 0.5) << "gates inside the activation";
    plan.implementation = Implementation::unfused;
    EXPECT_NEAR(kept(s, plan), 2236.0, 0.5);
    // Attention, norms and the shared expert (2 + 1 matrices of 2048 out of 48 MiB), and the rest.
    const LayerMemory layer = layer_of(s, plan);
    EXPECT_NEAR(layer.kept[0] / kMiB + 48.0, 946.0, 0.5);
    EXPECT_NEAR(layer.kept[1] / kMiB - 48.0, 1290.0, 0.5);
    EXPECT_NEAR(layer.input / kMiB, 4096.0 * 7168 * 2 / kMiB, 1e-9);
}

// By module, in MiB. The report's moe_act counts the shared expert's hidden rows (16) too.
TEST(SavedTensors, ModulesSaveWhatTheReportSays) {
    const Scenario s = deepseek();
    Plan plan = s.plans[0];
    plan.implementation = Implementation::unfused;
    using enum RecomputeModule;
    const auto saves = [&](auto... m) { return kept(s, plan) - kept(s, plan, modules(m...)); };
    EXPECT_NEAR(saves(mla_up_proj), 512.0, 0.5);
    EXPECT_NEAR(saves(moe_act), 144.0, 0.5);
    EXPECT_NEAR(saves(layernorm), 112.0, 0.5);
    EXPECT_NEAR(saves(shared_experts), 48.0, 0.5);
    EXPECT_NEAR(saves(core_attn), 2.0, 0.01) << "flash attention: the log-sum-exp alone";
    EXPECT_NEAR(saves(experts), 128.0 + 256.0, 0.5);
    EXPECT_NEAR(saves(moe), 1290.0 + 48.0, 0.5);
    EXPECT_NEAR(saves(mlp), 0.0, 1e-9);
    EXPECT_NEAR(saves(moe, moe_act, shared_experts), 1290.0 + 48.0, 0.5) << "counted once";
    EXPECT_NEAR(saves(mla_up_proj, layernorm), 512.0 + 112.0, 0.5);
    plan.implementation = Implementation::fused;
    EXPECT_NEAR(2236.0 - kept(s, plan), 448.0, 0.5) << "returned copies";
    plan.implementation = Implementation::headway;
    EXPECT_NEAR(2236.0 - kept(s, plan), 0.0, 0.5) << "headway's own step keeps them";
}

// HP keeps 2 T H d_h b + 20 T H k of the routed part: H 8, k 8, H d_h = d: 117 MiB.
TEST(SavedTensors, HeadParallelKeepsSubTokensAndNoHiddenRows) {
    const Scenario s = deepseek();
    const Plan plan = toy::hp(8, s.model, 8);
    EXPECT_NEAR(layer_of(s, plan).kept[1] / kMiB, 48.0 + 117.0, 0.5);
    EXPECT_NEAR(kept(s, plan), 1063.0, 0.5);
    EXPECT_NEAR(kept(s, plan) - kept(s, plan, modules(RecomputeModule::moe_act)), 16.0, 0.1);
}

// Grouped queries, T tokens, h and g heads of w: T b (4 d + h w + 2 g w + h w) + 4 T h.
TEST(SavedTensors, GroupedQueriesKeepFewerKeys) {
    Scenario s = toy::scenario();
    s.model.attention = {.num_heads = 8, .num_kv_heads = 2, .head_width = 128};
    const double tokens = 4096, b = 2, d = 1024, h = 8, g = 2, w = 128;
    EXPECT_NEAR(layer_of(s, s.plans[0]).kept[0],
                tokens * b * (4 * d + 2 * h * w + 2 * g * w) + 4 * tokens * h, 1.0);
}

// LatentMoE of width l: expert inputs of l, and the rows before the projection back, T l b.
TEST(SavedTensors, LatentExpertsKeepNarrowRows) {
    const Scenario s = toy::scenario();
    Plan wide = s.plans[0], narrow = wide;
    std::get<ExpertParallel>(narrow.layer).latent_width = 256;
    const double tokens = 4096, k = 4, d = 1024, l = 256, b = 2;
    EXPECT_NEAR(layer_of(s, wide).kept[1] - layer_of(s, narrow).kept[1],
                tokens * b * (k * (d - l) - l), 1.0);
}

// Under t tensor-parallel ranks with sequence parallelism everything is a t-th: heads and widths of
// all tokens, or all widths of a t-th of the tokens. Latents are of the latter kind.
TEST(SavedTensors, TensorAndContextParallelRanksKeepTheirShare) {
    Scenario s = deepseek();
    Plan plan = s.plans[0];
    const double attention = layer_of(s, plan).kept[0];
    plan.parallel.tensor_model_parallel_size = 4;
    plan.parallel.sequence_parallel = true;
    EXPECT_NEAR(layer_of(s, plan).kept[0], attention / 4, 1.0);
    // Without it, what stands outside of the heads is there on every rank: 4 rows of d and twice
    // both latents.
    plan.parallel.sequence_parallel = false;
    const double outside = 4096.0 * 2 * (4 * 7168 + 2 * (1536 + 512));
    EXPECT_NEAR(layer_of(s, plan).kept[0], outside + (attention - outside) / 4, 1.0);
    plan.parallel = {};
    plan.parallel.context_parallel_size = 2;
    EXPECT_NEAR(layer_of(s, plan).kept[0], attention / 2, 1.0);
}

TEST(SavedTensors, DenseLayersKeepBothSidesOfTheirActivation) {
    Scenario s = toy::scenario();
    s.model.dense_width = 4096;
    s.model.dense_activation = Activation::swiglu;
    const Plan& plan = s.plans[0];
    const auto dense = [&](RecomputeModules selected) {
        return layer_memory(saved_tensors(s, plan, nullptr), selected);
    };
    EXPECT_NEAR(dense(0u).kept[2], 4096.0 * 3 * 4096 * 2, 1.0);
    EXPECT_NEAR(dense(modules(RecomputeModule::mlp)).kept[2], 0.0, 1e-9);
    EXPECT_NEAR(dense(modules(RecomputeModule::mlp)).again, 4096.0 * 3 * 4096 * 2, 1.0);
}

}  // namespace
}  // namespace headway
