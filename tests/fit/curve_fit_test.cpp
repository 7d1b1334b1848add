#include "models/fit/curve_fit.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "models/fit/statistics.hpp"

namespace headway {
namespace {

// {1, 3, 2, 4} with equal weights: 3 and 2 are pooled to 2.5; weights (1, 1, 3, 1) pool to 2.25.
TEST(Isotonic, PoolsAdjacentViolators) {
    EXPECT_EQ(isotonic({1, 3, 2, 4}, {1, 1, 1, 1}), (std::vector<double>{1, 2.5, 2.5, 4}));
    EXPECT_EQ(isotonic({1, 3, 2, 4}, {1, 1, 3, 1}), (std::vector<double>{1, 2.25, 2.25, 4}));
    EXPECT_EQ(isotonic({4, 3, 2}, {1, 1, 1}), (std::vector<double>{3, 3, 3}));
}

TEST(Median, OfOddAndEvenCounts) {
    EXPECT_EQ(median({3, 1, 2}), 2.0);
    EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
}

// 200 sets of 31 draws of a normal distribution around 10: the 90 % interval holds the true median
// in about 180 of them (binomial sigma 4.2; 6 sigma allowed), and the same samples give the same
// interval.
TEST(BootstrapMedian, CoversTheMedianAsOftenAsItSays) {
    std::mt19937_64 random(5);
    std::normal_distribution<double> noise(10.0, 1.0);
    int covered = 0;
    for (int set = 0; set < 200; ++set) {
        std::vector<double> values(31);
        for (double& v : values) v = noise(random);
        const MedianInterval i = bootstrap_median(values, 0.9);
        EXPECT_EQ(i.low, bootstrap_median(values, 0.9).low);
        covered += i.low <= 10.0 && 10.0 <= i.high;
    }
    EXPECT_GT(covered, 155);
    EXPECT_LT(covered, 200);
}

// t = a + b x without noise is found exactly; t = b x - c has no positive intercept and t = a no
// slope.
TEST(FitLine, FindsTheLineAndStaysInTheQuadrant) {
    std::vector<TimeSample> line, through, flat;
    for (double x : {1e3, 1e4, 1e5, 1e6}) {
        line.push_back({x, 2e-6 + x * 1e-10});
        through.push_back({x, x * 1e-10 - 0.9e-7});
        flat.push_back({x, 3e-6});
    }
    EXPECT_NEAR(fit_line(line).a, 2e-6, 1e-15);
    EXPECT_NEAR(fit_line(line).b, 1e-10, 1e-19);
    EXPECT_EQ(fit_line(through).a, 0.0);
    EXPECT_GT(fit_line(through).b, 0.0);
    EXPECT_NEAR(fit_line(flat).a, 3e-6, 1e-12);
    EXPECT_NEAR(fit_line(flat).b, 0.0, 1e-15);
}

// t = a + b (B + s (m - B)), B and m the busiest and the mean rank's bytes: s is found where B
// differs from m; where they are equal nothing tells it, and it stays 0.
TEST(FitTimeCurve, FindsTheShareOfTheMeanRank) {
    const double a = 1e-5, b = 1e-10, share = 0.3;
    std::vector<TimeSample> skewed, even;
    for (int i = 1; i <= 12; ++i) {
        const double mean = 1e6 * i;
        for (const double skew : {1.0, 1.4, 1.9}) {
            const double busiest = skew * mean;
            skewed.push_back({busiest, a + b * (busiest + share * (mean - busiest)), mean});
        }
        even.push_back({mean, a + b * mean, mean});
    }
    const TimeCurve curve = fit_time_curve({}, skewed);
    EXPECT_DOUBLE_EQ(curve.mean_share, share);
    EXPECT_LT(curve.residual, 1e-6);
    EXPECT_EQ(fit_time_curve({}, even).mean_share, 0.0);
}

// A line with 2 % noise becomes two points, and its residual the noise's 2 %: left-out points lie
// on it. A kink stays a kink.
TEST(FitTimeCurve, IsALineWhereALineDoes) {
    std::mt19937_64 random(1);
    std::normal_distribution<double> noise(1.0, 0.02);
    std::vector<TimeSample> straight, kinked;
    for (double x = 1e3; x < 1e8; x *= 4) {
        for (int i = 0; i < 5; ++i) {
            straight.push_back({x, (1e-5 + x * 1e-10) * noise(random)});
            kinked.push_back({x, (x < 1e6 ? 1e-4 : 1e-3 + x * 1e-9) * noise(random)});
        }
    }
    const TimeCurve line = fit_time_curve({}, straight);
    EXPECT_EQ(line.bytes.size(), 2U);
    EXPECT_NEAR(line.residual, 0.02, 0.01);
    EXPECT_NEAR(line.at(1e6).value, 1.1e-4, 0.05 * 1.1e-4);
    const TimeCurve kink = fit_time_curve({}, kinked);
    EXPECT_GT(kink.bytes.size(), 2U);
    EXPECT_NEAR(kink.at(1e3).value, 1e-4, 5e-6);
}

// t = a x^0.7 bends gently: a line is 10 % off in places, points measured at every doubling are
// not, and a size between them is met.
TEST(FitTimeCurve, KeepsMeasuredPointsWhereTheyPredictBetter) {
    std::mt19937_64 random(3);
    std::normal_distribution<double> noise(1.0, 0.01);
    const auto law = [](double x) { return 1e-9 * std::pow(x, 0.7); };
    std::vector<TimeSample> samples;
    for (double x = 1e5; x < 1e8; x *= 2) {
        for (int i = 0; i < 4; ++i) samples.push_back({x, law(x) * noise(random)});
    }
    const TimeCurve curve = fit_time_curve({}, samples);
    EXPECT_EQ(curve.bytes.size(), 10U);
    for (double x = 1.5e5; x < 5e7; x *= 2) EXPECT_NEAR(curve.at(x).value / law(x), 1.0, 0.03);
    EXPECT_LT(curve.residual, 0.05);
}

// 90 % of what is measured anew with the same noise lies within 1.645 residuals.
TEST(FitTimeCurve, ResidualGivesANinetyPercentInterval) {
    std::mt19937_64 random(4);
    std::normal_distribution<double> noise(0.0, 0.06);
    const auto draw = [&](double x) { return (1e-4 + 5e-10 * x) * std::exp(noise(random)); };
    std::vector<TimeSample> samples;
    for (double x = 1e5; x < 1e8; x *= 1.5) {
        for (int i = 0; i < 6; ++i) samples.push_back({x, draw(x)});
    }
    const TimeCurve curve = fit_time_curve({}, samples);
    int inside = 0;
    std::uniform_real_distribution<double> exponent(5.0, 7.9);
    for (int i = 0; i < 2000; ++i) {
        const double x = std::pow(10.0, exponent(random));
        inside += std::abs(draw(x) / curve.at(x).value - 1.0) <= 1.6449 * curve.residual;
    }
    EXPECT_GT(inside, 1700);
    EXPECT_LT(inside, 1920);
}

// The ceil(0.9 (n + 1))-th smallest error: of 1..19 % the 18th; of fewer than 9 the largest.
TEST(NinetyPercentSigma, IsTheConformalQuantile) {
    std::vector<double> errors;
    for (int i = 19; i >= 1; --i) errors.push_back(0.01 * i);
    EXPECT_NEAR(ninety_percent_sigma(errors), 0.18 / 1.6449, 1e-12);
    EXPECT_NEAR(ninety_percent_sigma({0.01, 0.05, 0.02}), 0.05 / 1.6449, 1e-12);
    EXPECT_EQ(ninety_percent_sigma({}), 0.0);
    EXPECT_EQ(ninety_percent_sigma({1e3}), kLargestResidual);
    EXPECT_EQ(robust_spread({1e3, 1e3}), kLargestResidual);
}

// Whatever the samples, time never falls with bytes and is positive.
TEST(FitTimeCurve, IsMonotone) {
    std::mt19937_64 random(9);
    std::uniform_real_distribution<double> any(0.1, 10.0);
    for (int set = 0; set < 50; ++set) {
        std::vector<TimeSample> samples;
        for (int i = 0; i < 40; ++i) samples.push_back({1e4 * any(random), 1e-5 * any(random)});
        const TimeCurve curve = fit_time_curve({}, samples);
        for (std::size_t i = 0; i < curve.seconds.size(); ++i) {
            EXPECT_GT(curve.seconds[i], 0.0);
            if (i > 0) {
                EXPECT_GE(curve.seconds[i], curve.seconds[i - 1]);
                EXPECT_GT(curve.bytes[i], curve.bytes[i - 1]);
            }
        }
    }
}

// rate(size, width) measured on different sizes for two widths: the grid is the union, and every
// measured point is met (of times that rise with both).
TEST(FitRateCurve, MeetsItsSamples) {
    const std::vector<RateSample> samples = {
        {16, 64, 1e9}, {256, 64, 3e9}, {64, 128, 2e9}, {1024, 128, 5e9}};
    const RateCurve curve = fit_rate_curve(Kernel::grouped_gemm, samples, "test");
    EXPECT_EQ(curve.width, (std::vector<double>{64, 128}));
    EXPECT_EQ(curve.size.size(), 4U);
    for (const RateSample& s : samples)
        EXPECT_NEAR(curve.at(Kernel::grouped_gemm, s.size, s.width).value, s.rate, 1.0);
    EXPECT_NEAR(curve.residual, 0.0, 1e-9);
}

}  // namespace
}  // namespace headway
