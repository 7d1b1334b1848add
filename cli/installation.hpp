// The Python scripts that the verbs run, in headway's data folder
// (models/scenario/installation.hpp).
#pragma once

#include <filesystem>

namespace headway::cli {

// analysis/plot.py. InputError when it is not there.
std::filesystem::path plot_script();
// analysis/report.py.
std::filesystem::path report_script();

}  // namespace headway::cli
