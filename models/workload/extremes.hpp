// The busiest of several ranks: expectation and spread of the maximum of independent normal loads.
#pragma once

#include <vector>

namespace headway::inline workload {

// E[max of M standard normals], Blom's approximation Phi^-1((M - 0.375) / (M + 0.25)); error below
// 1 % for M >= 2. It is the quantity that sqrt(2 ln M) - (ln ln M + ln 4 pi) / (2 sqrt(2 ln M))
// approaches from below for large M.
double expected_max_of_normals(int count);

// Standard deviation of that maximum (Gumbel limit, blended to 0.826 at M = 2).
double sigma_of_max_of_normals(int count);

// E[max] when loads have different means and deviations: integral of 1 - prod Phi, on a fixed grid.
double expected_max(const std::vector<double>& mean, const std::vector<double>& sigma);

}  // namespace headway::inline workload
