// Where headway's data lies: beside an installed executable (PREFIX/share/headway), beside a build
// folder in a checkout, or in the source tree this build was made from; in that order.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace headway::cli {

// The folder of presets (clusters/, models/, profiles/). `chosen` is the value of --presets.
// InputError when there is none.
std::filesystem::path presets_directory(const std::optional<std::string>& chosen = std::nullopt);

// analysis/plot.py. InputError when it is not there.
std::filesystem::path plot_script();

}  // namespace headway::cli
