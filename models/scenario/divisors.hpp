// Valid values for messages: the divisors of a number that a plan may be split by.
#pragma once

#include <string>
#include <vector>

namespace headway::inline scenario {

std::vector<int> divisors(int number);
// "1, 2, 4, 8"; long lists are cut in the middle.
std::string value_list(const std::vector<int>& values);
std::string divisor_list(int number);

}  // namespace headway::inline scenario
