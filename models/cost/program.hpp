// Scenario, plan and profile -> Program: the step that the simulator executes. Compute is priced
// rank by rank from a draw of the routing; exchanges carry byte matrices, and the fraction of link
// bandwidth that the profile's curves reach at their size, so that an uncontended uniform exchange
// takes exactly the predicted time.
#pragma once

#include "models/vocab/profile.hpp"
#include "models/vocab/program.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline cost {

struct ProgramOptions {
    int sample = 0;      // which draw of the routing
    int num_layers = 0;  // > 0: only the first so many layers; 0: all
    // Distinct draws of the routing: micro-batch m uses draw m mod num_draws; 0: one each.
    int num_draws = 0;
};

Program build_program(const Scenario& scenario, const Plan& plan, const Profile& profile,
                      const ProgramOptions& options = {});

}  // namespace headway::inline cost
