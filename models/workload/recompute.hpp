// What backward computes again, as phases: forward work repeated in a layer's backward pass.
#pragma once

#include "models/workload/phases.hpp"

namespace headway::inline workload {

// Whether backward starts this layer from its input alone.
bool recomputes_layer(const ModelSpec& model, const Plan& plan, int layer);

// Where in a layer's forward pass begin what starts from its input and the feed-forward part, and
// how many phases follow that.
struct ForwardParts {
    std::size_t input = 0, feed_forward = 0, behind = 0;
};

// Puts what the plan recomputes of `layer` into its backward pass; `load` is that of an MoE layer.
void add_recompute(const StepShape& s, const GroupLoad* load, int index, const ForwardParts& parts,
                   LayerWork& layer);

}  // namespace headway::inline workload
