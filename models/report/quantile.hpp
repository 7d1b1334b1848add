// Quantiles of measured values.
#pragma once

#include <vector>

namespace headway::inline report {

// Between the values on both sides of the place q (n - 1), by straight line; sorts `values`, of
// which there is at least one.
double quantile(std::vector<double>& values, double q);

}  // namespace headway::inline report
