// The keys of each kind of MoE layer (vocab/plan.hpp), and what must hold between them and the rest
// of a plan. Private to models/scenario.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/scenario/fields.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline scenario {

void describe_moe_layer(Fields& f, MoeLayerSplit& layer);

void check_moe_layer(const Scenario& scenario, const Plan& plan, const std::string& where,
                     std::vector<InputProblem>& problems);
// What `implementation` and the kind's own way to dispatch allow.
void check_implementation(const Plan& plan, const std::string& where,
                          std::vector<InputProblem>& problems);
void check_dispatcher(const Plan& plan, const std::string& where,
                      std::vector<InputProblem>& problems);

// EP x ETP.
inline std::int64_t ranks_of_group(int group_size, const Plan& plan) {
    return std::int64_t{group_size} * plan.parallel.expert_tensor_parallel_size;
}
// Whether groups of the plan's size lie regularly on the cluster and can share its layer
// (check_plans.cpp).
bool check_group_size(const Scenario& scenario, const Plan& plan, const std::string& where,
                      std::vector<InputProblem>& problems);

}  // namespace headway::inline scenario
