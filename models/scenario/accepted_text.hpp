// What a key accepts, in words; the same words in messages and in docs/reference/scenario.md.
#pragma once

#include <string>

#include "models/scenario/rule.hpp"

namespace headway::inline scenario {

std::string accepted_text(const Rule& rule);
std::string default_text(const Rule& rule, const ScalarValue& value);

}  // namespace headway::inline scenario
