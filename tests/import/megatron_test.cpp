// Megatron's defaults and expressions, one rule a test.
#include <gtest/gtest.h>

#include "models/import/dialects.hpp"
#include "models/import/known_arguments.hpp"
#include "tests/import/read_job.hpp"

namespace headway {
namespace {

// L layers of d wide, E experts on 16 GPUs; `more` is added or counts instead.
ImportedJob imported(const std::string& more, int num_ranks = 16,
                     const std::string& cluster = "dgx_h100") {
    ImportOptions options{.presets = {{kImportTests / "presets"}}};
    options.cluster = cluster;
    options.num_ranks = num_ranks;
    const std::string script =
        "python pretrain_gpt.py --num-layers 8 --hidden-size 1024 --num-attention-heads 16 "
        "--seq-length 2048 --micro-batch-size 2 --num-experts 16 --swiglu --bf16 "
        "--vocab-size 1000 --moe-token-dispatcher-type alltoall " +
        more;
    return import_job_text(script, "run.sh", options);
}

std::string refusal(const std::string& more, const std::string& cluster = "dgx_h100") {
    try {
        imported(more, 16, cluster);
    } catch (const InputError& error) {
        return error.what();
    }
    return "";
}

TEST(LayerPattern, IsAPythonExpression) {
    EXPECT_EQ(layer_pattern("([0]*3+[1]*2)"), (std::vector{0, 0, 0, 1, 1}));
    EXPECT_EQ(layer_pattern("[0,1]*2 + [1]"), (std::vector{0, 1, 0, 1, 1}));
    EXPECT_EQ(layer_pattern("2*[1]"), (std::vector{1, 1}));
    EXPECT_EQ(layer_pattern("[1] * (2 + 1)"), (std::vector{1, 1, 1}));
    EXPECT_EQ(layer_pattern("[]"), std::vector<int>{});
    for (const char* wrong : {"", "3", "[1", "[1]*", "[1]*[2]", "[1]+2", "[[1]]", "[1]*1000000",
                              "__import__('os')", "([1]*1000)*1000"})
        EXPECT_EQ(layer_pattern(wrong), std::nullopt) << wrong;
}

// The vocabulary is padded to a multiple of make_vocab_size_divisible_by * t: 1000 -> 1024, 1152.
TEST(Megatron, PadsTheVocabulary) {
    EXPECT_EQ(imported("").scenario.model.vocab_size, 1024);
    EXPECT_EQ(imported("--tensor-model-parallel-size 2 --expert-tensor-parallel-size 1 "
                       "--make-vocab-size-divisible-by 192 "
                       "--sequence-parallel")
                  .scenario.model.vocab_size,
              1152);
    EXPECT_EQ(imported("--padded-vocab-size 1003").scenario.model.vocab_size, 1003);
}

// f = 8/3 d rounded down to 64 with SwiGLU; etp = tp; one group of query heads.
TEST(Megatron, HasTheDefaultsOfItsArguments) {
    const Scenario s = imported("--group-query-attention").scenario;
    EXPECT_EQ(s.model.moe.expert_width, 1024 * 8 / 3 / 64 * 64);
    const Parallel cut =
        imported("--tensor-model-parallel-size 2 --sequence-parallel").scenario.plans[0].parallel;
    EXPECT_EQ(cut.expert_tensor_parallel_size, 2);
    EXPECT_EQ(s.model.attention.num_kv_heads, 1);
    EXPECT_EQ(s.model.attention.head_width, 64);
    EXPECT_EQ(s.model.moe.top_k, 2);
    EXPECT_EQ(s.model.moe.router_dtype, Dtype::bf16);
    EXPECT_TRUE(s.model.tied_embeddings);
    EXPECT_FALSE(s.plans[0].parallel.sequence_parallel);
    EXPECT_FALSE(s.plans[0].overlap_grad_all_reduce);
    EXPECT_EQ(s.plans[0].parallel.data_parallel_sharding_strategy, DataParallelSharding::no_shard);
    // dp = 16, one micro-batch of 2 sequences
    EXPECT_EQ(s.batch.global_batch_size, 32);
}

TEST(Megatron, OverlapsTensorParallelExchangesUnderSequenceParallelismAlone) {
    const std::string cut = "--tensor-model-parallel-size 2 --expert-tensor-parallel-size 1 ";
    const auto overlaps = [&](const std::string& more) {
        return imported(cut + more).scenario.plans[0].parallel.tp_comm_overlap;
    };
    EXPECT_TRUE(overlaps("--sequence-parallel --tp-comm-overlap"));
    EXPECT_FALSE(overlaps("--sequence-parallel"));
    EXPECT_FALSE(imported("--sequence-parallel --tp-comm-overlap")
                     .scenario.plans[0]
                     .parallel.tp_comm_overlap);
}

// The fraction is Megatron's 1 when it is not given; 0 is none. Its host keeps fp32 states.
TEST(Megatron, PutsTheOptimizerOnTheHost) {
    const std::string sharded = "--use-distributed-optimizer --optimizer-cpu-offload ";
    const auto plan = [&](const std::string& more) {
        return imported(sharded + more, 16, "dgx_h100_host").scenario.plans[0];
    };
    EXPECT_EQ(plan("").offload.optimizer_share(), 1.0);
    EXPECT_FALSE(plan("").offload.overlap_cpu_optimizer_d2h_h2d);
    EXPECT_FALSE(plan("").offload.use_precision_aware_optimizer);
    EXPECT_FALSE(plan("--optimizer-offload-fraction 0").offload.optimizer_cpu_offload);
    const Plan half = plan(
        "--optimizer-offload-fraction 0.5 --overlap-cpu-optimizer-d2h-h2d "
        "--use-precision-aware-optimizer --exp-avg-dtype bf16");
    EXPECT_EQ(half.offload.optimizer_share(), 0.5);
    EXPECT_TRUE(half.offload.overlap_cpu_optimizer_d2h_h2d);
    EXPECT_TRUE(half.offload.use_precision_aware_optimizer);
    EXPECT_EQ(half.exp_avg_dtype, Dtype::fp32);
    EXPECT_FALSE(half.store_param_remainders);
    EXPECT_EQ(imported("--use-distributed-optimizer --optimizer-offload-fraction 0.5")
                  .scenario.plans[0]
                  .offload,
              Offload{});
    EXPECT_NE(refusal(sharded + "--optimizer-offload-fraction 2").find("0 to 1"),
              std::string::npos);
    EXPECT_NE(refusal("--optimizer-cpu-offload", "dgx_h100_host")
                  .find("without the distributed optimizer"),
              std::string::npos);
    EXPECT_NE(refusal(sharded).find("a cluster without `host`"), std::string::npos);
}

TEST(Megatron, HasTwoLevelsOfContextParallelism) {
    const std::string two = "--context-parallel-size 8 --cp-comm-type a2a+p2p ";
    const Parallel parallel =
        imported(two + "--hierarchical-context-parallel-sizes 4 2").scenario.plans[0].parallel;
    EXPECT_EQ(parallel.cp_comm_type, CpCommType::a2a_p2p);
    EXPECT_EQ(parallel.hierarchical_context_parallel_sizes, (std::array{4, 2}));
    for (const char* sizes : {"", "--hierarchical-context-parallel-sizes 8",
                              "--hierarchical-context-parallel-sizes 2 2 2"})
        EXPECT_NE(refusal(two + sizes).find("the two sizes of its levels"), std::string::npos);
    EXPECT_NE(refusal(two + "--hierarchical-context-parallel-sizes 4 4").find("product is 8"),
              std::string::npos);
}

// Modules need their switch; whole layers are turned on by their number.
TEST(Megatron, PutsActivationsOnTheHost) {
    using enum OffloadModule;
    const auto offload = [](const std::string& more) {
        return imported(more, 16, "dgx_h100_host").scenario.plans[0].offload;
    };
    const std::string modules = "--offload-modules core_attn expert_fc1";
    EXPECT_EQ(offload("--fine-grained-activation-offloading " + modules).modules,
              offload_modules(core_attn, expert_fc1));
    EXPECT_EQ(offload("--fine-grained-activation-offloading --offload-modules core_attn,expert_fc1")
                  .modules,
              offload_modules(core_attn, expert_fc1));
    EXPECT_EQ(offload(modules), Offload{});
    EXPECT_EQ(offload("--cpu-offloading-num-layers 4").cpu_offloading_num_layers, 4);
    EXPECT_EQ(offload("--cpu-offloading-num-layers 0"), Offload{});
    const ImportedJob job =
        imported("--fine-grained-activation-offloading --offload-modules gdp_qkv core_attn", 16,
                 "dgx_h100_host");
    EXPECT_EQ(job.scenario.plans[0].offload.modules, offload_modules(core_attn));
    ASSERT_EQ(job.leftovers.size(), 1u);
    EXPECT_NE(job.leftovers[0].find("the input of gdp_qkv stays"), std::string::npos);
    EXPECT_NE(refusal("--cpu-offloading-num-layers 4 --pipeline-model-parallel-size 2 "
                      "--global-batch-size 64")
                  .find("in a pipeline"),
              std::string::npos);
}

TEST(Megatron, DeduplicatesAsItsDispatcherDoes) {
    const auto dedup = [](const std::string& more) {
        return std::get<ExpertParallel>(
                   imported("--expert-model-parallel-size 8 " + more).scenario.plans[0].layer)
            .dedup;
    };
    EXPECT_EQ(dedup(""), Dedup::none);
    EXPECT_EQ(dedup("--moe-token-dispatcher-type flex"), Dedup::node);
    EXPECT_EQ(dedup("--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend hybridep"),
              Dedup::node);
    const auto dispatcher = [](const std::string& more) {
        return std::get<ExpertParallel>(imported(more).scenario.plans[0].layer).dispatcher;
    };
    EXPECT_EQ(dispatcher("--expert-model-parallel-size 8 --moe-token-dispatcher-type allgather"),
              TokenDispatcher::allgather);
    EXPECT_EQ(dispatcher("--moe-token-dispatcher-type allgather"), TokenDispatcher::alltoall);
}

// v = layers / p / n; the layout has its own stages; first and last stage become a layout.
TEST(Megatron, CutsLayersIntoStages) {
    const auto parallel = [](const std::string& more) {
        return imported("--pipeline-model-parallel-size 2 --global-batch-size 64 " + more)
            .scenario.plans[0]
            .parallel;
    };
    EXPECT_EQ(
        parallel("--num-layers-per-virtual-pipeline-stage 2").virtual_pipeline_model_parallel_size,
        2);
    EXPECT_EQ(
        parallel("--num-virtual-stages-per-pipeline-rank 4").virtual_pipeline_model_parallel_size,
        4);
    const Parallel layout = parallel("--pipeline-model-parallel-layout 'Et|(tt|)*2tttL'");
    EXPECT_EQ(layout.virtual_pipeline_model_parallel_size, 2);
    EXPECT_EQ(layout.pipeline_model_parallel_layout, "Et|(tt|)*2tttL");
    EXPECT_EQ(parallel("--decoder-first-pipeline-num-layers 3").pipeline_model_parallel_layout,
              "Ettt|tttttL");
    EXPECT_EQ(parallel("--decoder-last-pipeline-num-layers 2").pipeline_model_parallel_layout,
              "Etttttt|ttL");
    // Embedding and loss count as a layer each: 8 + 2 layers on 5 stages of 2.
    const Parallel counted =
        imported(
            "--pipeline-model-parallel-size 5 --num-layers-per-virtual-pipeline-stage 2 "
            "--account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split",
            5)
            .scenario.plans[0]
            .parallel;
    EXPECT_EQ(counted.virtual_pipeline_model_parallel_size, 1);
    EXPECT_EQ(counted.pipeline_model_parallel_layout, "Et|tt|tt|tt|tL");
    // Two layers on the first rank, six on the other, over two chunks each.
    EXPECT_EQ(parallel("--decoder-first-pipeline-num-layers 2 "
                       "--num-virtual-stages-per-pipeline-rank 2")
                  .pipeline_model_parallel_layout,
              "Et|ttt|t|tttL");
    EXPECT_NE(refusal("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Et|x'"),
              "");
    EXPECT_NE(refusal("--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 3"),
              "");
}

TEST(Megatron, RecomputesWhatIsModelled) {
    const auto recompute = [](const std::string& more) {
        return imported(more).scenario.plans[0].recompute;
    };
    using enum RecomputeModule;
    EXPECT_EQ(recompute(""), Recompute{});
    EXPECT_EQ(recompute("--recompute-activations").selected(), modules(core_attn));
    EXPECT_EQ(recompute("--recompute-granularity selective").selected(), modules(core_attn));
    EXPECT_EQ(recompute("--recompute-granularity selective --recompute-modules moe_act layernorm")
                  .selected(),
              modules(moe_act, layernorm));
    EXPECT_EQ(recompute("--recompute-granularity selective --recompute-modules mlp moe").selected(),
              modules(mlp, moe));
    EXPECT_EQ(recompute("--moe-layer-recompute").selected(), modules(moe));
    EXPECT_EQ(recompute("--recompute-granularity full --recompute-method uniform "
                        "--recompute-num-layers 1"),
              Recompute(RecomputeLevel::full));
    const Recompute block =
        recompute("--recompute-granularity full --recompute-method block --recompute-num-layers 4");
    EXPECT_EQ(block.method, RecomputeMethod::block);
    EXPECT_EQ(block.num_layers, 4);
}

// DeepSeek-V3: k 8 of 4 groups: a group is as good as its best two. k = groups: its best one.
TEST(Megatron, ScoresGroupsByTheBestOfTheirShare) {
    const auto score = [](const std::string& more) {
        return imported("--moe-router-num-groups 8 " + more).scenario.model.moe.group_score;
    };
    EXPECT_EQ(score("--moe-router-topk 8 --moe-router-group-topk 4"), GroupScore::top2_sum);
    EXPECT_EQ(score("--moe-router-topk 4 --moe-router-group-topk 4"), GroupScore::max);
}

TEST(Megatron, ShardsAsAsked) {
    const auto sharding = [](const std::string& more) {
        return imported(more).scenario.plans[0].parallel.data_parallel_sharding_strategy;
    };
    EXPECT_EQ(sharding("--use-distributed-optimizer"), DataParallelSharding::optim);
    EXPECT_EQ(sharding("--use-megatron-fsdp"), DataParallelSharding::optim_grads_params);
    EXPECT_EQ(sharding("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads"),
              DataParallelSharding::optim_grads);
    // Without FSDP the strategy says nothing.
    EXPECT_EQ(sharding("--use-distributed-optimizer --data-parallel-sharding-strategy "
                       "optim_grads_params"),
              DataParallelSharding::optim);
}

TEST(Megatron, ComputesInTheRecipeThatAFormatTurnsOn) {
    const auto recipe = [](const std::string& more) {
        return imported(more).scenario.plans[0].precision.recipe;
    };
    EXPECT_EQ(recipe("--fp8-recipe blockwise"), Recipe::none);
    EXPECT_EQ(recipe("--fp8-format hybrid"), Recipe::delayed);
    EXPECT_EQ(recipe("--fp8-format e4m3 --fp8-recipe blockwise"), Recipe::blockwise);
    EXPECT_NE(refusal("--fp8-format e4m3 --fp8-recipe custom").find("the recipe 'custom'"),
              std::string::npos);
}

TEST(Megatron, NamesWhatItLeavesOut) {
    const ImportedJob job =
        imported("--fp8-param-gather --lr 1e-4 --moe-router-tokp 4 --mtp-use-repeated-layer");
    ASSERT_EQ(job.leftovers.size(), 3u);
    EXPECT_EQ(job.leftovers[0],
              "run.sh:1: --fp8-param-gather: not modelled: parameters and attention stay in the "
              "model's dtype");
    EXPECT_EQ(job.leftovers[1],
              "run.sh:1: --moe-router-tokp 4: unknown to headway, left out; did you mean "
              "moe_router_topk?");
    EXPECT_EQ(job.num_of_no_concern, 1);
    EXPECT_EQ(imported("--disable-bias-linear").leftovers.size(), 0u);
}

TEST(Megatron, RefusesWhatDoesNotDivide) {
    EXPECT_NE(refusal("--global-batch-size 33").find("run.sh:1:"), std::string::npos);
    EXPECT_NE(refusal("--tensor-model-parallel-size 3").find("16 GPUs"), std::string::npos);
    EXPECT_NE(refusal("--expert-model-parallel-size 5").find("run.sh:1:"), std::string::npos);
    EXPECT_NE(refusal("--linear-attention-freq 4").find("linear attention"), std::string::npos);
}

TEST(Megatron, AddsAHeadParallelTwin) {
    ImportOptions options{.presets = {{kImportTests / "presets"}}};
    options.cluster = "dgx_h100";
    options.num_ranks = 8;
    options.head_parallel_twin = 8;
    const Scenario s = import_job_text(
                           "python x.py --num-layers 4 --hidden-size 512 --num-attention-heads 8 "
                           "--seq-length 1024 --micro-batch-size 1 --num-experts 16 --bf16 "
                           "--vocab-size 1024 --expert-model-parallel-size 8 "
                           "--moe-token-dispatcher-type alltoall",
                           "run.sh", options)
                           .scenario;
    ASSERT_EQ(s.plans.size(), 2u);
    const auto& hp = std::get<HeadParallel>(s.plans[1].layer);
    EXPECT_EQ(hp.num_heads * hp.head_width, 512);
    EXPECT_EQ(s.plans[1].group_size, 8);
    EXPECT_EQ(s.baseline, "ep");
}

// docs/reference/import.md ends with the table of what is not modelled.
TEST(Documentation, ListsWhatIsNotModelled) {
    const std::string page =
        file_text(std::filesystem::path(HEADWAY_SOURCE_DIR) / "docs/reference/import.md");
    EXPECT_TRUE(page.ends_with(known_arguments_markdown())) << known_arguments_markdown();
}

}  // namespace
}  // namespace headway
