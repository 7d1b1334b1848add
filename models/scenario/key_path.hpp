// A key of a scenario by its path: "model.moe.top_k"; of a list by index or by a plan's name:
// "plans[0].zero1", "plans.hp.zero1"; without either of all plans that have it: "plans.zero1".
// Looked up in the declarations of describe.hpp, so every key that a file may hold has a path.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "models/scenario/rule.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline scenario {

struct KeyPath {
    struct Step {
        std::string name;
        bool is_list = false;
        std::optional<std::size_t> item;  // of a list; none: every item that has the key
    };

    std::vector<Step> steps;
    Rule rule;                               // of a single value
    std::optional<ReferenceKind> reference;  // the path names a whole model, cluster or profile
};

// InputError without a place when there is no such key, with a did-you-mean.
KeyPath find_key(const Scenario& scenario, const std::string& path);

// Sets a single value that obeys the rule. False when the scenario lacks the map or the plans that
// the path leads through, or the key does not exist there (an exponent without a skew).
bool set_key(Scenario& scenario, const KeyPath& path, const ScalarValue& value);

}  // namespace headway::inline scenario
