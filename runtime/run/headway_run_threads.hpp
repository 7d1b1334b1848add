// headway-run on CPU ranks: threads, one plan after the other, refused when it would not fit this
// machine; and the table that is printed of any measurement.
#pragma once

#include <vector>

#include "models/vocab/scenario.hpp"
#include "runtime/layers/measure.hpp"

namespace headway::runtime {

// Busiest rank's median by phase, and the arrival skew of the exchanges, to the standard output.
void print_summary(const Measurement& m);

// `max_time`: seconds that the run may be estimated to take.
std::vector<Measurement> measure_on_threads(const Scenario& scenario,
                                            const std::vector<Plan>& plans, MeasureOptions options,
                                            double max_time);

}  // namespace headway::runtime
