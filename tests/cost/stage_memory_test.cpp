// Memory of the stages of a pipeline: what is in flight follows from the order, states from the
// mesh, and the stage that needs the most is the plan's.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "models/cost/memory.hpp"
#include "models/cost/predict.hpp"
#include "models/workload/parameters.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr double kGiB = 1073741824.0;

PlanMemory stage_memory_of(const Scenario& s, const Plan& plan) {
    return predict_memory(s, plan, plan_loads(s, plan, {}));
}

double item(const std::vector<MemoryItem>& items, const std::string& begins) {
    double sum = 0.0;
    for (const MemoryItem& i : items) sum += i.name.starts_with(begins) ? i.bytes.in(byte) : 0.0;
    return sum;
}

double activations(const PlanMemory& memory, int stage) {
    return item(memory.stages[static_cast<std::size_t>(stage)].items, "activations");
}

// L layers on p ranks of the pipeline with v chunks each, m micro-batches, 8 ranks a stage.
struct Pipelined {
    Scenario scenario;
    Plan plan;
};
Pipelined pipelined(int layers, int p, int v, int m) {
    Scenario s = toy::scenario(p, 8);
    s.model.num_layers = layers;
    s.batch.num_micro_batches = m;
    Plan plan = toy::ep(Dedup::none, 8);
    plan.parallel.pipeline_model_parallel_size = p;
    plan.parallel.virtual_pipeline_model_parallel_size = v;
    return {s, plan};
}

// One micro-batch through one layer.
double of_a_layer() {
    Scenario s = toy::scenario();
    s.model.num_layers = 1;
    return activations(stage_memory_of(s, s.plans[0]), 0);
}

// Table 3 of arXiv 2603.07685, DeepSeek-V3 on 256 GPUs, PP4 VPP4 EP64, BF16, 16 MoE layers a stage:
// parameters and gradients 36.4 GiB, optimizer 32.1 GiB, activations 131.0 GiB of 60 layers, which
// 1F1B keeps in flight on rank 2 (15 chunks of 4 layers); its rank 0 keeps 19 chunks. The router
// (1.8 M of a layer) is not in the report's count.
TEST(StageMemory, DeepSeekV3IsTable3) {
    Scenario s = toy::scenario(32, 8);
    toy::widen_to_deepseek_v3(s.model);
    s.model.num_layers = 64;
    s.batch.num_micro_batches = 32;
    Plan plan = toy::ep(Dedup::none, 64);
    plan.implementation = Implementation::unfused;
    plan.parallel.pipeline_model_parallel_size = 4;
    plan.parallel.virtual_pipeline_model_parallel_size = 4;
    plan.parallel.data_parallel_sharding_strategy = DataParallelSharding::optim;
    const PlanMemory memory = stage_memory_of(s, plan);
    ASSERT_EQ(memory.stages.size(), 4u);
    const auto& items = memory.stages[2].items;
    const double router = 16 * 256.0 * 7168;
    EXPECT_NEAR((item(items, "parameters") + item(items, "gradients") - 6 * router) / kGiB, 36.4,
                0.05);
    EXPECT_NEAR((item(items, "optimizer states") - 12 * router / 64) / kGiB, 32.1, 0.05);
    EXPECT_NEAR(activations(memory, 2) / kGiB, 131.0, 0.05);
    EXPECT_NEAR(activations(memory, 0) / kGiB, 131.0 * 76 / 60, 0.05);
    EXPECT_EQ(memory.stage, 0);
}

// 1F1B: rank r holds min(m, p - r) micro-batches of its stage; GPipe all m; interleaved rank 0
// (v p + p - 1) / v of its stage, in chunks 2 (p - r - 1) + (v - 1) p + 1.
TEST(StageMemory, InFlightFollowsFromTheOrder) {
    const double one = of_a_layer();
    const int p = 4, layers = 16;
    auto [s, plan] = pipelined(layers, p, 1, 8);
    const PlanMemory one_f_one_b = stage_memory_of(s, plan);
    plan.parallel.pipeline_schedule = PipelineSchedule::gpipe;
    const PlanMemory gpipe = stage_memory_of(s, plan);
    for (int r = 0; r < p; ++r) {
        EXPECT_NEAR(activations(one_f_one_b, r), one * layers / p * (p - r), 16.0);
        EXPECT_NEAR(activations(gpipe, r), one * layers / p * 8, 16.0);
    }
    const int v = 2;
    const auto [t, interleaved] = pipelined(layers, p, v, 8);
    const PlanMemory memory = stage_memory_of(t, interleaved);
    EXPECT_NEAR(activations(memory, 0), one * layers / p * (v * p + p - 1) / v, 16.0);
    for (int r = 0; r < p; ++r)
        EXPECT_NEAR(activations(memory, r),
                    one * layers / (p * v) * (2 * (p - r - 1) + (v - 1) * p + 1), 16.0);
}

TEST(StageMemory, ZeroBubbleAndDualPipeHoldWhatTheirOrdersSay) {
    const double one = of_a_layer();
    auto [s, plan] = pipelined(16, 4, 1, 8);
    plan.parallel.pipeline_schedule = PipelineSchedule::dualpipe;
    const PlanMemory dual = stage_memory_of(s, plan);
    for (int r = 0; r < 4; ++r)
        EXPECT_NEAR(activations(dual, r), one * 4 * (4 + 1), 16.0) << "p + 1 on every rank";
    // Two copies of the parameters: stages r and p-1-r.
    plan.parallel.pipeline_schedule.reset();
    const PlanMemory single = stage_memory_of(s, plan);
    EXPECT_NEAR(
        item(dual.stages[1].items, "parameters"),
        item(single.stages[1].items, "parameters") + item(single.stages[2].items, "parameters"),
        1.0);
}

// Combined 1F1B: a forward one layer ahead of the backward beside it takes the place of what that
// frees, so that a rank holds what its longer warm-up does, one chunk less than both ends of a pair
// would be: 2 (p - r - 1) + (v - 1) p + 1. Alone, one micro-batch.
TEST(StageMemory, PairsHoldNoSecondMicroBatch) {
    const double one = of_a_layer();
    const int p = 4, v = 2, layers = 16;
    auto [s, plan] = pipelined(layers, p, v, 8);
    plan.parallel.pipeline_schedule = PipelineSchedule::combined_1f1b;
    const PlanMemory memory = stage_memory_of(s, plan);
    for (int r = 0; r < p; ++r)
        EXPECT_NEAR(activations(memory, r),
                    one * layers / (p * v) * (2 * (p - r - 1) + (v - 1) * p + 1), 16.0);
    auto [t, alone] = pipelined(2, 1, 1, 8);
    alone.parallel.pipeline_schedule = PipelineSchedule::combined_1f1b;
    EXPECT_NEAR(activations(stage_memory_of(t, alone), 0), 2 * one, 16.0);
}

// Every parameter of the model lies on one stage, in g equal shares of the experts.
TEST(StageMemory, StagesShareTheParametersOut) {
    auto [s, plan] = pipelined(8, 4, 1, 8);
    s.model.num_dense_layers = 3;
    s.model.dense_width = 4096;
    s.model.moe.num_shared_experts = 1;
    s.model.moe.shared_expert_width = 512;
    const PlanMemory memory = stage_memory_of(s, plan);
    double sum = 0.0;
    for (const StageMemory& stage : memory.stages) sum += item(stage.items, "parameters");
    const ParameterCount count = count_parameters(s.model, plan);
    EXPECT_NEAR(sum, 2.0 * (count.replicated() + count.experts / 8), 16.0);
    // A tied head needs the table a second time, on the last stage.
    s.model.tied_embeddings = true;
    double tied = 0.0;
    for (const StageMemory& stage : stage_memory_of(s, plan).stages)
        tied += item(stage.items, "parameters");
    EXPECT_NEAR(tied, sum, 16.0);
    EXPECT_GT(item(memory.stages.back().items, "logits"), 0.0);
    EXPECT_EQ(item(memory.stages.front().items, "logits"), 0.0);
    EXPECT_GT(item(memory.stages.front().items, "pipeline messages"), 0.0);
}

// A layer of multi-token prediction keeps six rows more than another (hidden row and embedding,
// both normed, output and its norm), two of them under full recompute beside its layer's none;
// every loss has its logits; the table is there once more, and, apart from the loss, its rows
// travel with the others'.
TEST(StageMemory, MultiTokenPredictionKeepsItsRowsAndLogits) {
    const double one = of_a_layer(), row = 4096.0 * 1024 * 2, table = 32000.0 * 1024;
    auto [s, plan] = pipelined(8, 4, 1, 8);
    const PlanMemory before = stage_memory_of(s, plan);
    s.model.mtp_num_layers = 1;
    const PlanMemory after = stage_memory_of(s, plan);
    EXPECT_NEAR(activations(after, 3) - activations(before, 3), one + 6.0 * row, 16.0);
    const auto of = [](const PlanMemory& m, std::size_t stage, const char* name) {
        return item(m.stages[stage].items, name);
    };
    EXPECT_NEAR(of(after, 3, "logits"), 2.0 * of(before, 3, "logits"), 16.0);
    const double layer =
        layer_parameters(s.model, plan, 8).dense() + layer_parameters(s.model, plan, 8).experts;
    EXPECT_NEAR(of(after, 3, "parameters") - of(before, 3, "parameters"), 2.0 * (layer + table),
                16.0);
    EXPECT_EQ(of(after, 3, "pipeline messages"), 2.0 * row);
    for (std::size_t stage = 0; stage < 3; ++stage)
        EXPECT_EQ(after.stages[stage].allocated, before.stages[stage].allocated);
    plan.recompute = RecomputeLevel::full;
    EXPECT_NEAR(of(stage_memory_of(s, plan), 3, "activations: layer inputs"), (2.0 + 2.0) * row,
                16.0);
    plan.recompute = {};
    plan.parallel.pipeline_model_parallel_layout = "Et*3|t*3|ttm|L";
    const PlanMemory apart = stage_memory_of(s, plan);
    EXPECT_EQ(of(apart, 3, "pipeline messages"), 4.0 * row);
    EXPECT_EQ(of(apart, 2, "pipeline messages"), 8.0 * row);
    EXPECT_EQ(of(apart, 1, "pipeline messages"), 4.0 * row);
}

// The plan's memory is that of its worst stage.
TEST(StageMemory, TheWorstStageIsThePlans) {
    const auto [s, plan] = pipelined(16, 4, 1, 8);
    const PlanMemory memory = stage_memory_of(s, plan);
    Bytes most;
    for (const StageMemory& stage : memory.stages) {
        most = std::max(most, stage.peak);
        Bytes sum;
        for (const MemoryItem& i : stage.items) sum += i.bytes;
        EXPECT_NEAR(sum.in(byte), stage.peak.in(byte), 16.0);
    }
    EXPECT_EQ(memory.peak, most);
    EXPECT_EQ(memory.stages[static_cast<std::size_t>(memory.stage)].peak, most);
}

TEST(StageMemory, MoreInFlightNeverNeedsLessAndRecomputeNeverMore) {
    for (const int v : {1, 2}) {
        Bytes before;
        for (const int m : {4, 8, 16, 64}) {
            const auto [s, plan] = pipelined(16, 4, v, m);
            const Bytes now = stage_memory_of(s, plan).allocated;
            EXPECT_GE(now, before);
            before = now;
        }
        auto [s, plan] = pipelined(16, 4, v, 8);
        s.model.moe.num_shared_experts = 1;
        s.model.moe.shared_expert_width = 256;
        const Bytes none = stage_memory_of(s, plan).allocated;
        plan.recompute.granularity = RecomputeGranularity::selective;
        for (RecomputeModules set = 1; set < 256; ++set) {
            plan.recompute.modules = set;
            EXPECT_LE(stage_memory_of(s, plan).allocated, none + 1.0 * byte) << set;
        }
    }
}

// Full, uniform of n: an input for every n layers, and the n layers in work, of which one input is
// counted already. Block of n: n layers with their inputs alone.
TEST(StageMemory, FullRecomputeKeepsInputs) {
    const double one = of_a_layer(), input = 4096.0 * 1024 * 2;
    auto [s, plan] = pipelined(16, 4, 1, 8);
    plan.recompute = RecomputeLevel::full;
    const auto again = [](const PlanMemory& m, std::size_t r) {
        return item(m.stages[r].items, "recomputed");
    };
    PlanMemory memory = stage_memory_of(s, plan);
    EXPECT_NEAR(activations(memory, 1), 3 * 4 * input, 16.0);
    EXPECT_NEAR(again(memory, 1), one - input, 16.0);
    plan.recompute.num_layers = 2;
    memory = stage_memory_of(s, plan);
    EXPECT_NEAR(activations(memory, 1), 3 * 2 * input, 16.0);
    EXPECT_NEAR(again(memory, 1), 2 * one - input, 16.0);
    plan.recompute.method = RecomputeMethod::block;
    memory = stage_memory_of(s, plan);
    EXPECT_NEAR(activations(memory, 1), 3 * (2 * input + 2 * one), 16.0);
    EXPECT_NEAR(again(memory, 1), one - input, 16.0);
}

// ZeRO-1 divides the optimizer by the data-parallel ranks (64 of the dense part, 8 of the experts),
// ZeRO-2 the gradients, ZeRO-3 the parameters, but for two layers in work. I instances: a rank
// keeps I shares.
TEST(StageMemory, ShardingDividesByTheMesh) {
    Scenario s = toy::scenario(8, 8);
    s.model.num_layers = 8;
    Plan plan = toy::ep(Dedup::none, 8);
    const ParameterCount count = count_parameters(s.model, plan);
    const double dense = count.replicated(), experts = count.experts / 8;
    const double unit = (dense - 2 * 32000.0 * 1024) / 8 + experts / 8;  // a layer
    using enum DataParallelSharding;
    const auto states = [&](DataParallelSharding sharding, int instances = 1) {
        plan.parallel.data_parallel_sharding_strategy = sharding;
        plan.parallel.num_distributed_optimizer_instances = instances;
        const auto items = stage_memory_of(s, plan).items;
        return std::array{item(items, "parameters") / 2, item(items, "gradients") / 4,
                          item(items, "optimizer states") / 12};
    };
    const double all = dense + experts, share = dense / 64 + experts / 8;
    const auto expect = [&](std::array<double, 3> got, double p, double g, double o) {
        EXPECT_NEAR(got[0], p, 16.0);
        EXPECT_NEAR(got[1], g, 16.0);
        EXPECT_NEAR(got[2], o, 16.0);
    };
    expect(states(no_shard), all, all, all);
    expect(states(optim), all, all, share);
    expect(states(optim_grads), all, share + 2 * unit, share);
    expect(states(optim_grads_params), share + 2 * unit, share + 2 * unit, share);
    expect(states(optim, 4), all, all, 4 * share);
}

// HP's rows are certain; EP's busiest rank holds more than the mean.
TEST(StageMemory, HeadParallelHasNoBusiestRank) {
    auto [scenario, plan] = pipelined(8, 4, 1, 8);
    const auto grows = [&s = scenario](const Plan& of) {
        s.routing = {};
        s.routing.noise = false;
        const Bytes even = stage_memory_of(s, of).allocated;
        s.routing.skew = Skew::zipf;
        s.routing.parameter = 1.0;
        return stage_memory_of(s, of).allocated / even;
    };
    Plan hp = toy::hp(8, scenario.model, 8);
    hp.parallel = plan.parallel;
    EXPECT_DOUBLE_EQ(grows(hp), 1.0);
    EXPECT_GT(grows(plan), 1.1);
}

// t 2, N 4, e 2: R = e (T/t) k rows, of d inputs and f/e hidden columns, are kept at the experts;
// the gather holds the (T/t) k rows that came and R; with all tokens, N e + 1 times those of a
// rank.
TEST(StageMemory, ExpertsCutByWidthKeepTheRowsOfTheirPart) {
    Scenario s = toy::scenario();
    Plan plan = toy::ep(Dedup::none, 4);
    plan.parallel = {.tensor_model_parallel_size = 2,
                     .sequence_parallel = true,
                     .expert_tensor_parallel_size = 2};
    const double tokens = 4096.0 / 2, k = 4, d = 1024, f = 512, b = 2, rows = 2 * tokens * k;
    const auto kept = [&](const Plan& p) {
        return item(stage_memory_of(s, p).items, "activations: MoE") / s.model.num_layers;
    };
    const double router = tokens * 64 * 10;
    EXPECT_NEAR(kept(plan), router + rows * d * b + 2 * rows * f / 2 * b, 1.0);
    EXPECT_NEAR(item(stage_memory_of(s, plan).items, "communication buffers"),
                (tokens * k + rows) * d * b, 1.0);
    plan.layer = ExpertParallel{.dispatcher = TokenDispatcher::allgather};
    EXPECT_NEAR(kept(plan), 2 * router + rows * d * b + 2 * rows * f / 2 * b, 1.0);
    EXPECT_NEAR(item(stage_memory_of(s, plan).items, "communication buffers"),
                (4 * 2 + 1) * tokens * d * b, 1.0);
    // Megatron sums in the type of the router's probabilities, fp32.
    plan.implementation = Implementation::megatron;
    EXPECT_NEAR(item(stage_memory_of(s, plan).items, "communication buffers"),
                (4 * 2 + 1) * tokens * d * 4, 1.0);
}

}  // namespace
}  // namespace headway
