#include "models/fit/statistics.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <random>

#include "models/vocab/profile.hpp"
#include "models/vocab/quantile.hpp"

namespace headway::inline fit {

double median(std::vector<double> values) {
    assert(!values.empty());
    const std::size_t middle = values.size() / 2;
    std::sort(values.begin(), values.end());
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double robust_spread(const std::vector<double>& ratios) {
    if (ratios.size() < 2) return 0.0;
    std::vector<double> deviations;
    for (const double r : ratios) deviations.push_back(std::abs(r - 1.0));
    return std::min(kLargestResidual, 1.4826 * median(deviations));
}

double ninety_percent_sigma(std::vector<double> errors) {
    if (errors.empty()) return 0.0;
    std::sort(errors.begin(), errors.end());
    const double place = std::ceil(0.9 * static_cast<double>(errors.size() + 1));
    const double error = errors[std::min(errors.size(), static_cast<std::size_t>(place)) - 1];
    return std::min(kLargestResidual, error / kNinetyPercent);
}

MedianInterval bootstrap_median(const std::vector<double>& values, double level, int resamples,
                                std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<double> medians, draw(values.size());
    for (int i = 0; i < resamples; ++i) {
        for (double& v : draw) v = values[random() % values.size()];
        medians.push_back(median(draw));
    }
    std::sort(medians.begin(), medians.end());
    const auto at = [&](double q) {
        return medians[static_cast<std::size_t>(q * static_cast<double>(medians.size() - 1))];
    };
    return {at((1.0 - level) / 2.0), at((1.0 + level) / 2.0)};
}

std::vector<double> isotonic(const std::vector<double>& values,
                             const std::vector<double>& weights) {
    struct Pool {
        double mean, weight;
        std::size_t count;
    };
    std::vector<Pool> pools;
    for (std::size_t i = 0; i < values.size(); ++i) {
        pools.push_back({values[i], weights[i], 1});
        while (pools.size() > 1 && pools[pools.size() - 2].mean > pools.back().mean) {
            const Pool last = pools.back();
            pools.pop_back();
            Pool& p = pools.back();
            p.mean = (p.mean * p.weight + last.mean * last.weight) / (p.weight + last.weight);
            p.weight += last.weight;
            p.count += last.count;
        }
    }
    std::vector<double> result;
    for (const Pool& p : pools) result.insert(result.end(), p.count, p.mean);
    return result;
}

}  // namespace headway::inline fit
