// A job's log against the prediction of its plan: step time, FLOP rate, memory of every stage.
#pragma once

#include <string>

#include "models/trace/job_log.hpp"
#include "models/vocab/prediction.hpp"

namespace headway::inline trace {

struct LogCheck {
    std::string table;        // and, in lines below it, what else there is to know
    double step_error = 0.0;  // predicted over measured, less one
};

// Measured times are medians over lines, as each line has one number; so are rates.
LogCheck check_log(const PlanPrediction& plan, const JobLog& log, const SteadyIterations& steady);

}  // namespace headway::inline trace
