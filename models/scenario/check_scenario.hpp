// Checks across keys: what a reader of single keys cannot see (divisibility, one value against
// another). Also for values made or changed in code, e.g. by a sweep: an empty result means that
// the models may run.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/error.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline scenario {

// `where` of a problem is the path of the key: "plans[1].group_size".
std::vector<InputProblem> check_model(const ModelSpec& model);
std::vector<InputProblem> check_cluster(const Cluster& cluster);
std::vector<InputProblem> check_profile(const Profile& profile);
// The plans and the batch against model and cluster, and the routing against the model.
std::vector<InputProblem> check_plans(const Scenario& scenario);
// The parallel axes of one plan, whose path is `where`, and the batch that they work on.
void check_parallel(const Scenario& scenario, const Plan& plan, const std::string& where,
                    std::vector<InputProblem>& problems);
std::vector<InputProblem> check_routing(const Scenario& scenario);
// Everything: the parts, the batch, the routing and the plans against them; the profile may be
// known to be sound.
enum class ProfileCheck { full, none };
std::vector<InputProblem> check_scenario(const Scenario& scenario,
                                         ProfileCheck profile = ProfileCheck::full);

}  // namespace headway::inline scenario
