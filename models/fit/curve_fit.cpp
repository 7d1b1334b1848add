#include "models/fit/curve_fit.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "models/fit/statistics.hpp"

namespace headway::inline fit {
namespace {

constexpr double kSamePoint = 1.1;   // sizes within 10 % are one point of a curve
constexpr double kSameWidth = 1.01;  // widths within 1 % are one width

struct Pool {
    double x = 0.0, y = 0.0, weight = 0.0;
};

// Sorted by x; every pool spans at most the factor `span`, x is its geometric mean, y its median.
std::vector<Pool> pools_of(std::vector<std::pair<double, double>> points, double span) {
    std::sort(points.begin(), points.end());
    std::vector<Pool> pools;
    for (std::size_t begin = 0, end = 0; begin < points.size(); begin = end) {
        double log_sum = 0.0;
        std::vector<double> values;
        for (; end < points.size() && points[end].first <= span * points[begin].first; ++end) {
            log_sum += std::log(points[end].first);
            values.push_back(points[end].second);
        }
        const double count = static_cast<double>(values.size());
        const bool one_size = points[begin].first == points[end - 1].first;
        pools.push_back(
            {one_size ? points[begin].first : std::exp(log_sum / count), median(values), count});
    }
    return pools;
}

std::vector<double> ratios_to(const TimeCurve& curve, const std::vector<TimeSample>& samples) {
    std::vector<double> ratios;
    for (const TimeSample& s : samples) ratios.push_back(s.seconds / curve.at(s.bytes).value);
    return ratios;
}

double interpolate(const std::vector<Pool>& pools, double x) {
    if (x <= pools.front().x) return pools.front().y;
    for (std::size_t i = 1; i < pools.size(); ++i) {
        if (x > pools[i].x) continue;
        const double w = std::log(x / pools[i - 1].x) / std::log(pools[i].x / pools[i - 1].x);
        return pools[i - 1].y + w * (pools[i].y - pools[i - 1].y);
    }
    return pools.back().y;
}

// To five digits: as a profile writes it.
double rounded(double value) {
    const double unit = std::pow(10.0, std::floor(std::log10(value)) - 4.0);
    return std::round(value / unit) * unit;
}

// The points themselves: medians of pools, made non-decreasing.
TimeCurve points_curve(TimeCurve curve, const std::vector<TimeSample>& samples,
                       double span = kSamePoint) {
    std::vector<std::pair<double, double>> points;
    for (const TimeSample& s : samples) points.emplace_back(s.bytes, s.seconds);
    std::vector<double> times, weights;
    curve.bytes.clear();
    for (const Pool& p : pools_of(std::move(points), span)) {
        curve.bytes.push_back(rounded(p.x));
        times.push_back(rounded(p.y));
        weights.push_back(p.weight / (p.y * p.y));  // relative errors count alike
    }
    curve.seconds = isotonic(times, weights);
    for (double& t : curve.seconds) t = rounded(t);
    return curve;
}

// Relative errors of samples against points and against a line that were fitted without the samples
// of about their size. The ends are not judged: neither form is meant to reach beyond them.
struct HeldOutErrors {
    std::vector<double> points, line;
};
HeldOutErrors held_out_errors(std::vector<TimeSample> samples) {
    std::sort(samples.begin(), samples.end(),
              [](const TimeSample& a, const TimeSample& b) { return a.bytes < b.bytes; });
    HeldOutErrors errors;
    for (std::size_t begin = 0, end = 0; begin < samples.size(); begin = end) {
        while (end < samples.size() && samples[end].bytes <= kSamePoint * samples[begin].bytes)
            ++end;
        if (begin == 0 || end == samples.size()) continue;
        std::vector<TimeSample> rest(samples.begin(), samples.begin() + std::ptrdiff_t(begin));
        rest.insert(rest.end(), samples.begin() + std::ptrdiff_t(end), samples.end());
        const TimeCurve points = points_curve({}, rest);
        const Line line = fit_line(rest);
        for (std::size_t i = begin; i < end; ++i) {
            const TimeSample& s = samples[i];
            errors.points.push_back(std::abs(s.seconds / points.at(s.bytes).value - 1.0));
            errors.line.push_back(std::abs(s.seconds / (line.a + line.b * s.bytes) - 1.0));
        }
    }
    return errors;
}

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

Line fit_line(const std::vector<TimeSample>& samples) {
    // Minimises sum (a/t + b x/t - 1)^2 by the normal equations of two unknowns; sizes are divided
    // by the largest so that both columns are alike and the equations well conditioned.
    double largest = 1.0;
    for (const TimeSample& s : samples) largest = std::max(largest, s.bytes);
    double s00 = 0.0, s01 = 0.0, s11 = 0.0, r0 = 0.0, r1 = 0.0;
    for (const TimeSample& s : samples) {
        const double one = 1.0 / s.seconds, size = s.bytes / largest / s.seconds;
        s00 += one * one;
        s01 += one * size;
        s11 += size * size;
        r0 += one;
        r1 += size;
    }
    if (s11 == 0.0) return {r0 / s00, 0.0};
    // Below, all sizes are the same: bytes alone count.
    constexpr double kLeastDeterminant = 1e-12;
    const double determinant = s00 * s11 - s01 * s01;
    if (determinant <= kLeastDeterminant * s00 * s11) return {0.0, r1 / s11 / largest};
    const double a = (r0 * s11 - r1 * s01) / determinant, b = (s00 * r1 - s01 * r0) / determinant;
    // On the edge of the quadrant one coefficient alone is fitted.
    if (a < 0.0) return {0.0, r1 / s11 / largest};
    if (b < 0.0) return {r0 / s00, 0.0};
    return {a, b / largest};
}

namespace {

TimeCurve fit_at(TimeCurve curve, std::vector<TimeSample> samples) {
    for (TimeSample& s : samples) s.bytes += curve.mean_share * (s.mean_bytes - s.bytes);
    if (samples.empty()) throw std::logic_error("a curve needs samples");
    curve = points_curve(std::move(curve), samples);
    curve.residual = robust_spread(ratios_to(curve, samples));
    if (curve.bytes.size() < 3) return curve;
    const HeldOutErrors held = held_out_errors(samples);
    if (held.points.empty()) return curve;
    const bool line = mean(held.line) <= mean(held.points);
    if (line) {
        const Line l = fit_line(samples);
        curve.bytes = {curve.bytes.front(), curve.bytes.back()};
        curve.seconds = {l.a + l.b * curve.bytes[0], l.a + l.b * curve.bytes[1]};
    }
    curve.residual = ninety_percent_sigma(line ? held.line : held.points);
    return curve;
}

}  // namespace

TimeCurve fit_time_curve(TimeCurve curve, std::vector<TimeSample> samples) {
    constexpr double kSkewed = 1.1;  // busiest over mean
    constexpr int kSteps = 10;
    curve.mean_share = 0.0;
    TimeCurve best = fit_at(curve, samples);
    const bool skewed = std::any_of(samples.begin(), samples.end(), [](const TimeSample& s) {
        return s.bytes > kSkewed * s.mean_bytes;
    });
    for (int i = 1; skewed && i <= kSteps; ++i) {
        curve.mean_share = static_cast<double>(i) / kSteps;
        TimeCurve other = fit_at(curve, samples);
        if (other.residual < best.residual) best = std::move(other);
    }
    return best;
}

TimeCurve fit_points(TimeCurve curve, const std::vector<TimeSample>& samples) {
    constexpr double kSameSize = 1.0 + 1e-6;
    curve = points_curve(std::move(curve), samples, kSameSize);
    curve.residual = std::max(robust_spread(ratios_to(curve, samples)),
                              ninety_percent_sigma(held_out_errors(samples).points));
    return curve;
}

void replace_curve(Profile& profile, TimeCurve curve) {
    auto& all = profile.communication;
    std::erase_if(all, [&](const TimeCurve& c) {
        return c.collective == curve.collective && c.path == curve.path &&
               c.num_ranks == curve.num_ranks;
    });
    all.push_back(std::move(curve));
}

RateCurve fit_rate_curve(Kernel kernel, std::vector<RateSample> samples, std::string source) {
    if (samples.empty()) throw std::logic_error("a curve needs samples");
    std::sort(samples.begin(), samples.end(),
              [](const RateSample& a, const RateSample& b) { return a.width < b.width; });
    RateCurve curve{.source = std::move(source)};
    std::vector<std::vector<Pool>> by_width;
    std::vector<std::pair<double, double>> sizes;
    for (std::size_t begin = 0, end = 0; begin < samples.size(); begin = end) {
        std::vector<std::pair<double, double>> points;
        for (; end < samples.size() && samples[end].width <= kSameWidth * samples[begin].width;
             ++end)
            points.emplace_back(samples[end].size, samples[end].rate);
        curve.width.push_back(samples[begin].width);
        by_width.push_back(pools_of(std::move(points), kSamePoint));
        for (const Pool& p : by_width.back()) sizes.emplace_back(p.x, p.y);
    }
    for (const Pool& p : pools_of(std::move(sizes), kSamePoint)) curve.size.push_back(p.x);
    for (const auto& pools : by_width) {
        for (const double size : curve.size) curve.rate.push_back(interpolate(pools, size));
    }
    std::vector<double> ratios;
    for (const RateSample& s : samples)
        ratios.push_back(s.rate / curve.at(kernel, s.size, s.width).value);
    curve.residual = robust_spread(ratios);
    return curve;
}

}  // namespace headway::inline fit
