// Memory of the busiest rank, itemised. Items and their formulas: docs/reference/model.md,
// "Memory".
#pragma once

#include "models/schedule/pipeline_order.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

// `loads`: as for build_workload, one for all MoE layers or one each. `order`: of the plan's
// pipeline, where it has been written already.
PlanMemory predict_memory(const Scenario& scenario, const Plan& plan,
                          const std::vector<GroupLoad>& loads,
                          const PipelineOrder* order = nullptr);

}  // namespace headway::inline cost
