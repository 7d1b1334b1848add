// The values of a sweep's axis as texts: "8", "1,2,4", "0..1.5:0.25" (adds 0.25), "1..16:*2"
// (doubles), with a unit after one or all of its numbers: "100..400:100 Gbps".
#pragma once

#include <string>
#include <vector>

namespace headway::inline scenario {

inline constexpr std::size_t kMaxAxisValues = 1'000'000;

enum class Ranges { allowed, none };  // of numbers only: ".." in a path is no range

// InputError without a place when a range is malformed, or there are too many values or none.
std::vector<std::string> expand_values(const std::vector<std::string>& texts, Ranges ranges);

}  // namespace headway::inline scenario
