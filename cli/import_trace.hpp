// headway import --torch-trace: a program from a trace of somebody's own script.
#pragma once

#include "cli/options.hpp"

namespace headway::cli {

void add_trace_options(po::options_description& options);
int import_torch_trace(const po::variables_map& values);

}  // namespace headway::cli
