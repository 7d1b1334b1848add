// explain_memory: what a layer keeps for backward, tensor by tensor, and what each stage of a plan
// needs.
#pragma once

#include "models/cost/explain.hpp"

namespace headway::inline cost {

Explanation explain_memory(const Scenario& scenario, const Plan& plan);

}  // namespace headway::inline cost
