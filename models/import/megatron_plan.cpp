// The plan and the batch that Megatron's arguments describe, with the defaults of
// megatron/training/arguments.py (Megatron-LM d98e8a6, 2026-08).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "models/import/dialects.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline importing {

namespace {

// "mlp,moe_act" and "mlp moe_act" alike.
std::vector<std::string> words_of(const Setting& setting) {
    std::vector<std::string> words(1);
    for (const char c : setting.text()) {
        if (c != ',' && c != ' ')
            words.back() += c;
        else if (!words.back().empty())
            words.emplace_back();
    }
    if (words.back().empty()) words.pop_back();
    return words;
}

struct NamedModules {
    unsigned bits = 0;
    std::string others;  // that are not among `names`
};
NamedModules modules_of(const Setting& setting, const auto& names) {
    NamedModules modules;
    for (const std::string& word : words_of(setting)) {
        const auto found = std::ranges::find(names, std::string_view(word));
        if (found == names.end())
            modules.others += (modules.others.empty() ? "" : ", ") + word;
        else
            modules.bits |= 1u << (found - names.begin());
    }
    return modules;
}

}  // namespace

void fill_recompute(const Job& job, Plan& plan) {
    const Setting* setting = job.find("recompute_granularity");
    const bool is_selective = job.flag("recompute_activations");
    // Megatron before 2022, and Megatron-DeepSpeed: whole layers.
    const bool is_full = job.flag("checkpoint_activations");
    (void)job.has("deepspeed_activation_checkpointing");
    const std::string granularity = job.text("recompute_granularity", is_full        ? "full"
                                                                      : is_selective ? "selective"
                                                                                     : "");
    const std::string method = job.text("recompute_method", "uniform");
    const int layers = job.integer_or("recompute_num_layers", 1, 0, 1 << 20);
    const Setting* modules = job.find("recompute_modules");
    Recompute& recompute = plan.recompute;
    if (job.flag("moe_layer_recompute")) {
        recompute.granularity = RecomputeGranularity::selective;
        recompute.modules = headway::modules(RecomputeModule::moe);
    }
    if (granularity.empty()) return;
    if (granularity == "full") {
        if (layers == 0 && method == "block") return;  // of each stage none
        if (layers == 0)
            job.refuse(job.find("recompute_num_layers"), "0 layers between kept inputs",
                       "1 or more, or recompute_method block");
        recompute = RecomputeLevel::full;
        recompute.method = method == "block" ? RecomputeMethod::block : RecomputeMethod::uniform;
        recompute.num_layers = layers;
        return;
    }
    if (granularity != "selective") {
        job.refuse(setting, fmt::format("recompute {}", in_quotes(granularity)),
                   "full or selective");
        return;
    }
    recompute.granularity = RecomputeGranularity::selective;
    const NamedModules named = modules != nullptr
                                   ? modules_of(*modules, kRecomputeModuleNames)
                                   : NamedModules{headway::modules(RecomputeModule::core_attn), ""};
    recompute.modules |= named.bits;
    if (!named.others.empty())
        job.leave(*modules, fmt::format("not modelled: nothing of {} is recomputed", named.others));
    if (recompute.modules == 0u) recompute = {};
}

namespace {

// ---- Optimizer and sharding

Dtype dtype_of(const Job& job, std::string_view name, Dtype otherwise) {
    const std::string word = job.text(name);
    if (word.ends_with("bf16") || word.ends_with("bfloat16")) return Dtype::bf16;
    if (word.ends_with("fp16") || word.ends_with(".float16")) return Dtype::fp16;
    if (word.ends_with("fp8") || word.ends_with("uint8")) return Dtype::fp8;
    if (word.ends_with("fp32") || word.ends_with("float32")) return Dtype::fp32;
    return otherwise;
}

void fill_optimizer(const Job& job, const ModelSpec& model, Plan& plan) {
    const bool in_16_bits =
        job.flag("grad_reduce_in_bf16") ||
        (model.dtype == Dtype::fp16 && !job.flag("accumulate_allreduce_grads_in_fp32")) ||
        !job.flag("grad_reduce_in_fp32", true);
    // Megatron-FSDP's gradients are of its parameters' type unless it is told otherwise (`auto`).
    if ((in_16_bits || job.flag("use_megatron_fsdp")) && model.dtype != Dtype::fp32)
        plan.main_grads_dtype = model.dtype;
    plan.main_grads_dtype = dtype_of(job, "megatron_fsdp_main_grads_dtype", plan.main_grads_dtype);
    for (const char* known : {"accumulate_allreduce_grads_in_fp32", "grad_reduce_in_fp32"})
        (void)job.has(known);
    plan.gradient_accumulation_fusion = job.flag("gradient_accumulation_fusion", true) &&
                                        !job.flag("no_gradient_accumulation_fusion");
    const bool is_precise = job.flag("use_precision_aware_optimizer");
    const Dtype grads = dtype_of(job, "main_grads_dtype", plan.main_grads_dtype),
                params = dtype_of(job, "main_params_dtype", Dtype::fp32),
                avg = dtype_of(job, "exp_avg_dtype", Dtype::fp32),
                avg_sq = dtype_of(job, "exp_avg_sq_dtype", Dtype::fp32);
    const bool keeps_remainders = job.flag("store_param_remainders", true);
    if (is_precise) {
        plan.main_grads_dtype = grads;
        plan.main_params_dtype = params;
        plan.exp_avg_dtype = avg;
        plan.exp_avg_sq_dtype = avg_sq;
        plan.store_param_remainders =
            keeps_remainders && params == Dtype::fp32 && model.dtype == Dtype::bf16;
    }
    const std::string optimizer = job.text("optimizer", "adam");
    if (optimizer != "adam" && optimizer != "adamw")
        job.leave(*job.find("optimizer"), "not modelled: the states and the step are AdamW's");
}

// AdamW on the host keeps fp32, whatever the types of states are told to be. A fraction that is
// left out is Megatron's 1; in a configuration of Megatron-Bridge it is always written.
void fill_optimizer_offload(const Job& job, Plan& plan) {
    const bool offloads = job.flag("optimizer_cpu_offload");
    const double fraction = job.number("optimizer_offload_fraction").value_or(1.0);
    const bool overlaps = job.flag("overlap_cpu_optimizer_d2h_h2d");
    if (!offloads || fraction == 0.0) return;
    if (!(fraction > 0.0 && fraction <= 1.0)) {
        job.refuse(job.find("optimizer_offload_fraction"),
                   fmt::format("{} of the optimizer on the host", fraction), "0 to 1");
        return;
    }
    plan.offload.optimizer_cpu_offload = true;
    plan.offload.optimizer_offload_fraction = fraction;
    plan.offload.overlap_cpu_optimizer_d2h_h2d = overlaps;
    plan.offload.use_precision_aware_optimizer = job.flag("use_precision_aware_optimizer");
    for (const char* type : {"main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype"}) {
        if (dtype_of(job, type, Dtype::fp32) != Dtype::fp32)
            job.leave(*job.find(type), "an optimizer on the host keeps its states in fp32");
    }
    plan.main_params_dtype = plan.exp_avg_dtype = plan.exp_avg_sq_dtype = Dtype::fp32;
    plan.store_param_remainders = false;
}

// Whole layers: `cpu_offloading_num_layers` alone turns it on, but where the switch is off.
void fill_activation_offload(const Job& job, Offload& offload) {
    const Setting* modules = job.find("offload_modules");
    const int layers = job.integer_or("cpu_offloading_num_layers", 0, 0, 1 << 20);
    if (job.flag("cpu_offloading", true)) offload.cpu_offloading_num_layers = layers;
    if (!job.flag("fine_grained_activation_offloading") || modules == nullptr) return;
    const auto [bits, others] = modules_of(*modules, kOffloadModuleNames);
    offload.modules = bits;
    offload.fine_grained_activation_offloading = bits != 0;
    if (!others.empty())
        job.leave(*modules, fmt::format("not modelled: the input of {} stays on the GPU", others));
}

// The recipe counts where a format turns it on; Megatron's is "delayed".
void fill_precision(const Job& job, Precision& precision) {
    std::string_view format = "fp8_format", recipe = "fp8_recipe";
    if (!job.has(format)) format = "fp8";
    const bool is_fp4 = job.has("fp4_format") || job.has("fp4");
    if (is_fp4) {
        format = job.has("fp4_format") ? "fp4_format" : "fp4";
        recipe = "fp4_recipe";
    }
    const std::string mixed = job.text("mixed_precision");
    const bool by_name = mixed.find("fp8") != std::string::npos;
    for (const char* name : {"fp8_recipe", "fp4_recipe", "moe_router_padding_for_fp8",
                             "moe_router_padding_for_quantization", "moe_dispatch_fwd_dtype",
                             "moe_combine_bwd_dtype", "fp8_dot_product_attention"})
        (void)job.has(name);
    if (!job.has(format)) {
        if (by_name)
            job.leave(*job.find("mixed_precision"), "not modelled by its name: computed in bf16");
        return;
    }
    job.gives("plans[0].precision", format);
    const std::string name = job.text(recipe, is_fp4 ? "nvfp4" : "delayed");
    const auto* const found = std::find(kRecipeNames.begin(), kRecipeNames.end(), name);
    if (found == kRecipeNames.end())
        job.refuse(job.find(recipe), fmt::format("the recipe {}", in_quotes(name)),
                   fmt::format("one of: {}", fmt::join(kRecipeNames, ", ")));
    else
        precision.recipe = static_cast<Recipe>(found - kRecipeNames.begin());
    precision.dispatch_forward = job.text("moe_dispatch_fwd_dtype", "bf16") != "bf16";
    precision.combine_backward = job.text("moe_combine_bwd_dtype", "bf16") != "bf16";
    precision.attention = job.flag("fp8_dot_product_attention");
}

void fill_sharding(const Job& job, Plan& plan) {
    const bool is_fsdp = job.flag("use_megatron_fsdp");
    const bool is_torch = job.flag("use_torch_fsdp2");
    // What starts Megatron may turn it on by itself (slime).
    const bool is_implied = job.flag("use_precision_aware_optimizer") && !is_fsdp &&
                            !job.has("use_distributed_optimizer");
    if (is_implied)
        job.assume(
            "use_distributed_optimizer is not given: taken as true, as "
            "use_precision_aware_optimizer needs it");
    const bool is_distributed =
        is_implied || job.flag("use_distributed_optimizer", job.file().format == kSwiftFormat);
    const std::string strategy = job.text("data_parallel_sharding_strategy", "optim_grads_params");
    DataParallelSharding sharding = DataParallelSharding::no_shard;
    if (is_distributed) sharding = DataParallelSharding::optim;
    if (is_torch) sharding = DataParallelSharding::optim_grads_params;
    if (is_fsdp) {
        const auto* const name = std::find(kDataParallelShardingNames.begin(),
                                           kDataParallelShardingNames.end(), strategy);
        if (name == kDataParallelShardingNames.end()) {
            job.refuse(job.find("data_parallel_sharding_strategy"),
                       fmt::format("the strategy {}", in_quotes(strategy)),
                       fmt::format("one of: {}", fmt::join(kDataParallelShardingNames, ", ")));
        } else {
            sharding = static_cast<DataParallelSharding>(name - kDataParallelShardingNames.begin());
        }
    }
    plan.parallel.data_parallel_sharding_strategy = sharding;
    plan.parallel.num_distributed_optimizer_instances =
        job.integer_or("num_distributed_optimizer_instances", 1, 1, 1 << 20);
    plan.overlap_grad_all_reduce = job.flag("overlap_grad_reduce");
    plan.overlap_param_gather = job.flag("overlap_param_gather") && gathers_once(sharding);
}

// ---- Groups

// Sizes of the all-to-all and of the ring, a value each or one text.
void fill_levels(const Job& job, const Setting& comm, const Setting* levels, Parallel& parallel) {
    std::array<int, 2> sizes{};
    const std::string text = levels != nullptr ? levels->text() : "";
    char end = 0;
    if (std::sscanf(text.c_str(), "%d%*[ ,]%d %c", &sizes[0], &sizes[1], &end) != 2) {
        job.refuse(levels != nullptr ? levels : &comm,
                   fmt::format("a2a+p2p with the sizes {}", in_quotes(text)),
                   "hierarchical_context_parallel_sizes with the two sizes of its levels");
        return;
    }
    parallel.cp_comm_type = CpCommType::a2a_p2p;
    parallel.hierarchical_context_parallel_sizes = sizes;
}

// Ulysses and the ring by MindSpeed-LLM's names.
std::string cp_type(const Job& job, const Setting* comm) {
    if (comm != nullptr) return comm->values.empty() ? "p2p" : comm->values.front();
    const std::string algorithm = job.text("context_parallel_algo", "megatron_cp_algo");
    if (algorithm.starts_with("hybrid")) return "a2a+p2p";
    return algorithm == "ulysses_cp_algo" ? "a2a" : "p2p";
}

void fill_parallel(const Job& job, Parallel& parallel) {
    parallel.tensor_model_parallel_size =
        job.integer_or("tensor_model_parallel_size",
                       job.integer_or("model_parallel_size", 1, 1, 1 << 20), 1, 1 << 20);
    const int t = parallel.tensor_model_parallel_size;
    parallel.sequence_parallel =
        job.flag("sequence_parallel", job.file().format == kVerlFormat) && t > 1;
    parallel.tp_comm_overlap = job.flag("tp_comm_overlap") && parallel.sequence_parallel;
    parallel.context_parallel_size = job.integer_or("context_parallel_size", 1, 1, 1 << 20);
    parallel.pipeline_model_parallel_size =
        job.integer_or("pipeline_model_parallel_size", 1, 1, 1 << 20);
    parallel.expert_tensor_parallel_size =
        job.integer_or("expert_tensor_parallel_size", t, 1, 1 << 20);
    if (!job.has("expert_tensor_parallel_size") && t > 1)
        job.assume(fmt::format(
            "expert_tensor_parallel_size is not given: Megatron's default is that of the dense "
            "layers, {}",
            t));
    const Setting *comm = job.find("cp_comm_type"),
                  *levels = job.find("hierarchical_context_parallel_sizes");
    const std::string type = cp_type(job, comm);
    // A list is a type for each layer.
    const bool is_uniform =
        comm == nullptr ||
        std::ranges::all_of(comm->values, [&](const auto& one) { return one == type; });
    if (comm == nullptr) comm = job.find("context_parallel_algo");
    if (comm == nullptr) return;
    if (type == "all_gather" || type == "allgather")
        parallel.cp_comm_type = CpCommType::all_gather;
    else if (type == "a2a")
        parallel.cp_comm_type = CpCommType::a2a;
    else if (type == "a2a+p2p" && parallel.context_parallel_size > 1)
        fill_levels(job, *comm, levels, parallel);
    if (!is_uniform && parallel.context_parallel_size > 1)
        job.leave(*comm,
                  fmt::format("not modelled: {} on all layers",
                              kCpCommTypeNames[static_cast<std::size_t>(parallel.cp_comm_type)]));
}

int data_parallel_ranks(const Given& given, const Parallel& p) {
    return given.num_ranks / (p.tensor_model_parallel_size * p.pipeline_model_parallel_size);
}

void fill_experts(const Job& job, const Given& given, Plan& plan) {
    // MegaBlocks spreads the experts over all ranks of data parallelism, as far as they go.
    const int all = std::max(1, std::min(job.integer_or("num_experts", 1, 1, 65536),
                                         data_parallel_ranks(given, plan.parallel)));
    plan.group_size =
        job.integer_or("expert_model_parallel_size",
                       job.flag("moe_expert_model_parallelism") ? all : 1, 1, 1 << 20);
    ExpertParallel ep;
    // Megatron's default, and that of others.
    const bool is_other = is_deepspeed(job) || job.has("moe_expert_model_parallelism") ||
                          job.file().format == kSwiftFormat;
    const std::string type =
        job.text("moe_token_dispatcher_type", is_other ? "alltoall" : "allgather");
    const std::string backend = job.text("moe_flex_dispatcher_backend", "deepep");
    const bool has_deepep = job.flag("moe_enable_deepep");
    const Setting* setting = job.find("moe_token_dispatcher_type");
    if (type == "flex" || has_deepep) {
        ep.dedup = Dedup::node;
        ep.dispatcher = TokenDispatcher::flex;
        if (backend != "deepep" && backend != "hybridep" && backend != "ncclep")
            job.refuse(job.find("moe_flex_dispatcher_backend"),
                       fmt::format("the dispatcher {}", in_quotes(backend)),
                       "deepep, hybridep or ncclep");
    } else if (type == "allgather") {
        if (plan.group_size * plan.parallel.expert_tensor_parallel_size > 1) {
            ep.dispatcher = TokenDispatcher::allgather;
            if (setting == nullptr)
                job.assume("moe_token_dispatcher_type is not given: allgather, Megatron's default");
        }
    } else if (type != "alltoall" && type != "alltoall_seq") {
        job.refuse(setting, fmt::format("the dispatcher {}", in_quotes(type)),
                   "alltoall, allgather or flex");
    }
    if (const auto latent = job.integer("moe_latent_size")) ep.latent_width = *latent;
    plan.layer = ep;
}

// Who launches, and what of it in CUDA graphs.
void fill_host(const Job& job, Plan& plan) {
    plan.implementation = Implementation::megatron;
    plan.use_transformer_engine_op_fuser = job.flag("use_transformer_engine_op_fuser");
    const std::string how = job.text("cuda_graph_impl", "none");
    const bool graphs = job.flag("enable_cuda_graph") || how != "none";
    const Setting* scope = job.find("cuda_graph_scope");
    if (scope == nullptr) scope = job.find("cuda_graph_modules");
    if (!graphs) return;
    const auto add = [&](GraphScope s) { plan.cuda_graph_scope |= bits_of(s); };
    if (how == "full_iteration") return add(GraphScope::full_iteration);
    std::string rest;
    for (const std::string& word : scope ? scope->values : std::vector<std::string>{}) {
        const auto found =
            std::find(kGraphScopeNames.begin(), kGraphScopeNames.end(), std::string_view(word));
        if (found != kGraphScopeNames.end())
            add(static_cast<GraphScope>(found - kGraphScopeNames.begin()));
        else if (word != "full")
            rest += (rest.empty() ? "" : ", ") + word;
    }
    if (!rest.empty())
        job.leave(*scope, fmt::format("not modelled: {} is launched kernel by kernel", rest));
    if (plan.cuda_graph_scope != 0u || !rest.empty()) return;
    // Rows of dropless experts have no fixed shape: a whole layer is what else there is of it.
    for (const GraphScope s : {GraphScope::attn, GraphScope::mlp, GraphScope::moe_router}) add(s);
    job.assume("whole layers as CUDA graphs: attention, dense feed-forward and router");
}

void fill_batch(const Job& job, const Given& given, const Plan& plan, Batch& batch) {
    const auto dataset = job.integer("dataset_sequence_length"), length = job.integer("seq_length");
    batch.sequence_length = dataset.value_or(length.value_or(0));
    if (!dataset) job.need("seq_length", "a job with seq_length, or -- --seq-length N");
    batch.sequences_per_rank = job.integer_or("micro_batch_size", 1, 1, 1 << 20);
    if (!job.has("micro_batch_size")) job.assume("micro_batch_size is not given: 1");
    const Parallel& p = plan.parallel;
    const std::int64_t model_ranks = std::int64_t{p.tensor_model_parallel_size} *
                                     p.context_parallel_size * p.pipeline_model_parallel_size;
    if (given.num_ranks == 0) {
        (void)job.integer("global_batch_size");
        return;
    }
    if (given.num_ranks % model_ranks != 0) {
        job.refuse(nullptr,
                   fmt::format("{} GPUs for tensor, context and pipeline parallelism over {}",
                               given.num_ranks, model_ranks),
                   "a multiple of it", "--gpus N says how many there are");
        return;
    }
    const std::int64_t once = given.num_ranks / model_ranks * batch.sequences_per_rank;
    const int steps = job.integer_or("gradient_accumulation_steps", 1, 1, 1 << 20);
    const std::int64_t all = std::min<std::int64_t>(once * steps, 1 << 24);
    const int global = job.integer_or("global_batch_size", static_cast<int>(all), 1, 1 << 24);
    if (global % once != 0) {
        job.refuse(job.find("global_batch_size"),
                   fmt::format("a global batch of {} for {} data-parallel ranks with {} sequences",
                               global, once / batch.sequences_per_rank, batch.sequences_per_rank),
                   fmt::format("a multiple of {}", once), "--gpus N says how many GPUs there are");
        return;
    }
    batch.global_batch_size = global;
    if (!job.has("global_batch_size"))
        job.assume(fmt::format(
            "global_batch_size is not given: {}, {}", all,
            steps == 1 ? "one micro-batch" : fmt::format("{} micro-batches of every rank", steps)));
}

}  // namespace

bool is_deepspeed(const Job& job) {
    return job.flag("deepspeed");
}

void fill_from_megatron(const Job& job, const Given& given, Scenario& scenario) {
    Plan plan;
    plan.name = "ep";
    fill_parallel(job, plan.parallel);
    fill_model(job, given, plan.parallel.tensor_model_parallel_size, scenario.model);
    if (scenario.model.num_layers > 0) fill_layout(job, scenario.model, plan.parallel);
    fill_experts(job, given, plan);
    fill_host(job, plan);
    fill_recompute(job, plan);
    fill_optimizer(job, scenario.model, plan);
    fill_optimizer_offload(job, plan);
    fill_activation_offload(job, plan.offload);
    fill_sharding(job, plan);
    fill_precision(job, plan.precision);
    plan.parallel.overlap_moe_expert_parallel_comm = job.flag("overlap_moe_expert_parallel_comm");
    plan.parallel.delay_wgrad_compute = job.flag("delay_wgrad_compute");
    fill_batch(job, given, plan, scenario.batch);
    if (!job.flag("moe_router_force_load_balancing"))
        job.assume(
            "experts are equally popular, as the balancing of the job aims at; recorded counts go "
            "under routing.skew");
    for (const auto& [key, name] : std::initializer_list<std::array<std::string_view, 2>>{
             {"plans[0].group_size", "expert_model_parallel_size"},
             {"plans[0].parallel.tensor_model_parallel_size", "tensor_model_parallel_size"},
             {"plans[0].parallel.context_parallel_size", "context_parallel_size"},
             {"plans[0].parallel.cp_comm_type", "cp_comm_type"},
             {"plans[0].parallel.hierarchical_context_parallel_sizes",
              "hierarchical_context_parallel_sizes"},
             {"plans[0].parallel.pipeline_model_parallel_size", "pipeline_model_parallel_size"},
             {"plans[0].parallel.pipeline_model_parallel_layout", "pipeline_model_parallel_layout"},
             {"plans[0].parallel.overlap_moe_expert_parallel_comm",
              "overlap_moe_expert_parallel_comm"},
             {"plans[0].parallel.expert_tensor_parallel_size", "expert_tensor_parallel_size"},
             {"plans[0].parallel.sequence_parallel", "sequence_parallel"},
             {"plans[0].optimizer_cpu_offload", "optimizer_cpu_offload"},
             {"plans[0].offload_modules", "offload_modules"},
             {"plans[0].cpu_offloading_num_layers", "cpu_offloading_num_layers"},
             {"batch.global_batch_size", "global_batch_size"},
             {"batch.micro_batch_size", "micro_batch_size"},
             {"batch.sequence_length", "seq_length"}})
        job.gives(key, name);
    scenario.plans.push_back(std::move(plan));
}

}  // namespace headway::inline importing
