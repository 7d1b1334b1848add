// What backward computes again, as phases: forward work repeated in a layer's backward pass.
#pragma once

#include "models/workload/phases.hpp"

namespace headway::inline workload {

// Whether backward starts this layer from its input alone.
bool recomputes_layer(const ModelSpec& model, const Plan& plan, int layer);

// Puts what the plan recomputes of `layer` into its backward pass. The feed-forward part begins at
// forward[feed_forward]; `load` is that of an MoE layer.
void add_recompute(const StepShape& s, const GroupLoad* load, int index, std::size_t feed_forward,
                   LayerWork& layer);

}  // namespace headway::inline workload
