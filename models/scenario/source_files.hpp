// Files that a scenario is made of: found (relative paths, presets), read within limits, parsed.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/scenario/read_scenario.hpp"
#include "models/scenario/rule.hpp"
#include "models/scenario/yaml_tree.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline scenario {

struct SourceFile {
    std::string name;  // in messages
    std::filesystem::path base_dir;
    YamlNode root;
};

// The text of a regular file; InputError at `where` otherwise.
std::string read_text_file(const std::filesystem::path& path, const std::string& where);

// Numbers of a CSV file, row by row; '#' begins a comment line.
std::vector<std::vector<double>> parse_csv(std::string_view text, const std::string& file,
                                           const Range& range, std::vector<InputProblem>& problems);

}  // namespace headway::inline scenario
