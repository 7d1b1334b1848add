// Curves from logs of nccl-tests, as the options of calibrate ask for them.
#pragma once

#include <string>

#include "cli/options.hpp"
#include "models/vocab/profile.hpp"

namespace headway::cli {

// Fills `profile` with the logs' curves, and `device` with what they name where nothing else did.
void import_logs(const po::variables_map& values, Profile& profile, std::string& device);

}  // namespace headway::cli
