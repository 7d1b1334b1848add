#include "models/vocab/quantile.hpp"

#include <algorithm>
#include <cstddef>
#include <stdexcept>

namespace headway {

double quantile(std::vector<double>& values, double q) {
    if (values.empty()) throw std::logic_error("quantile of no values");
    std::sort(values.begin(), values.end());
    const double place = q * static_cast<double>(values.size() - 1);
    const auto low = static_cast<std::size_t>(place);
    const std::size_t high = std::min(low + 1, values.size() - 1);
    return values[low] + (values[high] - values[low]) * (place - static_cast<double>(low));
}

}  // namespace headway
