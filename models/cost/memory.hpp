// Memory of the busiest rank, itemised. Items and their formulas: docs/model.md, "Memory".
#pragma once

#include "models/vocab/prediction.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

// `loads`: as for build_workload, one for all MoE layers or one each.
PlanMemory predict_memory(const Scenario& scenario, const Plan& plan,
                          const std::vector<GroupLoad>& loads);

}  // namespace headway::inline cost
