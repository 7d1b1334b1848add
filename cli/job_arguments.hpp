// A scenario against the arguments that a job printed at the head of its log.
#pragma once

#include <string>
#include <vector>

#include "models/import/import_job.hpp"
#include "models/trace/job_log.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::cli {

struct ArgumentCheck {
    std::vector<std::string> contradictions;  // "batch.sequence_length: the scenario has 2048, ..."
    std::string summary;                      // what was compared, or why nothing was
};

// The log's arguments are imported as `headway import` would, for the scenario's own machine, and
// the two scenarios are compared key by key.
ArgumentCheck check_arguments(const Scenario& scenario, const Plan& plan, const JobLog& log,
                              const ReadOptions& presets);

}  // namespace headway::cli
