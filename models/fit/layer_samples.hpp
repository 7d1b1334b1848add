// Samples for a Profile from layers that were really run: measured phases of a Timeline are joined
// with the Workload's own account of them (size, width, FLOPs, bytes), so that a curve means
// exactly what the model looks up.
#pragma once

#include "models/fit/fit_profile.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"

namespace headway::inline fit {

// `scenario` and `plan` must be those that were run. Takes the slowest rank of each phase, as the
// Workload counts the busiest. Phases of two different kernels besides streaming give no sample.
void add_samples(const Scenario& scenario, const Plan& plan, const Timeline& measured,
                 CalibrationSamples& samples);

}  // namespace headway::inline fit
