// The declarations of describe.hpp, recorded: what docs/reference/scenario.md and the JSON Schema
// are generated from.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/scenario/fields.hpp"

namespace headway::inline scenario {

struct KeyDoc {
    enum class Kind { scalar, texts, numbers, rows, table, map, list, reference };

    std::string name;
    std::string meaning;
    Kind kind = Kind::scalar;
    Rule rule;  // of the scalar, or of every number
    bool is_required = false;
    std::optional<std::string> default_text;  // none: left out means absent
    std::string when;                         // "kind: zipf, power_law": exists only then
    ReferenceKind reference = ReferenceKind::model;
    std::vector<KeyDoc> children;  // map, list (of one item), reference
    struct Choice {
        std::vector<std::string> names;
        std::string when;
    };
    std::vector<Choice> exactly_one_of, at_most_one_of;

    bool has_required_key() const;
};

// The keys of a scenario; the root is a map without a name.
KeyDoc record_scenario_keys();

// docs/reference/scenario.md
std::string scenario_markdown();
// scenarios/scenario.schema.json, and the schema of a model, cluster or profile file beside it.
std::string scenario_schema();
std::string part_schema(ReferenceKind kind);

}  // namespace headway::inline scenario
