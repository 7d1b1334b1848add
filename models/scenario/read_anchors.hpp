// Reading of anchor files (models/vocab/anchor.hpp): strict like scenarios, all problems at once.
#pragma once

#include <filesystem>
#include <vector>

#include "models/scenario/read_scenario.hpp"
#include "models/vocab/anchor.hpp"

namespace headway::inline scenario {

// Scenario paths in the file are relative to it; the result holds them joined with its folder.
AnchorSet read_anchors(const std::filesystem::path& path,
                       const ReadOptions& options = {builtin_preset_dirs()});

// All *.yaml files of a folder, in the order of their names, as one set.
AnchorSet read_anchor_folder(const std::filesystem::path& folder,
                             const ReadOptions& options = {builtin_preset_dirs()});

}  // namespace headway::inline scenario
