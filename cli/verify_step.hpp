// A run of whole steps against the prediction of the step.
#pragma once

#include <vector>

#include "cli/verdict.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"

namespace headway::cli {

// Whether the timelines are of whole steps. InputError where some are and some are not.
bool are_of_steps(const std::vector<Timeline>& runs);
// InputError for steps of another number of micro-batches than the plan's.
void check_micro_batches(const Scenario& scenario, const Plan& plan,
                         const std::vector<Timeline>& runs);

// Step time, the median over the runs, and memory; `tolerance` is a fraction.
Verdict judge_step(const PlanPrediction& prediction, const std::vector<Timeline>& runs,
                   double tolerance);

}  // namespace headway::cli
