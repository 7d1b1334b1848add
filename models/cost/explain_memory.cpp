#include "models/cost/explain_memory.hpp"

#include <fmt/format.h>

#include <string>

#include "models/cost/memory.hpp"
#include "models/cost/predict.hpp"
#include "models/workload/saved_tensors.hpp"

namespace headway::inline cost {
namespace {

std::string size_text(double bytes) {
    const Bytes size = bytes * byte;
    return bytes < 1073741824.0 ? fmt::format("{:.1f} MiB", size.in(MiB))
                                : fmt::format("{:.2f} GiB", size.in(GiB));
}

std::string modules_text(RecomputeModules modules) {
    Recompute some;
    some.granularity = RecomputeGranularity::selective;
    some.modules = modules;
    return recompute_text(some);
}

void add_layer(const std::string& name, const std::vector<SavedTensor>& tensors, const Plan& plan,
               double tokens, Explanation& out) {
    const Recompute& recompute = plan.recompute;
    const bool whole = plan.offload.cpu_offloading_num_layers > 0;
    out.lines.emplace_back(name, "bytes a token of the micro-batch; size on the busiest rank");
    for (const SavedTensor& t : tensors) {
        const RecomputeModules by = t.unless & recompute.selected();
        std::string text = fmt::format("{:9.0f} B {:>12}", t.bytes / tokens, size_text(t.bytes));
        if (by != 0u)
            text += "  computed again: " + modules_text(by);
        else if (is_offloaded(t, plan, whole))
            text += "  to the host";
        else if (t.unless != 0u)
            text += "  unless recomputed: " + modules_text(t.unless);
        out.lines.emplace_back("  " + std::string(t.name), text);
    }
    const LayerMemory sum = layer_memory(tensors, plan, whole);
    const double kept = recompute.is_full() ? sum.input : sum.kept[0] + sum.kept[1] + sum.kept[2];
    out.lines.emplace_back(
        "  in all",
        fmt::format("{:9.0f} B {:>12}, {} of them kept{}", sum.all / tokens, size_text(sum.all),
                    size_text(kept),
                    sum.offloaded > 0.0 ? ", " + size_text(sum.offloaded) + " on the host" : ""));
}

void add_stage(const std::string& name, const StageMemory& stage, Explanation& out) {
    out.lines.emplace_back(
        name, fmt::format("{} allocated, {} with reserve", size_text(stage.allocated.in(byte)),
                          size_text(stage.peak.in(byte))));
    for (const MemoryItem& item : stage.items)
        out.lines.emplace_back("  " + item.name,
                               fmt::format("{:>24}", size_text(item.bytes.in(byte))));
    for (const MemoryItem& item : stage.host_items)
        out.lines.emplace_back("  in host memory: " + item.name,
                               fmt::format("{:>24}", size_text(item.bytes.in(byte))));
}

}  // namespace

Explanation explain_memory(const Scenario& scenario, const Plan& plan) {
    const ModelSpec& model = scenario.model;
    const std::vector<GroupLoad> loads = plan_loads(scenario, plan, {});
    const PlanMemory memory = predict_memory(scenario, plan, loads);
    const double tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    Explanation out;
    out.lines.emplace_back("recompute", recompute_text(plan.recompute));
    if (const int layers = plan.offload.cpu_offloading_num_layers; layers > 0)
        out.lines.emplace_back(
            "offload", fmt::format("of the first {} of {} layers", layers, model.num_layers));
    if (model.num_moe_layers() > 0)
        add_layer("one MoE layer", saved_tensors(scenario, plan, &loads.front()), plan, tokens,
                  out);
    if (model.has_dense_layers())
        add_layer("one dense layer", saved_tensors(scenario, plan, nullptr), plan, tokens, out);
    if (model.mtp_num_layers > 0)
        add_layer(
            "one layer of multi-token prediction",
            saved_tensors(scenario, plan,
                          model.is_moe_layer(model.num_layers) ? &loads.back() : nullptr, true),
            plan, tokens, out);
    if (memory.stages.size() == 1) {
        add_stage("busiest rank", memory.stages.front(), out);
        return out;
    }
    out.lines.emplace_back("worst stage",
                           fmt::format("{} of 0 to {}", memory.stage, memory.stages.size() - 1));
    for (std::size_t i = 0; i < memory.stages.size(); ++i)
        add_stage(fmt::format("stage {}", i), memory.stages[i], out);
    return out;
}

}  // namespace headway::inline cost
