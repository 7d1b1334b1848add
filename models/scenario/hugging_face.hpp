// A Hugging Face config.json as a model in headway's own keys, each with the position of the JSON
// key that it came from, so that the strict reader checks and reports it like any other. What the
// families are is in hugging_face_families. A model whose layers headway lacks is refused by the
// name of the layer; what a config says beyond the layers' shapes goes into `notes`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/scenario/yaml_tree.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline scenario {

YamlNode model_from_hugging_face(const YamlNode& config, const std::string& file,
                                 std::vector<InputProblem>& problems,
                                 std::vector<std::string>& notes);

// Text that is no config at all: a pointer of Git LFS, a web page, a file that breaks off. Throws
// InputError for it.
void expect_json_text(std::string_view text, const std::string& file);

}  // namespace headway::inline scenario
