#include "sim/fair_share.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace headway::sim {
namespace {

constexpr double C = 12.0;

FlowPath over(std::initializer_list<std::uint32_t> links) {
    FlowPath path;
    for (const std::uint32_t l : links) path.push_back({.link = l});
    return path;
}

// n flows on one link of capacity C: each has C / n.
TEST(FairShare, OneLinkIsSharedEqually) {
    const std::vector<double> r =
        max_min_rates(std::vector{C}, std::vector{over({0}), over({0}), over({0})});
    for (const double rate : r) EXPECT_DOUBLE_EQ(rate, C / 3);
}

// A: C, B: 2C; flow 1 on A, 2 on A and B, 3 on B. A freezes at C/2; B leaves 2C - C/2.
TEST(FairShare, WhatABottleneckLeavesGoesToTheOthers) {
    const std::vector<double> r =
        max_min_rates(std::vector{C, 2 * C}, std::vector{over({0}), over({0, 1}), over({1})});
    EXPECT_DOUBLE_EQ(r[0], C / 2);
    EXPECT_DOUBLE_EQ(r[1], C / 2);
    EXPECT_DOUBLE_EQ(r[2], 3 * C / 2);
}

// A parking lot: n links of C in a row, one flow over all, one more on each link: all have C / 2.
TEST(FairShare, ParkingLot) {
    const std::vector<double> r = max_min_rates(
        std::vector{C, C, C}, std::vector{over({0, 1, 2}), over({0}), over({1}), over({2})});
    for (const double rate : r) EXPECT_DOUBLE_EQ(rate, C / 2);
}

// Multiplicity: a class of which n flows cross every link of a class gets C / n per flow.
TEST(FairShare, AClassStandsForItsFlows) {
    const std::vector<double> r =
        max_min_rates(std::vector{C}, std::vector<FlowPath>{{{.link = 0, .multiplicity = 7.0}}});
    EXPECT_DOUBLE_EQ(r[0], C / 7);
}

// Leaf and spine, P hosts of NIC B, h a leaf, trunk h B / 2: h (P - h) flows cross a trunk, so a
// flow across has B / (2 (P - h)); a NIC leaves B - (P - h) B / (2 (P - h)) = B / 2 to its h - 1
// flows inside the leaf.
TEST(FairShare, LeafSpineClasses) {
    const double B = 50.0, P = 64, h = 8;
    const std::vector<FlowPath> classes{
        {{.link = 0, .multiplicity = h - 1}},
        {{.link = 0, .multiplicity = P - h}, {.link = 1, .multiplicity = h * (P - h)}}};
    const std::vector<double> r = max_min_rates(std::vector{B, h * B / 2}, classes);
    EXPECT_DOUBLE_EQ(r[1], B / (2 * (P - h)));
    EXPECT_DOUBLE_EQ(r[0], B / 2 / (h - 1));
}

TEST(FairShare, AnEmptyPathHasNoLimit) {
    EXPECT_EQ(max_min_rates(std::vector{C}, std::vector<FlowPath>(1))[0],
              std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace headway::sim
