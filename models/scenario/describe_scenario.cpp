#include "models/scenario/describe.hpp"
#include "models/scenario/moe_keys.hpp"

#include <algorithm>
#include <cmath>

namespace headway::inline scenario {
namespace {

constexpr Range kWeight = {.low = 0, .high = 1e15};

void describe_batch(Fields& f, Batch& batch) {
    f.integer("sequence_length", batch.sequence_length, {1, 1 << 24}, "tokens of one sequence");
    constexpr Range range = {1, 1 << 20};
    const bool given =
        f.integer("sequences_per_rank", batch.sequences_per_rank, range,
                  "sequences of one micro-batch on one data-parallel rank", optional);
    std::optional<int> micro_batch_size;
    f.second_name("micro_batch_size", micro_batch_size, range, "Megatron's sequences_per_rank");
    f.take("micro_batch_size", micro_batch_size, "sequences_per_rank", given,
           batch.sequences_per_rank);
    const bool counted =
        f.integer("num_micro_batches", batch.num_micro_batches, range,
                  "micro-batches of a step: gradient accumulation, or what a pipeline works on",
                  optional, !batch.global_batch_size);
    if (counted) batch.global_batch_size.reset();
    f.integer("global_batch_size", batch.global_batch_size, {1, 1 << 30},
              "sequences of a step on all ranks, instead of num_micro_batches: a plan has as many "
              "micro-batches as its data-parallel ranks leave");
    if (counted && batch.global_batch_size)
        f.contradiction("global_batch_size", "num_micro_batches", "one of them");
}

void describe_histogram(Fields& f, Routing& routing) {
    std::vector<double> row;
    if (routing.skew == Skew::histogram && !routing.weights.empty()) row = routing.weights.front();
    const bool is_inline =
        f.numbers("weights", row, kWeight, "popularity of each expert; normalised", optional);
    std::vector<std::vector<double>> table;
    const bool in_file = f.table_file("file", table, kWeight, "CSV file: one row of weights");
    f.exactly_one_of({"weights", "file"});
    if (is_inline) routing.weights = {row};
    if (in_file) routing.weights = table;
}

void describe_trace(Fields& f, Routing& routing) {
    std::vector<std::vector<double>> table;
    if (routing.skew == Skew::trace) table = routing.weights;
    const bool is_inline = f.matrix(
        "counts", table, kWeight,
        "tokens that each expert was given, recorded behind top-k, a row per layer: an expert is "
        "chosen in proportion to its count. The rows are used again from the first when the model "
        "has more layers",
        optional);
    const bool in_file = f.table_file("file", table, kWeight, "CSV file: a row per layer");
    f.exactly_one_of({"counts", "file"});
    if (is_inline || in_file) routing.weights = table;
}

void describe_skew(Fields& f, Routing& routing) {
    f.choice("kind", routing.skew, kSkewNames,
             "none: all experts equally popular; zipf: w_i ~ (i+1)^-exponent; power_law: truncated "
             "Pareto draw; dirichlet: symmetric; histogram: given; trace: recorded counts");
    const Skew kind = routing.skew;
    f.only_when("kind: zipf, power_law", kind == Skew::zipf || kind == Skew::power_law, [&] {
        f.number("exponent", routing.parameter, {.low = 0, .high = 100, .above_low = true},
                 "the larger, the more uneven; power_law: not 1");
    });
    f.only_when("kind: dirichlet", kind == Skew::dirichlet, [&] {
        f.number("concentration", routing.parameter, {.low = 0.01, .high = 1e9},
                 "the smaller, the more uneven");
    });
    f.only_when("kind: histogram", kind == Skew::histogram,
                [&] { describe_histogram(f, routing); });
    f.only_when("kind: trace", kind == Skew::trace, [&] { describe_trace(f, routing); });
}

void describe_routing(Fields& f, Routing& routing) {
    f.flag("noise", routing.noise,
           "true: experts are sampled, so the busiest rank lies above the mean; false: the "
           "expectation, exactly",
           optional);
    f.map("skew", routing, "popularity of experts apart from sampling noise; left out: none",
          describe_skew, optional);
    f.choice("scope", routing.scope, kSkewScopeNames,
             "popularity is the same on all source ranks, or drawn for each", optional);
    f.flag("per_layer", routing.per_layer, "popularity is drawn anew for each layer", optional);
    f.integer("seed", routing.seed, {0, 9.2e18}, "of every random draw", optional);
}

void describe_recompute(Fields& f, Recompute& recompute) {
    const auto level = f.older_choice<RecomputeLevel>(
        "recompute", kRecomputeNames,
        "older key: activation stands for selective with moe_act, moe for selective with moe_act "
        "and experts (no exchange is repeated), full for full");
    if (level) recompute = *level;
    f.choice("recompute_granularity", recompute.granularity, kRecomputeGranularityNames,
             "what backward computes again instead of keeping: nothing, the inside of "
             "recompute_modules, or whole layers",
             optional);
    f.at_most_one_of("recompute", "recompute_granularity");
    f.at_most_one_of("recompute", "recompute_modules");
    const RecomputeGranularity granularity = recompute.granularity;
    f.only_when(
        "recompute_granularity: selective", granularity == RecomputeGranularity::selective, [&] {
            f.choices("recompute_modules", recompute.modules, kRecomputeModuleNames,
                      "attention core; q, k, v of latent attention; norms; activation of experts; "
                      "dense feed-forward; shared experts; MoE layer with its exchanges; experts "
                      "without an exchange (headway's own). Left out: core_attn");
            if (recompute.modules == 0u) recompute.modules = modules(RecomputeModule::core_attn);
        });
    f.only_when("recompute_granularity: full", granularity == RecomputeGranularity::full, [&] {
        f.choice("recompute_method", recompute.method, kRecomputeMethodNames,
                 "uniform: every layer, recompute_num_layers of them from one kept input; block: "
                 "the first recompute_num_layers layers of each chunk of a pipeline, one by one",
                 optional);
        f.integer("recompute_num_layers", recompute.num_layers, {1, 1 << 20},
                  "see recompute_method", optional);
    });
}

void describe_offload(Fields& f, Offload& offload) {
    f.flag("optimizer_cpu_offload", offload.optimizer_cpu_offload,
           "AdamW of a share of the parameters runs on the host, its states in host memory "
           "(Megatron's hybrid optimizer)",
           optional);
    f.only_when("optimizer_cpu_offload: true", offload.optimizer_cpu_offload, [&] {
        f.number("optimizer_offload_fraction", offload.optimizer_offload_fraction, {0, 1},
                 "share of a rank's parameters that it updates", optional);
        f.flag("overlap_cpu_optimizer_d2h_h2d", offload.overlap_cpu_optimizer_d2h_h2d,
               "gradients go down and parameters come up beside the host's work", optional);
        f.flag("use_precision_aware_optimizer", offload.use_precision_aware_optimizer,
               "the host has the only master parameters of its share; false: the GPU keeps its "
               "own besides, and only moments leave it",
               optional);
    });
    f.flag("fine_grained_activation_offloading", offload.fine_grained_activation_offloading,
           "inputs of offload_modules go to host memory in forward and come back in backward",
           optional);
    f.only_when("fine_grained_activation_offloading: true",
                offload.fine_grained_activation_offloading, [&] {
                    f.choices("offload_modules", offload.modules, kOffloadModuleNames,
                              "modules whose inputs go: norm before attention; projections to q, "
                              "k, v; attention core; output projection (with core_attn alone); "
                              "norm before the feed-forward part; experts' rows; input of their "
                              "activation; all that fused experts keep");
                });
    f.integer("cpu_offloading_num_layers", offload.cpu_offloading_num_layers, {0, 1 << 20},
              "the first so many layers keep their activations in host memory "
              "(TransformerEngine's cpu_offloading); without a pipeline",
              optional);
}

void describe_pipeline(Fields& f, Parallel& p) {
    f.integer("pipeline_model_parallel_size", p.pipeline_model_parallel_size, {1, 1 << 16},
              "p, pipeline stages on blocks of consecutive ranks", optional);
    f.integer("virtual_pipeline_model_parallel_size", p.virtual_pipeline_model_parallel_size,
              {1, 1 << 12}, "v, chunks of layers on one pipeline rank", optional);
    f.text("pipeline_model_parallel_layout", p.pipeline_model_parallel_layout,
           "what each stage holds, as Megatron writes it: stages in the order of the forward pass "
           "apart by |, E embedding, t decoder layer, L head and loss, (..)*n and x*n repeat: "
           "Et|(tt|)*3L; left out: layers evenly",
           optional);
    f.choice("pipeline_schedule", p.pipeline_schedule, kPipelineScheduleNames,
             "order of forward and backward passes; left out: 1f1b, interleaved where v > 1, "
             "combined_1f1b with overlap_moe_expert_parallel_comm");
    f.integer(
        "microbatch_group_size_per_vp_stage", p.microbatch_group_size_per_vp_stage, {0, 1 << 20},
        "interleaved orders: micro-batches that a chunk runs before the next one's turn; 0: p",
        optional);
    f.flag("overlap_moe_expert_parallel_comm", p.overlap_moe_expert_parallel_comm,
           "exchanges of a forward beside the compute of a backward and the other way round: the "
           "pairs of combined_1f1b, which is the schedule then",
           optional);
    f.flag("delay_wgrad_compute", p.delay_wgrad_compute,
           "weight gradients of a pair run behind its exchanges", optional);
}

// Which keys of the map `parallel` were given that have a second name elsewhere.
struct GivenParallel {
    std::optional<int> expert_model_parallel_size;
    bool sharding = false;
};

void describe_parallel(Fields& f, Parallel& p, GivenParallel& given) {
    constexpr Range range = {1, 1 << 16};
    f.integer("tensor_model_parallel_size", p.tensor_model_parallel_size, range,
              "t, consecutive ranks that share the heads and widths of a layer", optional);
    f.flag("tp_comm_overlap", p.tp_comm_overlap,
           "exchanges of q k v, output and dense feed-forward run hop by hop beside their GEMMs "
           "(user buffers); needs sequence_parallel",
           optional);
    f.flag("sequence_parallel", p.sequence_parallel,
           "norms, router and MoE layer work on 1/t of the tokens; needed for MoE layers where t > "
           "1",
           optional);
    f.integer("context_parallel_size", p.context_parallel_size, range,
              "c, ranks that share the tokens of a sequence, t apart", optional);
    f.choice("cp_comm_type", p.cp_comm_type, kCpCommTypeNames,
             "how they meet their keys and values: a ring behind the attention (p2p), one "
             "all-gather before it, all-to-alls that give each rank whole sequences of h/c "
             "heads (a2a), or such all-to-alls among neighbours and a ring over their groups",
             optional);
    f.only_when("cp_comm_type: a2a+p2p", p.cp_comm_type == CpCommType::a2a_p2p, [&] {
        auto& sizes = p.hierarchical_context_parallel_sizes;
        std::vector<double> two;
        if (sizes[0] > 0) two.assign(sizes.begin(), sizes.end());
        f.numbers("hierarchical_context_parallel_sizes", two, range,
                  "ranks of the all-to-alls, and of the ring: two numbers whose product is c");
        sizes = {};
        if (two.size() == 2)
            std::ranges::transform(two, sizes.begin(),
                                   [](double n) { return n == std::floor(n) ? int(n) : 0; });
    });
    describe_pipeline(f, p);
    f.second_name("expert_model_parallel_size", given.expert_model_parallel_size, {1, 1 << 20},
                  "Megatron's group_size");
    f.integer("expert_tensor_parallel_size", p.expert_tensor_parallel_size, range,
              "e, consecutive ranks that share the width of each expert, and exchange its rows; "
              "Megatron's default is t, this one is not",
              optional);
    given.sharding =
        f.choice("data_parallel_sharding_strategy", p.data_parallel_sharding_strategy,
                 kDataParallelShardingNames,
                 "what data-parallel ranks share out: optimizer states (optim, ZeRO-1), gradients "
                 "too (optim_grads, ZeRO-2), parameters too (optim_grads_params, ZeRO-3 or FSDP)",
                 optional);
    f.integer("num_distributed_optimizer_instances", p.num_distributed_optimizer_instances, range,
              "replicas of the shards: gradients of a shard are reduced between them (HSDP)",
              optional);
}

void describe_precision(Fields& f, Precision& precision) {
    f.choice("recipe", precision.recipe, kRecipeNames,
             "what linear layers and experts compute in: tensorwise and delayed FP8, blockwise "
             "FP8, MXFP8 or NVFP4 (Megatron's fp8_recipe, fp4_recipe). Embedding, head, router, "
             "norms and, unless told, attention's core keep the model's type",
             optional);
    f.flag("experts", precision.experts, "false: routed experts keep the model's type", optional);
    f.flag("fp8_dot_product_attention", precision.attention, "attention's core in FP8", optional);
    f.flag("moe_dispatch_fwd", precision.dispatch_forward,
           "dispatch sends this type forward, with its scales", optional);
    f.flag("moe_combine_bwd", precision.combine_backward,
           "the gradients of combine travel in this type", optional);
}

void describe_plan(Fields& f, Plan& plan) {
    f.text("name", plan.name, "name in tables; unique");
    describe_moe_layer(f, plan.layer);
    GivenParallel given;
    f.map(
        "parallel", plan.parallel, "how the plan cuts the model and its tokens besides",
        [&](Fields& g, Parallel& p) { describe_parallel(g, p, given); }, optional);
    const bool sized = f.integer_unless(
        given.expert_model_parallel_size.has_value(), "group_size", plan.group_size, {1, 1 << 20},
        "N, ranks that share one MoE layer; divides the ranks of a pipeline stage; required, here "
        "or as parallel.expert_model_parallel_size");
    f.take("group_size", given.expert_model_parallel_size, "parallel.expert_model_parallel_size",
           sized, plan.group_size);
    std::optional<bool> zero1;
    f.second_name("zero1", zero1,
                  "true: parallel.data_parallel_sharding_strategy: optim; false: no_shard");
    std::optional<DataParallelSharding> sharding;
    if (zero1) sharding = *zero1 ? DataParallelSharding::optim : DataParallelSharding::no_shard;
    f.take("zero1", sharding, "parallel.data_parallel_sharding_strategy", given.sharding,
           plan.parallel.data_parallel_sharding_strategy);
    describe_recompute(f, plan.recompute);
    f.choice("optimizer", plan.optimizer, kOptimizerNames, "optimizer and its state", optional);
    f.choice("main_grads_dtype", plan.main_grads_dtype, kTensorDtypeNames,
             "type that gradients are accumulated and reduced in", optional);
    f.flag("gradient_accumulation_fusion", plan.gradient_accumulation_fusion,
           "the products of weight gradients add to the gradients of earlier micro-batches; false: "
           "a kernel of its own adds them",
           optional);
    f.choice("main_params_dtype", plan.main_params_dtype, kTensorDtypeNames,
             "type of the optimizer's master parameters", optional);
    f.choice("exp_avg_dtype", plan.exp_avg_dtype, kTensorDtypeNames,
             "type of the first moment; adamw_8bit has a byte instead", optional);
    f.choice("exp_avg_sq_dtype", plan.exp_avg_sq_dtype, kTensorDtypeNames,
             "type of the second moment; adamw_8bit has a byte instead", optional);
    f.flag("store_param_remainders", plan.store_param_remainders,
           "master parameters are the 16 bits that bf16 parameters lack", optional);
    describe_offload(f, plan.offload);
    f.map("precision", plan.precision, "types below the model's", describe_precision, optional);
    f.integer("overlap_chunks", plan.overlap_chunks, {1, 1024},
              "token chunks whose communication overlaps expert compute; 1: no overlap", optional);
    const bool overlap_given = f.flag(
        "overlap_grad_all_reduce", plan.overlap_grad_all_reduce,
        "gradients are reduced, and sharded parameters gathered, behind the passes", optional);
    std::optional<bool> overlap;
    f.second_name("overlap_grad_reduce", overlap, "Megatron's overlap_grad_all_reduce");
    f.take("overlap_grad_reduce", overlap, "overlap_grad_all_reduce", overlap_given,
           plan.overlap_grad_all_reduce);
    f.flag(
        "overlap_param_gather", plan.overlap_param_gather,
        "parameters of a sharded optimizer are gathered ahead of the layers of the first forward "
        "pass; false: behind the optimizer",
        optional);
    f.choice(
        "implementation", plan.implementation, kImplementationNames,
        "fused: rows are copied where they must move, by a host that is never waited for; "
        "unfused: with the duplications, casts, layout copies and host syncs of the code "
        "released with arXiv 2602.04870; torch, megatron: as fused, launched one by one by the "
        "host of eager PyTorch, or of Megatron-LM with TransformerEngine; headway: as headway-run "
        "runs it, with a host that waits for counts",
        optional);
    f.flag(
        "use_transformer_engine_op_fuser", plan.use_transformer_engine_op_fuser,
        "megatron: activation, clamps, biases and casts of experts are in the epilogues of their "
        "products",
        optional);
    f.choice("attention_backend", plan.attention_backend, kAttentionBackendNames,
             "attention kernels: cuDNN's or FlashAttention 3's; flash: FlashAttention 2's, as "
             "PyTorch runs them on Hopper, 1.5 times as long",
             optional);
    f.choices("cuda_graph_scope", plan.cuda_graph_scope, kGraphScopeNames,
              "of torch and megatron, launched as one CUDA graph a layer and pass: norms and "
              "attention; the dense feed-forward; router and shared experts; counts and "
              "permutation; the step. headway has that of the step alone, where no host waits "
              "for counts: HP, or EP on one rank");
}

void describe_sweep_axis(Fields& f, SweepAxis& axis) {
    f.text("axis", axis.key,
           "a key by its path, such as model.moe.top_k or plans.hp.overlap_chunks, or a derived "
           "axis (docs/reference/sweep.md)");
    f.texts("values", axis.values,
            "values as the key has them, or a range: 1..16:1 adds 1, 1..16:*2 doubles");
}

}  // namespace

void describe(Fields& f, Routing& routing) {
    f.map("routing", routing, "how tokens choose experts", describe_routing, optional);
}

void describe(Fields& f, Scenario& scenario) {
    f.text("name", scenario.name, "name in tables; left out: the name of the file", optional);
    f.reference("model", ReferenceKind::model, scenario.model, "the transformer",
                [](Fields& g, ModelSpec& m) { describe(g, m); });
    f.reference("cluster", ReferenceKind::cluster, scenario.cluster, "the machine",
                [](Fields& g, Cluster& c) { describe(g, c); });
    f.map("batch", scenario.batch, "work of one step on one rank", describe_batch);
    describe(f, scenario.routing);
    f.list("plans", scenario.plans, "parallel plans to compare", describe_plan);
    f.text("baseline", scenario.baseline,
           "name of the plan that speedups refer to; left out: the first plan", optional);
    f.reference("profile", ReferenceKind::profile, scenario.profile,
                "measured curves; may come from the command line instead",
                [](Fields& g, Profile& p) { describe(g, p); });
    f.list("sweep", scenario.sweep, "axes of `headway sweep`; the last one changes fastest",
           describe_sweep_axis, optional);
}

}  // namespace headway::inline scenario
