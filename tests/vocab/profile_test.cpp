#include "models/vocab/profile.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace headway {
namespace {

// T(b) through (b0, t0), (b1, t1), (b2, t2): a line per segment, the floor below, the last slope
// above.
TEST(TimeCurve, IsPiecewiseLinearWithFloorAndLastSlope) {
    const TimeCurve curve{.bytes = {100, 200, 400}, .seconds = {1.0, 1.5, 3.5}};
    EXPECT_DOUBLE_EQ(curve.at(100).value, 1.0);
    EXPECT_DOUBLE_EQ(curve.at(150).value, 1.25);
    EXPECT_DOUBLE_EQ(curve.at(400).value, 3.5);
    EXPECT_FALSE(curve.at(400).extrapolated);
    EXPECT_DOUBLE_EQ(curve.at(50).value, 1.0);
    EXPECT_TRUE(curve.at(50).extrapolated);
    EXPECT_DOUBLE_EQ(curve.at(500).value, 3.5 + 100 * 0.01);  // slope (3.5 - 1.5) / 200
    EXPECT_TRUE(curve.at(500).extrapolated);
}

// Halfway in log(size) between rates r0 and r1 the rate is (r0 + r1) / 2; the same along width.
TEST(RateCurve, InterpolatesInTheLogarithmAndClampsOutside) {
    const RateCurve curve{.size = {16, 256}, .width = {64, 1024}, .rate = {1, 3, 5, 11}};
    EXPECT_DOUBLE_EQ(curve.at(64, 64).value, 2.0);
    EXPECT_DOUBLE_EQ(curve.at(64, 1024).value, 8.0);
    EXPECT_NEAR(curve.at(64, 256).value, 5.0, 1e-12);
    EXPECT_FALSE(curve.at(64, 256).extrapolated);
    EXPECT_DOUBLE_EQ(curve.at(1, 1).value, 1.0);
    EXPECT_TRUE(curve.at(1, 64).extrapolated);
    EXPECT_TRUE(curve.at(64, 2048).extrapolated);
}

TEST(RateCurve, OneWidthMeansNoDependenceOnWidth) {
    const RateCurve curve{.size = {1, 10}, .width = {1}, .rate = {2, 4}};
    EXPECT_FALSE(curve.at(10, 12345).extrapolated);
    EXPECT_DOUBLE_EQ(curve.at(10, 12345).value, 4.0);
}

TEST(Profile, FindsTheCurveNearestInRankRatio) {
    Profile profile;
    for (int ranks : {2, 8, 64}) {
        profile.communication.push_back(
            {.collective = Collective::all_to_all, .path = PathClass::nvlink, .num_ranks = ranks});
    }
    EXPECT_EQ(profile.find(Collective::all_to_all, PathClass::nvlink, 8)->num_ranks, 8);
    EXPECT_EQ(profile.find(Collective::all_to_all, PathClass::nvlink, 32)->num_ranks, 64);
    EXPECT_EQ(profile.find(Collective::all_to_all, PathClass::nic, 8), nullptr);
}

// A name with a model contradicts every other name; CPU and GPU, which name none, only devices of
// the other kind.
TEST(Device, ANameWithoutAModelContradictsTheOtherKindAlone) {
    EXPECT_FALSE(contradicts("NVIDIA H200", "NVIDIA H200"));
    EXPECT_TRUE(contradicts("NVIDIA H200", "NVIDIA H100 80GB HBM3"));
    EXPECT_TRUE(contradicts("AMD EPYC", "Intel(R) Xeon(R) CPU @ 2.20GHz"));
    EXPECT_FALSE(contradicts("AMD EPYC", "CPU"));
    EXPECT_FALSE(contradicts("CPU", "AMD EPYC"));
    EXPECT_TRUE(contradicts("NVIDIA H200", "CPU"));
    EXPECT_TRUE(contradicts("AMD EPYC", "GPU"));
    EXPECT_FALSE(contradicts("NVIDIA H200", "GPU"));
    EXPECT_TRUE(contradicts("unknown", "NVIDIA H200"));
}

}  // namespace
}  // namespace headway
