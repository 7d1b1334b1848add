#include "models/sweep/layouts.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "models/scenario/divisors.hpp"
#include "models/workload/stages.hpp"

namespace headway::inline sweep {
namespace {

constexpr int kLongSequence = 16384;
constexpr std::array kContexts = {1, 2, 4, 8, 16};
constexpr std::array kVirtual = {1, 2, 3, 4, 6, 8};

// Stages hold at least a layer each, but for the two at the ends.
bool has_layers_for(const ModelSpec& model, int stages) {
    return stages <= model.num_layers + 2;
}

void add_schedules(Parallel layout, std::vector<Parallel>& layouts) {
    const bool pipelined = layout.pipeline_model_parallel_size > 1;
    layouts.push_back(layout);
    // Megatron overlaps exchanges with another micro-batch without a pipeline or between chunks.
    if (pipelined && layout.virtual_pipeline_model_parallel_size == 1) return;
    layout.overlap_moe_expert_parallel_comm = true;
    layouts.push_back(layout);
}

// The sizes of two levels are of one number of ranks: of others a ring is tried.
void one_level(Parallel& layout) {
    if (layout.cp_comm_type != CpCommType::a2a_p2p) return;
    layout.cp_comm_type = CpCommType::p2p;
    layout.hierarchical_context_parallel_sizes = {};
}

std::string repeated(const std::string& letter, int count) {
    if (count <= 2) {
        std::string text;
        for (int i = 0; i < count; ++i) text += letter;
        return text;
    }
    return fmt::format("{}*{}", letter, count);
}

}  // namespace

std::string even_layout(const ModelSpec& model, int stages) {
    const int mtp = model.mtp_num_layers;
    if (stages <= 1 || (mtp == 0 && model.num_layers % stages == 0)) return "";
    // Units: embedding, layers, those of multi-token prediction, head; earlier stages take what is
    // over.
    const int units = model.all_layers() + 2, least = units / stages, over = units % stages;
    std::vector<std::string> parts;
    int left = model.num_layers;
    for (int i = 0; i < stages; ++i) {
        int layers = least + (i < over ? 1 : 0);
        std::string part;
        if (i == 0) {
            part = "E";
            --layers;
        }
        // The last one's are with the head's unit and its own.
        layers = i + 1 == stages ? left : std::min(layers, left);
        left -= layers;
        part += repeated("t", layers);
        if (i + 1 == stages) part += repeated("m", mtp) + "L";
        parts.push_back(part);
    }
    return fmt::format("{}", fmt::join(parts, "|"));
}

std::vector<Parallel> layouts_of(const Scenario& scenario, const Plan& like) {
    const ModelSpec& model = scenario.model;
    const int world = scenario.cluster.num_ranks();
    std::vector<Parallel> layouts;
    for (const int t : divisors(scenario.cluster.gpus_per_node)) {
        if (model.attention.num_heads % t != 0 || t > 8) continue;
        // Experts whole, or cut as the dense layers are (Megatron's default).
        std::vector<int> expert_widths = {1};
        if (t > 1 && !like.is_head_parallel()) expert_widths.push_back(t);
        for (const int c : kContexts) {
            if (c > 1 && scenario.batch.sequence_length < kLongSequence) break;
            for (const int p : divisors(world / t)) {
                if (p > 1 && !has_layers_for(model, p)) break;
                if (world % (t * c * p) != 0) continue;
                for (const int v : kVirtual) {
                    if (v > 1 && (p == 1 || !has_layers_for(model, p * v))) break;
                    Parallel layout = like.parallel;
                    layout.tensor_model_parallel_size = t;
                    layout.sequence_parallel = t > 1;
                    layout.tp_comm_overlap = t > 1 && model.attention.has_user_buffers();
                    layout.context_parallel_size = c;
                    if (c != like.parallel.context_parallel_size) one_level(layout);
                    layout.pipeline_model_parallel_size = p;
                    layout.virtual_pipeline_model_parallel_size = v;
                    layout.pipeline_model_parallel_layout = even_layout(model, p * v);
                    layout.pipeline_schedule.reset();
                    layout.microbatch_group_size_per_vp_stage = 0;
                    layout.overlap_moe_expert_parallel_comm = false;
                    if (!pipeline_layout_broken(model, layout).empty()) continue;
                    for (const int e : expert_widths) {
                        layout.expert_tensor_parallel_size = e;
                        add_schedules(layout, layouts);
                    }
                }
            }
        }
    }
    return layouts;
}

std::string layout_text(const Parallel& p) {
    std::vector<std::string> parts;
    if (p.tensor_model_parallel_size > 1)
        parts.push_back(fmt::format("TP {}", p.tensor_model_parallel_size));
    if (p.expert_tensor_parallel_size > 1)
        parts.push_back(fmt::format("ETP {}", p.expert_tensor_parallel_size));
    if (p.context_parallel_size > 1) parts.push_back(fmt::format("CP {}", p.context_parallel_size));
    if (p.pipeline_model_parallel_size > 1) {
        parts.push_back(fmt::format("PP {}", p.pipeline_model_parallel_size));
        if (p.virtual_pipeline_model_parallel_size > 1)
            parts.back() += fmt::format(" x {} chunks", p.virtual_pipeline_model_parallel_size);
    }
    if (p.overlap_moe_expert_parallel_comm) parts.push_back("exchange overlap");
    return fmt::format("{}", fmt::join(parts, ", "));
}

namespace {

void add_offload_flags(const Offload& offload, std::vector<std::string>& flags) {
    if (offload.modules != 0) {
        flags.emplace_back("--fine-grained-activation-offloading --offload-modules");
        for (std::size_t m = 0; m < kOffloadModuleNames.size(); ++m)
            if (offload.has(static_cast<OffloadModule>(m)))
                flags.emplace_back(kOffloadModuleNames[m]);
    }
    if (offload.cpu_offloading_num_layers > 0)
        flags.push_back(
            fmt::format("--cpu-offloading-num-layers {}", offload.cpu_offloading_num_layers));
    if (!offload.optimizer_cpu_offload) return;
    flags.push_back(fmt::format("--optimizer-cpu-offload --optimizer-offload-fraction {}",
                                offload.optimizer_offload_fraction));
    if (offload.use_precision_aware_optimizer)
        flags.emplace_back("--use-precision-aware-optimizer");
    if (offload.overlap_cpu_optimizer_d2h_h2d)
        flags.emplace_back("--overlap-cpu-optimizer-d2h-h2d");
}

}  // namespace

std::string megatron_flags(const Plan& plan, const Batch& batch, std::int64_t global_batch_size) {
    const Parallel& p = plan.parallel;
    std::vector<std::string> flags;
    const auto add = [&](const char* flag, auto value) {
        flags.push_back(fmt::format("--{} {}", flag, value));
    };
    add("tensor-model-parallel-size", p.tensor_model_parallel_size);
    if (p.sequence_parallel) flags.emplace_back("--sequence-parallel");
    if (p.tp_comm_overlap) flags.emplace_back("--tp-comm-overlap");
    if (p.context_parallel_size > 1) {
        add("context-parallel-size", p.context_parallel_size);
        add("cp-comm-type", kCpCommTypeNames[static_cast<std::size_t>(p.cp_comm_type)]);
        if (p.cp_comm_type == CpCommType::a2a_p2p)
            flags.push_back(fmt::format("--hierarchical-context-parallel-sizes {}",
                                        fmt::join(p.hierarchical_context_parallel_sizes, " ")));
    }
    add("pipeline-model-parallel-size", p.pipeline_model_parallel_size);
    if (!p.pipeline_model_parallel_layout.empty())
        flags.push_back(
            fmt::format("--pipeline-model-parallel-layout '{}'", p.pipeline_model_parallel_layout));
    else if (p.virtual_pipeline_model_parallel_size > 1)
        add("num-virtual-stages-per-pipeline-rank", p.virtual_pipeline_model_parallel_size);
    add("expert-model-parallel-size", plan.group_size);
    add("expert-tensor-parallel-size", p.expert_tensor_parallel_size);
    if (p.overlap_moe_expert_parallel_comm)
        flags.emplace_back("--overlap-moe-expert-parallel-comm");
    if (plan.overlap_grad_all_reduce) flags.emplace_back("--overlap-grad-reduce");
    switch (p.data_parallel_sharding_strategy) {
        case DataParallelSharding::no_shard:
            break;
        case DataParallelSharding::optim:
            flags.emplace_back("--use-distributed-optimizer");
            if (plan.overlap_param_gather) flags.emplace_back("--overlap-param-gather");
            break;
        default:
            flags.emplace_back("--use-megatron-fsdp");
            add("data-parallel-sharding-strategy",
                kDataParallelShardingNames[static_cast<std::size_t>(
                    p.data_parallel_sharding_strategy)]);
    }
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    if (ep != nullptr && plan.group_size * p.expert_tensor_parallel_size > 1) {
        if (ep->dedup == Dedup::none)
            add("moe-token-dispatcher-type",
                kTokenDispatcherNames[static_cast<std::size_t>(ep->dispatcher)]);
        else
            flags.emplace_back(
                "--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend deepep");
    }
    add_offload_flags(plan.offload, flags);
    add("micro-batch-size", batch.sequences_per_rank);
    add("global-batch-size", global_batch_size);
    return fmt::format("{}", fmt::join(flags, " "));
}

std::string torchtitan_flags(const Plan& plan, const Batch& batch, const Mesh& mesh) {
    const Parallel& p = plan.parallel;
    std::vector<std::string> flags;
    const auto add = [&](const char* flag, auto value) {
        flags.push_back(fmt::format("--{} {}", flag, value));
    };
    const bool shards =
        p.data_parallel_sharding_strategy == DataParallelSharding::optim_grads_params;
    add("parallelism.data_parallel_replicate_degree", shards ? 1 : mesh.dp);
    add("parallelism.data_parallel_shard_degree", shards ? mesh.dp : 1);
    add("parallelism.tensor_parallel_degree", mesh.tp);
    if (mesh.cp > 1) add("parallelism.context_parallel_degree", mesh.cp);
    if (mesh.pp > 1) {
        add("parallelism.pipeline_parallel_degree", mesh.pp);
        add("parallelism.pipeline_parallel_schedule",
            p.virtual_pipeline_model_parallel_size > 1 ? "Interleaved1F1B" : "1F1B");
        add("parallelism.pipeline_parallel_microbatch_size", batch.sequences_per_rank);
    }
    add("parallelism.expert_parallel_degree", mesh.ep);
    add("training.local_batch_size",
        batch.sequences_per_rank * (mesh.pp > 1 ? batch.num_micro_batches : 1));
    std::string text = fmt::format("{}", fmt::join(flags, " "));
    if (mesh.etp > 1) text += "  (it does not cut experts by width)";
    if (p.overlap_moe_expert_parallel_comm) text += "  (it does not overlap exchanges so)";
    if (p.data_parallel_sharding_strategy == DataParallelSharding::optim)
        text += "  (it has no ZeRO-1 beside FSDP: memory differs)";
    if (plan.offload.is_any()) text += "  (it offloads all that FSDP shards, or nothing)";
    return text;
}

}  // namespace headway::inline sweep
