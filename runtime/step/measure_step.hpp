// Whole steps of a plan on thread ranks.
#pragma once

#include <vector>

#include "runtime/layers/measure.hpp"
#include "runtime/step/step_setup.hpp"
#include "runtime/step/step_timeline.hpp"

namespace headway::runtime {

// Warm-up steps, then `run.num_steps` timed as wholes, then `options.num_repeats` timed by phases;
// all of them train. fp64 models run in fp64, all others in fp32.
StepMeasurement measure_steps(const Scenario& scenario, const Plan& plan, const StepRun& run,
                              const MeasureOptions& options);

// The same for all plans, refused where the work would take longer than max_time seconds; with a
// summary of each.
std::vector<StepMeasurement> steps_on_threads(const Scenario& scenario,
                                              const std::vector<Plan>& plans, const StepRun& run,
                                              const MeasureOptions& options, double max_time);

void print_step_summary(const StepMeasurement& measurement);
// "plan,step,loss", steps from 1.
std::string losses_csv(const std::vector<StepMeasurement>& measurements);

}  // namespace headway::runtime
