// From what ranks recorded of whole steps to a measured Timeline.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"
#include "runtime/step/step_order.hpp"

namespace headway::runtime {

// One rank's.
struct StepRecord {
    std::vector<double> step_times;               // s, of the steps timed as wholes
    std::vector<std::vector<StepSample>> phases;  // [step timed by phases]
    std::vector<double> losses;                   // [every step] its share of the loss
};

struct StepMeasurement {
    Timeline timeline;
    std::vector<double> losses;  // of all ranks, by step
};

// Steps of `records` [rank] have the same phases on all ranks. A step takes as long as on its
// slowest rank. What several phases of one name in one layer, pass and micro-batch take (norms,
// buckets) is added up. `in_flow`: begin times of all ranks count from one moment.
StepMeasurement to_step_measurement(const Scenario& scenario, const Plan& plan,
                                    const std::string& device, std::vector<StepRecord> records,
                                    bool in_flow);

}  // namespace headway::runtime
