#include "models/cost/memory.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "models/workload/layout.hpp"
#include "models/workload/parameters.hpp"

namespace headway::inline cost {
namespace {

// Saved for backward by one MoE layer's feed-forward part, in bytes.
double moe_activations(const Scenario& scenario, const Plan& plan, const ExpertLayout& layout,
                       const GroupLoad& load) {
    const ModelSpec& model = scenario.model;
    const double b = bytes_per_element(model.dtype),
                 tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    const double copy = layout.width * b, pre = is_gated(model.moe.activation) ? 2.0 : 1.0;
    const double choices =
        8.0 * layout.tokens_per_rank * layout.router.top_k;  // int32 id and fp32 gate
    double shared =
        tokens * model.moe.num_shared_experts * model.moe.shared_expert_width * b * (pre + 1.0);
    if (plan.recompute != Recompute::none) shared *= pre / (pre + 1.0);
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        // The fused experts keep no hidden rows: the scattered sub-tokens in, the merged rows
        // before the last projection.
        const double rows = tokens * hp->num_heads * copy;
        const double copies = layout.group_size > 1 ? load.copies_received * copy : 0.0;
        return 2.0 * rows + copies + choices + shared;
    }
    const double rows = load.rows_max;
    // Experts' inputs, pre-activations, hidden rows; the copies that came back, for the gates'
    // gradient.
    double hidden = rows * layout.expert_width * b * (pre + 1.0);
    if (plan.recompute == Recompute::activation) hidden *= pre / (pre + 1.0);
    if (plan.recompute == Recompute::moe) hidden = 0.0;
    return rows * copy + hidden + load.copies_sent * copy + choices + shared;
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

}  // namespace

PlanMemory predict_memory(const Scenario& scenario, const Plan& plan,
                          const std::vector<GroupLoad>& loads) {
    const ModelSpec& model = scenario.model;
    const ExpertLayout layout = expert_layout(scenario, plan);
    const ParameterCount count = count_parameters(model, plan);
    const int world = scenario.cluster.num_ranks(), replicas = world / plan.group_size;
    const double b = bytes_per_element(model.dtype),
                 tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    const double experts = count.experts / plan.group_size, dense = count.replicated();
    const double owned = plan.zero1 ? dense / world + experts / replicas : dense + experts;
    const double state =
        plan.optimizer == Optimizer::adamw_fp32 ? 12.0 : 6.0;  // master and two moments

    const int sparse = model.num_layers - model.num_dense_layers;
    const double layer_input = tokens * model.hidden * b;
    double moe = 0.0, largest_arrival = 0.0, largest_rows = 0.0;
    for (const GroupLoad& load : loads) {
        moe += moe_activations(scenario, plan, layout, load) / static_cast<double>(loads.size());
        largest_arrival = std::max(largest_arrival, load.copies_received + load.copies_sent);
        largest_rows = std::max(largest_rows, load.rows_max);
    }
    const double dense_pre = is_gated(model.dense_activation) ? 3.0 : 2.0;
    const double dense_mlp = model.num_dense_layers * tokens * model.dense_width * b * dense_pre;
    const bool full = plan.recompute == Recompute::full;
    // A full recompute keeps the input of every layer and the working set of one.
    const double kept_layers = full ? 1.0 : sparse, kept_attention = full ? 1.0 : model.num_layers;

    PlanMemory memory{.capacity = scenario.cluster.device.memory};
    const auto add = [&](std::string item, double bytes) {
        if (bytes <= 0.0) return;
        memory.items.push_back({std::move(item), bytes * byte});
        memory.peak += bytes * byte;
    };
    add("parameters", b * (dense + experts));
    add("gradients (fp32)", 4.0 * (dense + experts));
    add("optimizer states", state * owned);
    add("activations: attention and norms", kept_attention * attention_activations(scenario));
    add("activations: MoE", kept_layers * moe);
    add("activations: dense feed-forward", full && sparse > 0 ? 0.0 : dense_mlp);
    add("activations: layer inputs", full ? model.num_layers * layer_input : 0.0);
    // Logits and their gradient share a buffer; the loss works in fp32 on slices of it.
    add("logits", tokens * model.vocab_size * b * 2.0);
    if (plan.group_size > 1) {
        // Send and receive buffers of one exchange, at the busiest rank.
        const bool heads = plan.is_head_parallel();
        const double exchanged =
            heads ? 2.0 * tokens * std::get<HeadParallel>(plan.layer).num_heads : 0.0;
        add("communication buffers",
            (exchanged + (layout.group_size > 1 ? largest_arrival : 0.0)) * layout.width * b);
    }
    // Gradients of hidden rows while one layer's backward runs.
    const double pre = is_gated(model.moe.activation) ? 2.0 : 1.0;
    add("workspace", plan.is_head_parallel()
                         ? largest_rows * layout.width * b * 2.0
                         : largest_rows * (layout.expert_width * (pre + 1.0) + layout.width) * b);
    return memory;
}

}  // namespace headway::inline cost
