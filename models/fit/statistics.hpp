// Robust statistics of repeated measurements: median, and the percentile bootstrap of its
// confidence interval (Efron 1979), seeded so that the same samples give the same interval.
#pragma once

#include <cstdint>
#include <vector>

namespace headway::inline fit {

double median(std::vector<double> values);  // of at least one value

// Standard deviation of ratios around 1 by the median absolute deviation (times 1.4826, its factor
// for a normal distribution): outliers do not count by their size. At most kLargestResidual.
double robust_spread(const std::vector<double>& ratios);

// The standard deviation whose two-sided 90 % normal interval is as wide as the interval that split
// conformal prediction gives from absolute errors of held-out samples: the ceil(0.9 (n + 1))-th
// smallest of n (Lei et al., JASA 113, 2018), the largest when n < 9. 0 of no errors; at most
// kLargestResidual.
double ninety_percent_sigma(std::vector<double> errors);

struct MedianInterval {
    double low = 0.0, high = 0.0;
};
// Two-sided `level` interval of the median by resampling with replacement.
MedianInterval bootstrap_median(const std::vector<double>& values, double level = 0.95,
                                int resamples = 400, std::uint64_t seed = 1);

// Non-decreasing sequence nearest to `values` in weighted least squares: pool adjacent violators.
std::vector<double> isotonic(const std::vector<double>& values, const std::vector<double>& weights);

}  // namespace headway::inline fit
