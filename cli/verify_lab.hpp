// headway verify against headway-lab: the scenario's cluster on this machine, its links at a scale.
#pragma once

#include "cli/options.hpp"

namespace headway::cli {

// Exit code: kNegative where a time is off by more than `tolerance`, a fraction, or links carried
// other bytes than simulated.
int verify_lab(const po::variables_map& values, double tolerance);

}  // namespace headway::cli
