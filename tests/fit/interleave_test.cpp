#include "models/fit/interleave.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace headway {
namespace {

constexpr std::size_t kCases = 40;
constexpr int kPasses = 5;

std::vector<std::size_t> pass_of(const std::vector<std::size_t>& order, int pass) {
    const auto begin = order.begin() + static_cast<std::ptrdiff_t>(kCases) * pass;
    return {begin, begin + kCases};
}

// Every pass is a permutation of all cases: none is left out, none is measured twice before another
// was measured once.
TEST(Interleaved, EveryPassGoesThroughAllCasesOnce) {
    const std::vector<std::size_t> order = interleaved(kCases, kPasses, 1);
    ASSERT_EQ(order.size(), kCases * kPasses);
    for (int pass = 0; pass < kPasses; ++pass) {
        std::vector<std::size_t> cases = pass_of(order, pass);
        std::sort(cases.begin(), cases.end());
        for (std::size_t i = 0; i < kCases; ++i) EXPECT_EQ(cases[i], i);
    }
}

// No pass is sorted and no two are alike; neighbours of a pass are seldom neighbours of the grid:
// of random permutations 2 of n pairs are on average (Poisson, 10 for any of 5 passes is 5 sigma).
TEST(Interleaved, PassesAreShuffledAndDiffer) {
    const std::vector<std::size_t> order = interleaved(kCases, kPasses, 1);
    for (int pass = 0; pass < kPasses; ++pass) {
        const std::vector<std::size_t> cases = pass_of(order, pass);
        EXPECT_FALSE(std::is_sorted(cases.begin(), cases.end()));
        EXPECT_FALSE(std::is_sorted(cases.rbegin(), cases.rend()));
        int neighbours = 0;
        for (std::size_t i = 1; i < kCases; ++i)
            neighbours += cases[i] + 1 == cases[i - 1] || cases[i - 1] + 1 == cases[i];
        EXPECT_LT(neighbours, 10);
        for (int other = 0; other < pass; ++other) EXPECT_NE(cases, pass_of(order, other));
    }
}

// Drift: the mean place in time of the smaller half of the cases is that of the larger half, to 5
// sigma of random places (in order, they would be half a pass apart).
TEST(Interleaved, SizeDoesNotFollowTime) {
    constexpr int kMany = 200;
    const std::vector<std::size_t> order = interleaved(kCases, kMany, 3);
    double small = 0.0, large = 0.0;
    for (std::size_t i = 0; i < order.size(); ++i)
        (order[i] < kCases / 2 ? small : large) += static_cast<double>(i % kCases);
    const double halves = kMany * kCases / 2.0;
    EXPECT_NEAR(small / halves, large / halves, 5.0 * kCases / std::sqrt(12.0 * halves / 2.0));
}

// The seed decides: the same order again, another order of another seed, and a longer calibration
// begins with the shorter, whose samples it finds in its file.
TEST(Interleaved, FollowsFromItsSeed) {
    const std::vector<std::size_t> order = interleaved(kCases, kPasses, 1);
    EXPECT_EQ(order, interleaved(kCases, kPasses, 1));
    EXPECT_NE(order, interleaved(kCases, kPasses, 2));
    const std::vector<std::size_t> longer = interleaved(kCases, kPasses + 2, 1);
    EXPECT_TRUE(std::equal(order.begin(), order.end(), longer.begin()));
    EXPECT_TRUE(interleaved(0, 3, 1).empty());
    EXPECT_TRUE(interleaved(3, 0, 1).empty());
}

}  // namespace
}  // namespace headway
