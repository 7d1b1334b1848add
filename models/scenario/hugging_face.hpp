// A Hugging Face config.json as a model in headway's own keys, each with the position of the JSON
// key that it came from, so that the strict reader checks and reports it like any other. Supported
// model_type: mixtral, deepseek_v2, deepseek_v3, qwen3_moe, olmoe, gpt_oss. A config holds many
// keys that do not concern shapes; those are ignored.
#pragma once

#include <string>
#include <vector>

#include "models/scenario/yaml_tree.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline scenario {

YamlNode model_from_hugging_face(const YamlNode& config, const std::string& file,
                                 std::vector<InputProblem>& problems);

}  // namespace headway::inline scenario
