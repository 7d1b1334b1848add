#include "models/scenario/divisors.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>

namespace headway::inline scenario {

std::vector<int> divisors(int number) {
    std::vector<int> result;
    for (int i = 1; std::int64_t{i} * i <= number; ++i) {
        if (number % i != 0) continue;
        result.push_back(i);
        if (i != number / i) result.push_back(number / i);
    }
    std::sort(result.begin(), result.end());
    return result;
}

std::string value_list(const std::vector<int>& values) {
    constexpr std::ptrdiff_t shown = 12;
    if (static_cast<std::ptrdiff_t>(values.size()) <= 2 * shown) {
        return fmt::format("{}", fmt::join(values, ", "));
    }
    return fmt::format("{}, ..., {}", fmt::join(values.begin(), values.begin() + shown, ", "),
                       fmt::join(values.end() - shown, values.end(), ", "));
}

std::string divisor_list(int number) {
    return value_list(divisors(number));
}

}  // namespace headway::inline scenario
