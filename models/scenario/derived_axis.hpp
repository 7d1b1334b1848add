// Axes of a sweep that are no key: each changes several keys so that something stays equal.
//   equal_parameters.granularity  g: E g, k g, f / g; expert parameters E f and active FLOPs k f
//                                 stay
//   equal_batch.nodes, .ranks     n: as many nodes or ranks; sequences of the global step stay,
//                                 groups of the whole world grow with it
//   routing.skew                  s: Zipf popularity with exponent s; 0: no skew
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/scenario/rule.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline scenario {

enum class DerivedAxis { granularity, nodes, ranks, skew };
inline constexpr std::array kDerivedAxisNames = {
    std::string_view("equal_parameters.granularity"), std::string_view("equal_batch.nodes"),
    std::string_view("equal_batch.ranks"), std::string_view("routing.skew")};

std::optional<DerivedAxis> derived_axis(std::string_view name);
Rule rule_of(DerivedAxis axis);
// Why it cannot be, with the path of the key that stands against it; nothing when it was done.
std::optional<InputProblem> apply(DerivedAxis axis, const ScalarValue& value, Scenario& scenario);

}  // namespace headway::inline scenario
