// program.yaml: a Recording as a file. Keys are declared once, as those of scenarios are
//, and checked the same.
#pragma once

#include <filesystem>
#include <string>

#include "models/recorded/recording.hpp"

namespace headway::inline recorded {

std::string to_yaml(const Recording& recording);
// InputError with file, line and column for each mistake.
Recording read_program(const std::filesystem::path& path);

}  // namespace headway::inline recorded
