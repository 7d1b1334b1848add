// Quantiles of measured values.
#pragma once

#include <vector>

namespace headway {

// Half the two-sided 90 % interval of a normal distribution, in its standard deviations.
inline constexpr double kNinetyPercent = 1.6449;

// Between the values on both sides of the place q (n - 1), by straight line; sorts `values`, of
// which there is at least one.
double quantile(std::vector<double>& values, double q);

}  // namespace headway
