// The phases of several plans in one order: each plan's own order is kept, and a phase that only a
// later plan has follows its predecessor there.
#pragma once

#include <utility>
#include <vector>

#include "models/vocab/prediction.hpp"

namespace headway {

using PhaseKey = std::pair<Pass, Phase>;

std::vector<PhaseKey> step_order(const std::vector<PlanPrediction>& plans);

// The cost of a phase in a plan, or null.
const PhaseCost* find_phase(const PlanPrediction& plan, PhaseKey key);

}  // namespace headway
