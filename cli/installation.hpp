// Where headway's own files lie: beside an installed executable (PREFIX/share/headway), above a
// build folder in a checkout, or in the source tree this build was made from; in that order.
// Presets are found by models/scenario in the same places.
#pragma once

#include <filesystem>

namespace headway::cli {

// analysis/plot.py. InputError when it is not there.
std::filesystem::path plot_script();
// analysis/report.py.
std::filesystem::path report_script();

}  // namespace headway::cli
