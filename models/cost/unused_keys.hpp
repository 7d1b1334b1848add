// Keys of a scenario that its numbers cannot depend on, so that none is ignored in silence.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"

namespace headway::inline cost {

// One note each, with the key's name; only of keys that are not at their default.
std::vector<std::string> unused_keys(const Scenario& scenario, const std::vector<Plan>& plans);

}  // namespace headway::inline cost
