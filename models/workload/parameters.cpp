#include "models/workload/parameters.hpp"

#include <algorithm>
#include <variant>

namespace headway::inline workload {

double attention_parameters(const ModelSpec& model) {
    const Attention& a = model.attention;
    const double d = model.hidden, heads = a.num_heads;
    if (!a.latent) {
        const double gate = a.output_gate ? heads : 0.0;
        return d * a.head_width * (heads + gate + 2.0 * a.num_kv_heads) + heads * a.head_width * d;
    }
    const LatentAttention& l = *a.latent;
    const double query_width = heads * (l.nope_width + l.rope_width);
    const double query =
        l.query_rank > 0 ? d * l.query_rank + l.query_rank * query_width : d * query_width;
    const double key_value =
        d * (l.kv_rank + l.rope_width) + l.kv_rank * heads * (l.nope_width + l.value_width);
    const double gate = a.output_gate ? d * heads * l.value_width : 0.0;
    return query + key_value + gate + heads * l.value_width * d;
}

ParameterCount count_parameters(const ModelSpec& model) {
    const Moe& moe = model.moe;
    const double d = model.hidden, layers = model.num_layers, sparse = model.num_moe_layers();
    const double matrices = matrices_per_expert(moe.activation);
    ParameterCount count;
    count.embedding = double{1} * model.vocab_size * d;
    count.lm_head = model.tied_embeddings ? 0.0 : count.embedding;
    count.attention = layers * attention_parameters(model);
    count.dense_mlp =
        (layers - sparse) * matrices_per_expert(model.dense_activation) * d * model.dense_width;
    count.router = sparse * d * moe.num_experts;
    count.experts = sparse * matrices * d * moe.num_experts * moe.expert_width;
    count.shared_experts = sparse * matrices * d * moe.num_shared_experts * moe.shared_expert_width;
    return count;
}

ParameterCount count_parameters(const ModelSpec& model, const Plan& plan) {
    ParameterCount count = count_parameters(model);
    const double d = model.hidden, sparse = model.num_moe_layers();
    const double matrices = matrices_per_expert(model.moe.activation);
    if (const auto* heads = std::get_if<HeadParallel>(&plan.layer)) {
        const double width = double{1} * heads->num_heads * heads->head_width;
        count.router = sparse * width * heads->num_experts;
        count.experts = sparse * matrices * width * heads->num_experts * heads->expert_width;
        count.projections = sparse * 2.0 * d * width;
    } else if (const auto& ep = std::get<ExpertParallel>(plan.layer); ep.latent_width) {
        count.experts *= *ep.latent_width / d;
        count.projections = sparse * 2.0 * d * *ep.latent_width;
    }
    return count;
}

double active_parameters(const ModelSpec& model, const Plan& plan) {
    const ParameterCount count = count_parameters(model, plan);
    const auto* hp = std::get_if<HeadParallel>(&plan.layer);
    const double chosen = hp != nullptr
                              ? static_cast<double>(hp->top_k) / hp->num_experts
                              : static_cast<double>(model.moe.top_k) / model.moe.num_experts;
    return count.total() - count.experts * (1.0 - chosen) -
           (model.tied_embeddings ? 0.0 : count.embedding);
}

namespace {

// Attention weights of one layer on one of t tensor-parallel ranks.
double attention_parameters(const ModelSpec& model, double t) {
    const Attention& a = model.attention;
    const double d = model.hidden;
    if (a.latent) {
        const LatentAttention& l = *a.latent;
        const double everywhere = d * (l.query_rank + l.kv_rank + l.rope_width);
        return everywhere + (attention_parameters(model) - everywhere) / t;
    }
    const double kv_heads = std::max(1.0, a.num_kv_heads / t);
    const double of_kv = 2.0 * d * a.head_width;  // of one key/value head
    return (attention_parameters(model) - of_kv * a.num_kv_heads) / t + of_kv * kv_heads;
}

}  // namespace

RankParameters layer_parameters(const ModelSpec& model, const Plan& plan, const Mesh& mesh,
                                bool is_moe) {
    const double t = mesh.tp, sparse = model.num_moe_layers();
    RankParameters sum{.dense = attention_parameters(model, t), .experts = 0};
    if (!is_moe) {
        sum.dense += matrices_per_expert(model.dense_activation) * double{1} * model.hidden *
                     model.dense_width / t;
        return sum;
    }
    const ParameterCount count = count_parameters(model, plan);
    sum.dense += (count.router + count.projections + count.shared_experts / t) / sparse;
    sum.experts = count.experts / sparse / mesh.ep / mesh.etp;
    return sum;
}

RankParameters chunk_parameters(const ModelSpec& model, const Plan& plan, const Mesh& mesh,
                                const PipelineStage& chunk) {
    int sparse = 0;
    for (int i = 0; i < chunk.num_layers; ++i) sparse += model.is_moe_layer(chunk.first_layer + i);
    RankParameters sum;
    const auto add = [&](int layers, bool is_moe) {
        if (layers == 0) return;
        const RankParameters one = layer_parameters(model, plan, mesh, is_moe);
        sum += {layers * one.dense, layers * one.experts};
    };
    add(sparse, true);
    add(chunk.num_layers - sparse, false);
    const double table = double{1} * model.vocab_size * model.hidden / mesh.tp;
    if (chunk.embedding) sum.dense += table;
    // A tied head is the embedding, unless it lies on another stage.
    if (chunk.head_and_loss && !(model.tied_embeddings && chunk.embedding)) sum.dense += table;
    return sum;
}

double active_parameters(const ModelSpec& model) {
    return active_parameters(model, {.layer = ExpertParallel{}});
}

}  // namespace headway::inline workload
