// The matrix products of a step by the two dimensions of their weights, under a plan: what tells a
// product's phase where no annotation does.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "models/trace/torch_trace.hpp"
#include "models/vocab/model_spec.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/plan.hpp"

namespace headway::inline trace {

class WeightShapes {
  public:
    WeightShapes(const ModelSpec& model, const Plan& plan);

    // Phases whose weights fit B [k, n] of a product A [m, k] B of the forward pass.
    std::vector<Phase> of_forward(const std::vector<Shape>& operands) const;
    // Products of gradients count too: the weights, turned or not, are B, or A^T B is their
    // gradient.
    std::vector<Phase> of_any(const std::vector<Shape>& operands) const;

  private:
    struct Weight {
        std::int64_t in = 0, out = 0;
        Phase phase = Phase::embed;
    };

    void add(Phase phase, double in, double out);
    void add_attention(const ModelSpec& model, double tp);
    void add_feed_forward(Phase phase, double in, double width, Activation activation);
    std::vector<Phase> fitting(std::int64_t in, std::int64_t out, bool in_order) const;

    std::vector<Weight> weights_;
};

}  // namespace headway::inline trace
