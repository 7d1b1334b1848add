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
    // Below: the first line, T(0) = 1 - 100 (1.5 - 1) / 100 = 0.5, is at least half latency.
    EXPECT_DOUBLE_EQ(curve.floor_seconds(), 0.5);
    EXPECT_DOUBLE_EQ(curve.at(50).value, 0.75);
    EXPECT_FALSE(curve.at(50).extrapolated);
    EXPECT_DOUBLE_EQ(curve.at(500).value, 3.5 + 100 * 0.01);  // slope (3.5 - 1.5) / 200
    EXPECT_TRUE(curve.at(500).extrapolated);
}

// A log whose first rows are all bandwidth, t = b / B: what lies below is b / B too, and is
// outside.
TEST(TimeCurve, BelowAFirstRowThatIsAllBandwidthTheTimeFallsWithTheBytes) {
    constexpr double kBandwidth = 100e9;
    const TimeCurve two{.bytes = {8e9, 16e9}, .seconds = {8e9 / kBandwidth, 16e9 / kBandwidth}};
    const TimeCurve one{.bytes = {10e9}, .seconds = {10e9 / kBandwidth}};
    for (const TimeCurve& curve : {two, one}) {
        EXPECT_DOUBLE_EQ(curve.at(1e9).value, 1e9 / kBandwidth);
        EXPECT_TRUE(curve.at(1e9).extrapolated);
        EXPECT_NEAR(curve.floor_seconds(), 0.0, 1e-12);
    }
    // The first line may point below zero: the time is then proportional.
    const TimeCurve convex{.bytes = {1e9, 2e9}, .seconds = {0.01, 0.03}};
    EXPECT_DOUBLE_EQ(convex.at(0.5e9).value, 0.005);
}

// t = s w / r. Rows w = 2: t(16) = 32, t(64) = 64; w = 6: t(16) = 96 / 3, t(64) = 384 / 4.
TEST(RateCurve, InterpolatesTheTimeAndKeepsTheRateOutside) {
    const RateCurve curve{.size = {16, 64}, .width = {2, 6}, .rate = {1, 2, 3, 4}};
    const auto rate = [&](double s, double w) {
        return curve.at(Kernel::grouped_gemm, s, w).value;
    };
    EXPECT_DOUBLE_EQ(rate(16, 2), 1.0);
    EXPECT_DOUBLE_EQ(rate(64, 6), 4.0);
    EXPECT_DOUBLE_EQ(rate(40, 2), 40 * 2 / 48.0);  // t halfway between 32 and 64
    EXPECT_DOUBLE_EQ(rate(64, 4), 64 * 4 / 80.0);  // between 64 and 96
    EXPECT_DOUBLE_EQ(rate(1, 1), 1.0);
    EXPECT_DOUBLE_EQ(rate(640, 60), 4.0);
    EXPECT_FALSE(curve.at(Kernel::grouped_gemm, 40, 4).extrapolated);
    EXPECT_TRUE(curve.at(Kernel::grouped_gemm, 1, 4).extrapolated);
    EXPECT_TRUE(curve.at(Kernel::grouped_gemm, 16, 7).extrapolated);
}

// A rate that drops by more than the work grows would have more work take less time: t stays.
// Tiles: below the first size of an attention core, a token takes the time that it takes there, so
// that the rate falls with the size; a quarter of it is still what was measured.
TEST(RateCurve, AnAttentionCoreBelowTheFirstSizeTakesTheTimeOfItsTiles) {
    const RateCurve curve{.size = {512, 1024}, .width = {64, 128}, .rate = {100, 160, 200, 320}};
    for (const double width : {64.0, 96.0, 128.0}) {
        const double first = curve.at(Kernel::attention, 512, width).value;
        EXPECT_EQ(curve.at(Kernel::attention, 256, width).value, 0.5 * first);
        EXPECT_FALSE(curve.at(Kernel::attention, 128, width).extrapolated);
        EXPECT_TRUE(curve.at(Kernel::attention, 100, width).extrapolated);
        EXPECT_EQ(curve.at(Kernel::dense_gemm, 256, width).extrapolated, true);
    }
}

TEST(RateCurve, MoreWorkNeverTakesLessTimeWhateverWasMeasured) {
    const RateCurve curve{
        .size = {16, 64, 256}, .width = {128, 256, 512}, .rate = {1, 9, 9, 5, 9, 60, 1, 40, 50}};
    for (const Kernel kernel : {Kernel::dense_gemm, Kernel::grouped_gemm}) {
        for (double s = 4; s < 1024; s *= 1.07) {
            for (double w = 64; w < 1024; w *= 1.07) {
                // The size of a dense GEMM is its work: a wider one of equal sides grows in both.
                const bool whole = kernel == Kernel::dense_gemm;
                const auto time = [&](double rows, double columns) {
                    const double size = whole ? rows * columns / 128 : rows;
                    return rows * columns / curve.at(kernel, size, columns).value;
                };
                EXPECT_GE(time(1.01 * s, w), time(s, w) * (1 - 1e-12));
                EXPECT_GE(time(s, 1.01 * w), time(s, w) * (1 - 1e-12));
            }
        }
    }
}

// t = s w f / r is a + b f at every size: (f 128: rate 2) and (f 512: rate 4) give 64 and 128.
TEST(RateCurve, InnerIsAThirdSideOfTheWork) {
    const RateCurve curve{.size = {1}, .width = {1}, .inner = {128, 512}, .rate = {2, 4}};
    EXPECT_DOUBLE_EQ(curve.at(Kernel::fused_expert, 1, 1, 320).value, 320 / 96.0);
    EXPECT_DOUBLE_EQ(curve.at(Kernel::fused_expert, 1, 1, 1024).value, 4.0);
    EXPECT_TRUE(curve.at(Kernel::fused_expert, 1, 1, 1024).extrapolated);
}

TEST(RateCurve, OneWidthMeansNoDependenceOnWidth) {
    const RateCurve curve{.size = {1, 10}, .width = {1}, .rate = {2, 4}};
    EXPECT_FALSE(curve.at(Kernel::dense_gemm, 10, 12345).extrapolated);
    EXPECT_DOUBLE_EQ(curve.at(Kernel::dense_gemm, 10, 12345).value, 4.0);
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
