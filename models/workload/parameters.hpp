// Parameter counts of a model, in elements, per part. Biases and norm gains are left out (below 0.1
// % of any model here).
#pragma once

#include <span>

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
    double mtp = 0;          // what multi-token prediction adds to its layers: 2 d to d

    double total() const {
        return embedding + lm_head + attention + dense_mlp + router + experts + shared_experts +
               projections + mtp;
    }
    // Replicated over the data-parallel ranks: everything but the routed experts.
    double replicated() const { return total() - experts; }
};

// Counts the model itself (its EP layer at full width).
ParameterCount count_parameters(const ModelSpec& model);

// Counts the model under a plan: LatentMoE and HP add projections and change routers and experts.
ParameterCount count_parameters(const ModelSpec& model, const Plan& plan);

// Parameters one token uses: all but the routed experts it did not choose. The embedding table is a
// look-up and does not count; published "active" figures follow this.
double active_parameters(const ModelSpec& model);
double active_parameters(const ModelSpec& model, const Plan& plan);

// Biases of one expert whose rows are so wide.
double expert_biases(const Moe& moe, double width);

// Attention weights of one layer.
double attention_parameters(const ModelSpec& model);

// What lies on one rank of a plan before data parallelism shares it out.
struct RankParameters {
    double cut = 0;  // the rank's part of what tensor parallelism cuts
    double whole =
        0;  // on every rank of a tensor-parallel group: router, latent and head projections
    double experts = 0;  // routed

    double dense() const { return cut + whole; }
    RankParameters& operator+=(const RankParameters& other) {
        cut += other.cut;
        whole += other.whole;
        experts += other.experts;
        return *this;
    }
};
RankParameters layer_parameters(const ModelSpec& model, const Plan& plan, int layer);
// The embedding table or the head: the same size.
RankParameters vocabulary_parameters(const ModelSpec& model, const Plan& plan);
// The parameters of a rank's stages. Multi-token prediction, or a tied head, on another rank than
// the embedding has a second copy of it.
RankParameters rank_parameters(const ModelSpec& model, const Plan& plan,
                               std::span<const PipelineStage> stages);

}  // namespace headway::inline workload
