// Parameter counts of a model, in elements, per part. Biases and norm gains are left out (below 0.1
// % of any model here).
#pragma once

#include "models/vocab/mesh.hpp"
#include "models/vocab/model_spec.hpp"
#include "models/vocab/plan.hpp"
#include "models/workload/stages.hpp"

namespace headway::inline workload {

struct ParameterCount {
    double embedding = 0;  // V d, once
    double lm_head = 0;    // V d unless tied
    double attention = 0;  // all layers
    double dense_mlp = 0;  // all dense layers
    double router = 0;     // all MoE layers
    double experts = 0;    // routed experts of all MoE layers
    double shared_experts = 0;
    double projections = 0;  // latent or head projections that a plan adds

    double total() const {
        return embedding + lm_head + attention + dense_mlp + router + experts + shared_experts +
               projections;
    }
    // Replicated over the data-parallel ranks: everything but the routed experts.
    double replicated() const { return total() - experts; }
};

// Of the model itself (its EP layer at full width).
ParameterCount count_parameters(const ModelSpec& model);

// Of the model under a plan: LatentMoE and HP add projections and change routers and experts.
ParameterCount count_parameters(const ModelSpec& model, const Plan& plan);

// Parameters one token uses: all but the routed experts it did not choose. The embedding table is a
// look-up and does not count; published "active" figures follow this.
double active_parameters(const ModelSpec& model);
double active_parameters(const ModelSpec& model, const Plan& plan);

// Attention weights of one layer.
double attention_parameters(const ModelSpec& model);

// Of one rank: `dense` in its cut of the dense grid (tensor parallelism divides heads, widths and
// the vocabulary; routers, the down projections of latent attention and a plan's projections are on
// every rank), `experts` in its cut of the expert grid.
struct RankParameters {
    double dense = 0, experts = 0;

    RankParameters& operator+=(const RankParameters& other) {
        dense += other.dense;
        experts += other.experts;
        return *this;
    }
};
RankParameters layer_parameters(const ModelSpec& model, const Plan& plan, const Mesh& mesh,
                                bool is_moe);
// Layers of a chunk, and the embedding or the head where it has them.
RankParameters chunk_parameters(const ModelSpec& model, const Plan& plan, const Mesh& mesh,
                                const PipelineStage& chunk);

}  // namespace headway::inline workload
