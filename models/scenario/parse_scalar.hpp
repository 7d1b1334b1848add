// One YAML scalar against the rule of its key.
#pragma once

#include <optional>
#include <string>

#include "models/scenario/rule.hpp"
#include "models/scenario/yaml_tree.hpp"

namespace headway::inline scenario {

struct ParsedScalar {
    std::optional<ScalarValue> value;
    std::string found;  // when there is no value: what is wrong with it
    std::string hint;
};

ParsedScalar parse_scalar(const YamlNode& node, const Rule& rule);
bool is_in_range(double value, const Range& range);

}  // namespace headway::inline scenario
