// headway verify against what a training job left: its log.
#pragma once

#include "cli/options.hpp"

namespace headway::cli {

// Exit code: kNegative where the step is off by more than `tolerance`, a fraction.
int verify_log(const po::variables_map& values, double tolerance);

}  // namespace headway::cli
