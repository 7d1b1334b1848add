// headway verify against what a training job left: its log, its traces.
#pragma once

#include "cli/options.hpp"

namespace headway::cli {

// Exit code: kNegative where the step is off by more than `tolerance`, a fraction.
int verify_log(const po::variables_map& values, double tolerance);

// kNegative where a pass, or a phase of at least --min-time a step, is.
int verify_trace(const po::variables_map& values, double tolerance);

}  // namespace headway::cli
