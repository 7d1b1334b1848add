#include "models/workload/extremes.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace headway::inline workload {
namespace {

double normal_cdf(double x) {
    return 0.5 * std::erfc(-x / std::numbers::sqrt2);
}

// Abramowitz and Stegun 26.2.23 (p >= 1/2), then one Halley step.
double inverse_normal_cdf(double p) {
    const double t = std::sqrt(-2.0 * std::log(1.0 - p));
    double x = t - (2.515517 + t * (0.802853 + t * 0.010328)) /
                       (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
    const double error = normal_cdf(x) - p;
    const double step = error * std::sqrt(2.0 * std::numbers::pi) * std::exp(0.5 * x * x);
    x -= step / (1.0 + 0.5 * x * step);
    return x;
}

}  // namespace

double expected_max_of_normals(int count) {
    if (count <= 1) return 0.0;
    return inverse_normal_cdf((count - 0.375) / (count + 0.25));
}

double sigma_of_max_of_normals(int count) {
    if (count <= 1) return 1.0;
    return std::numbers::pi / std::sqrt(6.0) / std::sqrt(2.0 * std::log(count) + 1.0);
}

double expected_max(const std::vector<double>& mean, const std::vector<double>& sigma) {
    double low = -HUGE_VAL, high = -HUGE_VAL;
    for (std::size_t i = 0; i < mean.size(); ++i) {
        low = std::max(low,
                       mean[i] - 4.0 * sigma[i]);  // the maximum is above this with near certainty
        high = std::max(high, mean[i] + 6.0 * sigma[i]);
    }
    if (!(high > low)) return low;
    std::vector<std::size_t> contenders;  // the others are certainly below `low`
    for (std::size_t i = 0; i < mean.size(); ++i) {
        if (low - mean[i] < 5.0 * sigma[i]) contenders.push_back(i);
    }
    constexpr int kSteps = 48;
    const double step = (high - low) / kSteps;
    double above = 0.0;  // integral of P(max > x) from low
    for (int i = 0; i <= kSteps; ++i) {
        const double x = low + i * step;
        double below = 1.0;
        for (const std::size_t r : contenders) {
            if (below <= 0.0) break;
            const double distance = x - mean[r];
            if (distance >= 5.0 * sigma[r]) continue;  // certainly below
            below *= sigma[r] > 0.0 ? normal_cdf(distance / sigma[r]) : 0.0;
        }
        above += (i == 0 || i == kSteps ? 0.5 : 1.0) * (1.0 - below);
    }
    return low + above * step;
}

}  // namespace headway::inline workload
