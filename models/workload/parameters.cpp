#include "models/workload/parameters.hpp"

#include "models/workload/moe_layer.hpp"

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

double expert_biases(const Moe& moe, double width) {
    if (!moe.add_bias_linear) return 0.0;
    return (matrices_per_expert(moe.activation) - 1.0) * moe.expert_width + width;
}

ParameterCount count_parameters(const ModelSpec& model) {
    return count_parameters(model, {.layer = ExpertParallel{}});
}

ParameterCount count_parameters(const ModelSpec& model, const Plan& plan) {
    const Moe& moe = model.moe;
    const MoeParameters sparse = moe_layer_kind(plan).parameters(model, plan);
    const double d = model.hidden, layers = model.all_layers(), num_sparse = model.num_moe_layers();
    ParameterCount count;
    count.embedding = double{1} * model.vocab_size * d;
    count.lm_head = model.tied_embeddings ? 0.0 : count.embedding;
    count.attention = layers * attention_parameters(model);
    count.dense_mlp =
        (layers - num_sparse) * matrices_per_expert(model.dense_activation) * d * model.dense_width;
    count.router = num_sparse * sparse.router;
    count.experts = num_sparse * sparse.experts;
    count.shared_experts = num_sparse * matrices_per_expert(moe.activation) * d *
                           moe.num_shared_experts * moe.shared_expert_width;
    count.projections = num_sparse * sparse.projections;
    count.mtp = model.mtp_num_layers * 2.0 * d * d;
    return count;
}

RankParameters layer_parameters(const ModelSpec& model, const Plan& plan, int layer) {
    const Moe& moe = model.moe;
    const double d = model.hidden, t = plan.parallel.tensor_model_parallel_size,
                 e = plan.parallel.expert_tensor_parallel_size, n = plan.group_size;
    const auto& latent = model.attention.latent;
    // The down projections of latent attention are on every rank (Megatron-LM,
    // core/transformer/multi_latent_attention.py).
    RankParameters p;
    if (latent) p.whole = d * (latent->query_rank + latent->kv_rank + latent->rope_width);
    const double joined = model.is_mtp_layer(layer) ? 2.0 * d * d : 0.0;
    p.cut = (attention_parameters(model) - p.whole + joined) / t;
    if (!model.is_moe_layer(layer)) {
        p.cut += matrices_per_expert(model.dense_activation) * d * model.dense_width / t;
        return p;
    }
    p.cut += matrices_per_expert(moe.activation) * d * moe.num_shared_experts *
             moe.shared_expert_width / t;
    const MoeParameters sparse = moe_layer_kind(plan).parameters(model, plan);
    p.whole += sparse.router + sparse.projections;
    p.experts = sparse.experts / (n * e);
    return p;
}

RankParameters vocabulary_parameters(const ModelSpec& model, const Plan& plan) {
    return {.cut = double{1} * model.vocab_size * model.hidden /
                   plan.parallel.tensor_model_parallel_size};
}

RankParameters rank_parameters(const ModelSpec& model, const Plan& plan,
                               std::span<const PipelineStage> stages) {
    RankParameters sum;
    bool embedding = false, head = false;
    for (const PipelineStage& stage : stages) {
        for (int i = 0; i < stage.num_layers; ++i)
            sum += layer_parameters(model, plan, stage.first_layer + i);
        embedding = embedding || stage.embedding || stage.mtp_layers > 0;
        head = head || stage.head_and_loss;
    }
    if (embedding) sum += vocabulary_parameters(model, plan);
    if (head && !(model.tied_embeddings && embedding)) sum += vocabulary_parameters(model, plan);
    return sum;
}

double active_parameters(const ModelSpec& model, const Plan& plan) {
    const ParameterCount count = count_parameters(model, plan);
    const double chosen = moe_layer_kind(plan).parameters(model, plan).chosen;
    return count.total() - count.experts * (1.0 - chosen) -
           (model.tied_embeddings ? 0.0 : count.embedding);
}

double active_parameters(const ModelSpec& model) {
    return active_parameters(model, {.layer = ExpertParallel{}});
}

}  // namespace headway::inline workload
