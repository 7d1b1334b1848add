// The MoE layers alone, phase by phase, as the runtime runs them: priced like a whole step, but
// without attention, head and update, so that a profile needs no curves for those.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/profile.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"

namespace headway::inline cost {

struct MoePrediction {
    Timeline timeline;  // one span for every phase of each of the first `num_layers` MoE layers
    std::vector<std::string> warnings;
};

// The routing that a prediction rests on: its expectation, or the very draw of the scenario's seed
// that a run executes.
enum class LayerRouting { expected, drawn };

// No overlap: chunked plans are priced as if overlap_chunks were 1.
MoePrediction predict_moe_layers(const Scenario& scenario, const Plan& plan, const Profile& profile,
                                 int num_layers, LayerRouting routing = LayerRouting::expected);

// Device memory of one layer, forward and backward, as the CUDA runtime runs it, on the busiest
// rank: weights, fp32 gradients, tokens and their gradients, what forward saves, workspace.
// Formulas: docs/reference/model.md, "Memory of a layer".
Bytes moe_layer_memory(const Scenario& scenario, const Plan& plan, int layer);

}  // namespace headway::inline cost
