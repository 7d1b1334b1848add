// The bootstrap interval of the median: solved by hand, and how often it holds the true median.
#include "models/fit/statistics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace headway {
namespace {

// Three draws of {1, 2, 3} with replacement: P(median = 1) = P(at least two are 1) = 7/27, of 3 as
// well, of 2 13/27. The quantiles of a level c are at (1 -+ c) / 2: 0.05 and 0.95 are 1 and 3;
// 0.3 > 7/27 and 0.7 < 20/27 are both 2. The margins, 0.04, are 4 sigma of 2000 resamples.
TEST(BootstrapInterval, OfThreeValuesIsSolvedByHand) {
    const MedianInterval wide = bootstrap_median({3, 1, 2}, 0.9, 2000);
    EXPECT_EQ(wide.low, 1.0);
    EXPECT_EQ(wide.high, 3.0);
    const MedianInterval narrow = bootstrap_median({3, 1, 2}, 0.4, 2000);
    EXPECT_EQ(narrow.low, 2.0);
    EXPECT_EQ(narrow.high, 2.0);
}

// Two draws of {0, 4}: the median is 0, 2, 4 with 1/4, 1/2, 1/4. One value is its own median.
TEST(BootstrapInterval, OfTwoValuesAndOne) {
    const MedianInterval wide = bootstrap_median({0, 4}, 0.9, 2000);
    EXPECT_EQ(wide.low, 0.0);
    EXPECT_EQ(wide.high, 4.0);
    const MedianInterval narrow = bootstrap_median({0, 4}, 0.4, 2000);
    EXPECT_EQ(narrow.low, 2.0);
    EXPECT_EQ(narrow.high, 2.0);
    EXPECT_EQ(bootstrap_median({7}, 0.95).low, 7.0);
    EXPECT_EQ(bootstrap_median({7}, 0.95).high, 7.0);
}

// Share of seeded sets of n draws whose interval holds the median of the distribution they are of.
double coverage(double level, bool skewed, std::uint64_t seed) {
    constexpr int kSets = 500, kDraws = 41;
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0.0, 1.0);
    int covered = 0;
    for (int set = 0; set < kSets; ++set) {
        std::vector<double> values(kDraws);
        for (double& v : values) v = skewed ? std::exp(1.5 * normal(random)) : normal(random);
        const MedianInterval i =
            bootstrap_median(values, level, 400, static_cast<std::uint64_t>(set) + 1);
        const double median_of_all = skewed ? 1.0 : 0.0;
        covered += i.low <= median_of_all && median_of_all <= i.high;
    }
    return covered / double{kSets};
}

// As often as it says: 4 sigma of 500 sets (sqrt(c (1 - c) / 500)), and 2 points for the steps of
// an interval that can only end at order statistics; of a normal distribution and of timings' kind,
// with a long tail to one side.
TEST(BootstrapInterval, CoversTheTrueMedianAtItsNominalRate) {
    for (const double level : {0.8, 0.9, 0.95}) {
        for (const bool skewed : {false, true}) {
            SCOPED_TRACE(level);
            const double allowed = 4.0 * std::sqrt(level * (1.0 - level) / 500.0) + 0.02;
            const double share = coverage(level, skewed, skewed ? 11 : 7);
            EXPECT_NEAR(share, level, allowed);
            RecordProperty("share", std::to_string(share));
        }
    }
}

}  // namespace
}  // namespace headway
