// explain of a pipeline's idle time: its schedule, message and ranks. Private to models/cost.
#pragma once

#include "models/cost/explain.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

Explanation explain_pipeline(const Scenario& scenario, const Plan& plan, const Profile& profile,
                             const Workload& workload);

}  // namespace headway::inline cost
