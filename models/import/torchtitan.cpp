// torchtitan's names: torchtitan/config/configs.py (b5bcd76, 2026-08), and job_config.py of the
// TOML files until then. The model is a name; its shape is in Python.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "models/import/dialects.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline importing {
namespace {

// Sections have moved: degrees were once under training and experimental.
int degree(const Job& job, std::string_view name, int otherwise = 1, int low = 1) {
    for (const char* section : {"parallelism.", "training.", "experimental."}) {
        if (const auto value = job.integer(section + std::string(name), low, 1 << 20))
            return *value;
    }
    return otherwise;
}

struct Schedule {
    std::string_view name;  // in lower case
    PipelineSchedule order;
    int chunks;  // of a rank; 0: as many as layers_per_stage gives, two by default
};
constexpr std::array<Schedule, 7> kSchedules = {
    {{"1f1b", PipelineSchedule::one_f_one_b, 1},
     {"gpipe", PipelineSchedule::gpipe, 1},
     {"interleaved1f1b", PipelineSchedule::interleaved, 0},
     {"interleavedzerobubble", PipelineSchedule::interleaved, 0},
     {"loopedbfs", PipelineSchedule::interleaved, 0},
     {"zbvzerobubble", PipelineSchedule::zb_v, 2},
     {"dualpipev", PipelineSchedule::dualpipe_v, 2}}};

void fill_pipeline(const Job& job, int layers, Parallel& parallel) {
    const int p = parallel.pipeline_model_parallel_size = degree(job, "pipeline_parallel_degree");
    std::string name = job.text("parallelism.pipeline_parallel_schedule", "1F1B");
    const auto per_stage = job.integer("parallelism.pipeline_parallel_layers_per_stage");
    const bool overlaps = job.flag("parallelism.pipeline_parallel_expert_parallel_overlap", true);
    if (p < 2) return;
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    const auto* const found = std::find_if(kSchedules.begin(), kSchedules.end(),
                                           [&](const Schedule& s) { return s.name == name; });
    const Setting* setting = job.find("parallelism.pipeline_parallel_schedule");
    if (found == kSchedules.end()) {
        job.refuse(setting, fmt::format("the schedule {}", in_quotes(name)),
                   "1F1B, GPipe, Interleaved1F1B, InterleavedZeroBubble, ZBVZeroBubble or "
                   "DualPipeV");
        return;
    }
    if (name == "interleavedzerobubble" || name == "loopedbfs")
        job.leave(*setting, "not modelled: interleaved 1F1B");
    if (found->order == PipelineSchedule::dualpipe_v && !overlaps)
        job.leave(*setting, "pairs of DualPipeV overlap, whatever the job says");
    const int chunks = found->chunks > 0 ? found->chunks
                       : per_stage       ? (layers + p * *per_stage - 1) / (p * *per_stage)
                                         : 2;
    parallel.virtual_pipeline_model_parallel_size = chunks;
    parallel.pipeline_schedule = found->order;
}

// FSDP2 keeps parameters gathered between forward and backward where a pipeline would gather them
// for every micro-batch ("default"), or always ("never").
void fill_degrees(const Job& job, int world_of_data, Plan& plan) {
    Parallel& parallel = plan.parallel;
    const int replicas = degree(job, "data_parallel_replicate_degree");
    const int shards = degree(job, "data_parallel_shard_degree", -1, -1);
    const std::string reshard = job.text("parallelism.fsdp_reshard_after_forward", "default");
    if (shards == 1) return;
    const bool keeps =
        reshard == "never" || (reshard == "default" && parallel.pipeline_model_parallel_size > 1);
    parallel.data_parallel_sharding_strategy =
        keeps ? DataParallelSharding::optim_grads : DataParallelSharding::optim_grads_params;
    parallel.num_distributed_optimizer_instances = replicas;
    if (shards > 0 && world_of_data > 0 && shards * replicas != world_of_data)
        job.refuse(job.find("parallelism.data_parallel_shard_degree"),
                   fmt::format("{} shards and {} replicas for {} data-parallel ranks", shards,
                               replicas, world_of_data),
                   "degrees whose product they are", "--gpus N says how many GPUs there are");
}

void fill_recompute_mode(const Job& job, Plan& plan) {
    const Setting* mode = job.find("activation_checkpoint.mode");
    const std::string text = job.text("activation_checkpoint.mode", "none");
    if (text == "full")
        plan.recompute = RecomputeLevel::full;
    else if (text != "none")
        job.leave(*mode, "not modelled: all activations are kept");
}

void fill_tokens(const Job& job, int world_of_data, const Parallel& parallel, Batch& batch) {
    const auto length = job.integer("training.seq_len"),
               context = job.integer("training.max_context_length");
    batch.sequence_length = length.value_or(context.value_or(2048));
    if (!length && !context) job.assume("training.seq_len is not given: 2048");
    const int old_size = job.integer_or("training.batch_size", 8, 1, 1 << 20);
    int local = job.integer_or("training.local_batch_size", old_size, 1, 1 << 20);
    const bool has_tokens = job.has("training.num_tokens_per_microbatch_per_dp_rank");
    const int tokens =
        job.integer_or("training.num_tokens_per_microbatch_per_dp_rank", 16384, 1, 1 << 30);
    const auto step = job.integer("training.num_tokens_per_train_step", -1, 1 << 30);
    int micro = job.integer_or("parallelism.pipeline_parallel_microbatch_size", 1, 1, 1 << 20);
    const int pieces = job.integer_or("parallelism.num_pp_microbatches", 1, 1, 1 << 20);
    if (has_tokens) {
        if (tokens % batch.sequence_length != 0)
            job.leave(*job.find("training.num_tokens_per_microbatch_per_dp_rank"),
                      "packed sequences: taken as whole ones, rounded down");
        micro = std::max(1, tokens / batch.sequence_length);
        local = micro * pieces;
    }
    batch.sequences_per_rank =
        parallel.pipeline_model_parallel_size > 1 || has_tokens ? micro : local;
    const auto global = job.integer("training.global_batch_size", -1, 1 << 24);
    if (world_of_data == 0) return;
    const std::int64_t own = std::int64_t{local} * world_of_data;
    std::int64_t all = global && *global > 0 ? *global : own;
    if (step && *step > 0) all = *step / batch.sequence_length;
    const std::int64_t once = std::int64_t{batch.sequences_per_rank} * world_of_data;
    if (all % once != 0 || all < 1 || all > 1 << 24) {
        job.refuse(job.find("training.global_batch_size"),
                   fmt::format("a global batch of {} for {} data-parallel ranks with {} sequences",
                               all, world_of_data, batch.sequences_per_rank),
                   fmt::format("a multiple of {}", once));
        return;
    }
    batch.global_batch_size = static_cast<int>(all);
}

void fill_expert_degree(const Job& job, Plan& plan) {
    plan.group_size = degree(job, "expert_parallel_degree");
    const std::string backend = job.text("parallelism.expert_parallel_comm_backend", "standard");
    ExpertParallel ep;
    if (backend == "deepep" || backend == "hybridep") {
        ep.dedup = Dedup::node;
        ep.dispatcher = TokenDispatcher::flex;
    }
    if (backend != "standard" && ep.dedup == Dedup::none)
        job.leave(*job.find("parallelism.expert_parallel_comm_backend"),
                  "not modelled: an all-to-all with a copy for each expert");
    plan.layer = ep;
    plan.parallel.expert_tensor_parallel_size =
        job.integer_or("parallelism.expert_tensor_parallel_degree", 1, 1, 1 << 20);
}

}  // namespace

std::string torchtitan_preset(const Job& job) {
    constexpr std::array<std::array<std::string_view, 2>, 10> presets = {
        {{"deepseek_v3 671B", "deepseek_v3"},
         {"deepseek_v3_671b", "deepseek_v3"},
         {"qwen3 30B-A3B", "qwen3_30b_a3b"},
         {"qwen3_30b_a3b", "qwen3_30b_a3b"},
         {"qwen3 235B-A22B", "qwen3_235b_a22b"},
         {"qwen3_235b_a22b", "qwen3_235b_a22b"},
         {"gpt_oss 20b", "gpt_oss_20b"},
         {"gpt_oss_20b", "gpt_oss_20b"},
         {"gpt_oss 120b", "gpt_oss_120b"},
         {"gpt_oss_120b", "gpt_oss_120b"}}};
    const std::string flavor = job.text("model.name") + " " + job.text("model.flavor"),
                      config = job.text("config");
    (void)job.has("module");
    for (const auto& [name, preset] : presets) {
        if (name == flavor || (!config.empty() && name == config)) return std::string(preset);
    }
    return "";
}

void fill_from_torchtitan(const Job& job, const Given& given, Scenario& scenario) {
    Plan plan;
    plan.name = "ep";
    // Compiled blocks are taken for fused kernels.
    const Setting* compiled = job.find("compile.enable");
    if (compiled == nullptr) compiled = job.find("training.compile");
    const bool compiles = job.flag("compile.enable") || job.flag("training.compile");
    plan.implementation = compiles ? Implementation::fused : Implementation::torch;
    if (compiles)
        job.leave(*compiled, "not modelled: blocks are fused kernels whose launches cost nothing");
    Parallel& parallel = plan.parallel;
    if (given.model != nullptr) scenario.model = *given.model;
    if (given.vocab_size) scenario.model.vocab_size = *given.vocab_size;
    parallel.tensor_model_parallel_size = degree(job, "tensor_parallel_degree");
    const bool sequence = job.flag("parallelism.enable_sequence_parallel", true);
    parallel.sequence_parallel = sequence && parallel.tensor_model_parallel_size > 1;
    parallel.tp_comm_overlap =
        job.flag("parallelism.enable_async_tensor_parallel") && parallel.sequence_parallel;
    parallel.context_parallel_size = degree(job, "context_parallel_degree");
    const std::string rotate = job.text("parallelism.context_parallel_rotate_method", "allgather");
    parallel.cp_comm_type = rotate == "alltoall" ? CpCommType::p2p : CpCommType::all_gather;
    (void)job.has("parallelism.context_parallel_load_balancer");
    if (parallel.context_parallel_size == 1) parallel.cp_comm_type = CpCommType::p2p;
    fill_pipeline(job, scenario.model.num_layers, parallel);
    fill_expert_degree(job, plan);
    const int model_ranks = parallel.tensor_model_parallel_size * parallel.context_parallel_size *
                            parallel.pipeline_model_parallel_size;
    const bool fits = given.num_ranks % model_ranks == 0;
    if (!fits)
        job.refuse(nullptr,
                   fmt::format("{} GPUs for parallelism over {}", given.num_ranks, model_ranks),
                   "a multiple of it", "--gpus N says how many there are");
    const int world_of_data = fits ? given.num_ranks / model_ranks : 0;
    fill_degrees(job, world_of_data, plan);
    fill_recompute_mode(job, plan);
    fill_tokens(job, world_of_data, parallel, scenario.batch);
    const std::string dtype = job.text("training.dtype", "float32");
    (void)job.has("training.mixed_precision_reduce");
    if (job.text("training.mixed_precision_param", "bfloat16") == "float32")
        scenario.model.dtype = Dtype::fp32;
    if (dtype == "bfloat16")
        plan.main_params_dtype = plan.main_grads_dtype = plan.exp_avg_dtype =
            plan.exp_avg_sq_dtype = Dtype::bf16;
    std::string optimizer = job.text("optimizer.name", "AdamW");
    if (optimizer != "AdamW" && optimizer != "Adam")
        job.leave(*job.find("optimizer.name"), "not modelled: the states and the step are AdamW's");
    if (!job.flag("debug.moe_force_load_balance"))
        job.assume(
            "experts are equally popular, as the balancing of the job aims at; recorded counts go "
            "under routing.skew");
    for (const auto& [key, name] : std::initializer_list<std::array<std::string_view, 2>>{
             {"plans[0].group_size", "parallelism.expert_parallel_degree"},
             {"plans[0].parallel.tensor_model_parallel_size", "parallelism.tensor_parallel_degree"},
             {"plans[0].parallel.context_parallel_size", "parallelism.context_parallel_degree"},
             {"plans[0].parallel.pipeline_model_parallel_size",
              "parallelism.pipeline_parallel_degree"},
             {"plans[0].parallel.pipeline_schedule", "parallelism.pipeline_parallel_schedule"},
             {"plans[0].parallel.expert_tensor_parallel_size",
              "parallelism.expert_tensor_parallel_degree"}})
        job.gives(key, name);
    scenario.plans.push_back(std::move(plan));
}

}  // namespace headway::inline importing
