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

// A line with 2 % noise becomes two points with a residual of about 2 %; a kink stays a kink.
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
// measured point is met.
TEST(FitRateCurve, MeetsItsSamples) {
    const std::vector<RateSample> samples = {
        {16, 64, 1e9}, {256, 64, 3e9}, {64, 128, 5e9}, {1024, 128, 7e9}};
    const RateCurve curve = fit_rate_curve(samples, "test");
    EXPECT_EQ(curve.width, (std::vector<double>{64, 128}));
    EXPECT_EQ(curve.size.size(), 4U);
    for (const RateSample& s : samples) EXPECT_NEAR(curve.at(s.size, s.width).value, s.rate, 1.0);
    EXPECT_NEAR(curve.residual, 0.0, 1e-9);
}

}  // namespace
}  // namespace headway
