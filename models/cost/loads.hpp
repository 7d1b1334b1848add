// The loads of several plans, drawn on several threads: every load is a function of (plan, layer,
// sample) alone, so the result does not depend on the order in which threads take them.
#pragma once

#include <vector>

#include "models/cost/predict.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

// [plan][layer]; one load where the layers of a plan do not differ (layers_differ).
std::vector<std::vector<GroupLoad>> loads_of_plans(const Scenario& scenario,
                                                   const std::vector<Plan>& plans,
                                                   const PredictOptions& options);

}  // namespace headway::inline cost
