// The order in which phases are shown: pass by pass, each in the order of a forward pass, where the
// phases of EP and HP lie as the layers run them. Backward is shown in forward's order too, so that
// the two can be compared line by line.
#pragma once

#include <utility>
#include <vector>

#include "models/vocab/prediction.hpp"

namespace headway::inline report {

using PhaseKey = std::pair<Pass, Phase>;

// Every phase that any of the plans has, once.
std::vector<PhaseKey> step_order(const std::vector<PlanPrediction>& plans);

// The cost of a phase in a plan, or null.
const PhaseCost* find_phase(const PlanPrediction& plan, PhaseKey key);

}  // namespace headway::inline report
