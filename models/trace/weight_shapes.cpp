#include "models/trace/weight_shapes.hpp"

#include <algorithm>
#include <variant>

namespace headway::inline trace {
namespace {

bool is_product_of_matrices(const std::vector<Shape>& operands) {
    return operands.size() == 2 && operands[0].size() >= 2 && operands[1].size() >= 2;
}

}  // namespace

WeightShapes::WeightShapes(const ModelSpec& model, const Plan& plan) {
    const double t = plan.parallel.tensor_model_parallel_size,
                 e = plan.parallel.expert_tensor_parallel_size, d = model.hidden;
    const Moe& moe = model.moe;
    add_attention(model, t);
    add_feed_forward(Phase::dense_mlp, d, model.dense_width / t, model.dense_activation);
    add_feed_forward(Phase::shared_expert, d, moe.num_shared_experts * moe.shared_expert_width / t,
                     moe.activation);
    add(Phase::lm_head, d, model.vocab_size / t);
    if (const auto* heads = std::get_if<HeadParallel>(&plan.layer)) {
        const double columns = static_cast<double>(heads->num_heads) * heads->head_width;
        add(Phase::head_project, d, columns);
        add(Phase::head_merge, columns, d);
        add(Phase::route, heads->head_width, heads->num_experts);
        add_feed_forward(Phase::expert, heads->head_width, heads->expert_width, moe.activation);
        return;
    }
    const auto* experts = std::get_if<ExpertParallel>(&plan.layer);
    const bool latent = experts != nullptr && experts->latent_width;
    const double width = latent ? *experts->latent_width : model.hidden;
    if (latent) {
        add(Phase::latent_down, d, width);
        add(Phase::latent_up, width, d);
    }
    add(Phase::route, d, moe.num_experts);
    add_feed_forward(Phase::expert, width, moe.expert_width / e, moe.activation);
}

void WeightShapes::add(Phase phase, double in, double out) {
    if (in >= 1.0 && out >= 1.0)
        weights_.push_back({static_cast<std::int64_t>(in), static_cast<std::int64_t>(out), phase});
}

// Projections one by one, and those of one input in one matrix.
void WeightShapes::add_attention(const ModelSpec& model, double tp) {
    const Attention& a = model.attention;
    const double d = model.hidden, heads = a.num_heads / tp, gate = a.output_gate ? 1.0 : 0.0;
    if (const auto& l = a.latent) {
        const double wide = heads * (l->nope_width + l->rope_width);
        add(Phase::attention_qkv, d, l->query_rank);
        add(Phase::attention_qkv, d, l->kv_rank + l->rope_width);
        add(Phase::attention_qkv, d, l->query_rank + l->kv_rank + l->rope_width);
        add(Phase::attention_qkv, l->query_rank > 0 ? l->query_rank : d, wide);
        add(Phase::attention_qkv, l->kv_rank, heads * (l->nope_width + l->value_width));
        add(Phase::attention_out, heads * l->value_width, d);
        return;
    }
    const double query = heads * a.head_width,
                 kv = std::max(a.num_kv_heads / tp, 1.0) * a.head_width;
    add(Phase::attention_qkv, d, query);
    add(Phase::attention_qkv, d, kv);
    add(Phase::attention_qkv, d, 2.0 * kv);
    add(Phase::attention_qkv, d, (1.0 + gate) * query + 2.0 * kv);
    add(Phase::attention_out, query, d);
}

void WeightShapes::add_feed_forward(Phase phase, double in, double width, Activation activation) {
    add(phase, in, width);
    if (is_gated(activation)) add(phase, in, 2.0 * width);
    add(phase, width, in);
}

std::vector<Phase> WeightShapes::fitting(std::int64_t in, std::int64_t out, bool in_order) const {
    std::vector<Phase> phases;
    for (const Weight& w : weights_) {
        const bool fits = (w.in == in && w.out == out) || (!in_order && w.in == out && w.out == in);
        if (fits && std::ranges::find(phases, w.phase) == phases.end()) phases.push_back(w.phase);
    }
    return phases;
}

std::vector<Phase> WeightShapes::of_forward(const std::vector<Shape>& operands) const {
    if (!is_product_of_matrices(operands)) return {};
    const Shape& b = operands[1];
    return fitting(b[b.size() - 2], b[b.size() - 1], true);
}

std::vector<Phase> WeightShapes::of_any(const std::vector<Shape>& operands) const {
    if (!is_product_of_matrices(operands)) return {};
    const Shape &a = operands[0], &b = operands[1];
    std::vector<Phase> phases = fitting(b[b.size() - 2], b[b.size() - 1], false);
    if (phases.empty()) phases = fitting(a[a.size() - 2], b[b.size() - 1], false);
    return phases;
}

}  // namespace headway::inline trace
