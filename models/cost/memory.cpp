#include "models/cost/memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "models/workload/layout.hpp"
#include "models/workload/parameters.hpp"

namespace headway::inline cost {
namespace {

// One MoE layer's feed-forward part: what is saved for backward, and the rows that backward
// computes again, which are there while the layer is in work.
struct MoeActivations {
    double kept = 0.0, recomputed = 0.0;
};

MoeActivations moe_activations(const Scenario& scenario, const Plan& plan,
                               const ExpertLayout& layout, const GroupLoad& load) {
    const ModelSpec& model = scenario.model;
    const double b = bytes_per_element(model.dtype),
                 tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    const double copy = layout.width * b, pre = is_gated(model.moe.activation) ? 2.0 : 1.0;
    const double choices =
        8.0 * layout.tokens_per_rank * layout.router.top_k;  // int32 id and fp32 gate
    // Pre-activations and the hidden row behind them; a full recompute has all of one layer at
    // once.
    const bool partly = plan.recompute == Recompute::activation || plan.recompute == Recompute::moe;
    const double shared = tokens * model.moe.num_shared_experts * model.moe.shared_expert_width * b;
    MoeActivations result{.kept = choices + shared * (partly ? pre : pre + 1.0),
                          .recomputed = partly ? shared : 0.0};
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        // The fused experts keep no hidden rows: the scattered sub-tokens in, the merged rows
        // before the last projection.
        result.kept += 2.0 * tokens * hp->num_heads * copy;
        if (layout.group_size > 1) result.kept += load.copies_received * copy;
        return result;
    }
    // Experts' inputs; the copies that came back, for the gates' gradient; hidden rows.
    result.kept += load.rows_max * copy + load.copies_sent * copy;
    const double hidden = load.rows_max * layout.expert_width * b;
    double kept_of_hidden = pre + 1.0;
    if (plan.recompute == Recompute::activation) kept_of_hidden = pre;
    if (plan.recompute == Recompute::moe) kept_of_hidden = 0.0;
    result.kept += kept_of_hidden * hidden;
    result.recomputed += (pre + 1.0 - kept_of_hidden) * hidden;
    return result;
}

double attention_activations(const Scenario& scenario) {
    const ModelSpec& model = scenario.model;
    const Attention& a = model.attention;
    const double b = bytes_per_element(model.dtype),
                 tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    const double qk = a.latent ? a.latent->nope_width + a.latent->rope_width : a.head_width;
    const double v = a.latent ? a.latent->value_width : a.head_width;
    const double kv_heads = a.latent ? a.num_heads : a.num_kv_heads;
    const double latent =
        a.latent ? a.latent->query_rank + a.latent->kv_rank + a.latent->rope_width : 0;
    // Residual and normed row before each half, q, k, v, the core's output, log-sum-exp in fp32.
    const double widths =
        4.0 * model.hidden + a.num_heads * qk + kv_heads * (qk + v) + a.num_heads * v + latent;
    return tokens * (widths * b + 4.0 * a.num_heads);
}

struct Activations {
    double attention = 0.0, moe = 0.0, dense = 0.0, layer_inputs = 0.0, recomputed = 0.0;
};

Activations activations(const Scenario& scenario, const Plan& plan, const ExpertLayout& layout,
                        const std::vector<GroupLoad>& loads) {
    const ModelSpec& model = scenario.model;
    const double b = bytes_per_element(model.dtype),
                 tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    const int sparse = model.num_moe_layers(), num_dense = model.num_layers - sparse;
    double sum = 0.0, largest = 0.0, recomputed = 0.0;
    for (const GroupLoad& load : loads) {
        const MoeActivations moe = moe_activations(scenario, plan, layout, load);
        sum += moe.kept / static_cast<double>(loads.size());
        largest = std::max(largest, moe.kept);
        recomputed = std::max(recomputed, moe.recomputed);
    }
    const double dense = num_dense > 0 ? tokens * model.dense_width * b *
                                             (is_gated(model.dense_activation) ? 3.0 : 2.0)
                                       : 0.0;
    const double attention = attention_activations(scenario);
    if (plan.recompute != Recompute::full) {
        return {.attention = model.num_layers * attention,
                .moe = sparse * sum,
                .dense = num_dense * dense,
                .recomputed = sparse > 0 ? recomputed : 0.0};
    }
    // A full recompute keeps the input of every layer and all of the one in work.
    const bool moe_is_larger = sparse > 0 && largest >= dense;
    return {.attention = attention,
            .moe = moe_is_larger ? largest : 0.0,
            .dense = moe_is_larger ? 0.0 : dense,
            .layer_inputs = (model.num_layers - 1.0) * tokens * model.hidden * b};
}

// NCCL communicators of a rank: all ranks, the plan's group, its replicas, and the sharers of a
// head.
int num_communicators(const Scenario& scenario, const Plan& plan, const ExpertLayout& layout) {
    const int world = scenario.cluster.num_ranks(), group = plan.group_size;
    const bool replicas = group > 1 && world > group;
    const bool sharers = layout.group_size > 1 && layout.group_size < group;
    return (world > 1 ? 1 : 0) + (group > 1 ? 1 : 0) + (replicas ? 1 : 0) + (sharers ? 1 : 0);
}

// Buffers of one exchange at the busiest rank, and gradients of hidden rows while one layer's
// backward runs.
double buffer_bytes(const Scenario& scenario, const Plan& plan, const ExpertLayout& layout,
                    double largest_arrival) {
    if (plan.group_size == 1) return 0.0;
    const auto* hp = std::get_if<HeadParallel>(&plan.layer);
    const double tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    const double exchanged = hp != nullptr ? 2.0 * tokens * hp->num_heads : 0.0;
    return (exchanged + (layout.group_size > 1 ? largest_arrival : 0.0)) * layout.width *
           bytes_per_element(scenario.model.dtype);
}

double workspace_bytes(const Scenario& scenario, const Plan& plan, const ExpertLayout& layout,
                       double largest_rows) {
    const double b = bytes_per_element(scenario.model.dtype);
    const double pre = is_gated(scenario.model.moe.activation) ? 2.0 : 1.0;
    if (plan.is_head_parallel()) return largest_rows * layout.width * b * 2.0;
    return largest_rows * (layout.expert_width * (pre + 1.0) + layout.width) * b;
}

void add_item(PlanMemory& memory, std::string name, Bytes bytes) {
    if (!(bytes > Bytes{})) return;
    memory.items.push_back({std::move(name), bytes});
    memory.peak += bytes;
}

void add_reserve(const Scenario& scenario, int communicators, PlanMemory& memory) {
    const Reserve& reserve = scenario.cluster.reserve;
    memory.allocated = memory.peak;
    const double gaps = reserve.fragmentation / (1.0 - reserve.fragmentation);
    add_item(memory, "reserve: context", reserve.context);
    add_item(memory, "reserve: communicators", communicators * reserve.communicator);
    add_item(memory, "reserve: fragmentation", gaps * memory.allocated);
}

}  // namespace

PlanMemory predict_memory(const Scenario& scenario, const Plan& plan,
                          const std::vector<GroupLoad>& loads) {
    const ModelSpec& model = scenario.model;
    const ExpertLayout layout = expert_layout(scenario, plan);
    const ParameterCount count = count_parameters(model, plan);
    const int world = scenario.cluster.num_ranks(), replicas = world / plan.group_size;
    const double experts = count.experts / plan.group_size, dense = count.replicated();
    const double owned =
        shards_optimizer(plan) ? dense / world + experts / replicas : dense + experts;
    const Activations kept = activations(scenario, plan, layout, loads);
    double largest_arrival = 0.0, largest_rows = 0.0;
    const bool is_dense = model.num_dense_layers == model.num_layers;
    for (const GroupLoad& load : loads) {
        if (is_dense) break;  // nothing is exchanged
        largest_arrival = std::max(largest_arrival, load.copies_received + load.copies_sent);
        largest_rows = std::max(largest_rows, load.rows_max);
    }
    const double b = bytes_per_element(model.dtype),
                 tokens = static_cast<double>(scenario.batch.tokens_per_rank());

    PlanMemory memory{.capacity = scenario.cluster.device.memory};
    const auto add = [&](std::string item, double bytes) {
        add_item(memory, std::move(item), bytes * byte);
    };
    add("parameters", b * (dense + experts));
    add(fmt::format("gradients ({})", kDtypeNames[static_cast<std::size_t>(plan.main_grads_dtype)]),
        bytes_per_element(plan.main_grads_dtype) * (dense + experts));
    add("optimizer states", (master_bytes(plan) + moment_bytes(plan)) * owned);
    add("activations: attention and norms", kept.attention);
    add("activations: MoE", kept.moe);
    add("activations: dense feed-forward", kept.dense);
    add("activations: layer inputs", kept.layer_inputs);
    add("recomputed rows of one layer", kept.recomputed);
    // Logits and their gradient share a buffer; the loss works in fp32 on slices of it.
    add("logits", tokens * model.vocab_size * b * 2.0);
    add("communication buffers",
        is_dense ? 0.0 : buffer_bytes(scenario, plan, layout, largest_arrival));
    add("workspace", workspace_bytes(scenario, plan, layout, largest_rows));
    add_reserve(scenario, num_communicators(scenario, plan, layout), memory);
    return memory;
}

}  // namespace headway::inline cost
