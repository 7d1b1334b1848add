// From benchmark rows to curves: rates are work over time, cells hold medians, scatter becomes the
// residual.
#include "models/measurements/kernel_bench.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

BenchRow experts(double rows_per_expert, double width, double inner, double rate) {
    BenchRow r{.op = "experts_forward",
               .implementation = "fast",
               .num_heads = 1,
               .head_dim = width,
               .num_experts = 4,
               .expert_dim = inner,
               .num_tokens = rows_per_expert * 2,
               .top_k = 2,
               .device = "toy",
               .date = "today"};
    r.median_us = 4.0 * r.num_tokens * 2 * width * inner / rate * 1e6;  // t = 4 P d f / rate
    return r;
}

TEST(KernelBench, RateIsUsefulFlopsOverTimeOnTheGrid) {
    const Profile p = with_measured_kernels(
        {},
        {experts(256, 64, 128, 1e14), experts(1024, 64, 128, 3e14), experts(256, 128, 256, 2e14)});
    const RateCurve& curve = p.kernel(Kernel::fused_expert).forward.at(0);
    EXPECT_EQ(curve.size, (std::vector<double>{256, 1024}));
    EXPECT_EQ(curve.width, (std::vector<double>{64, 128}));
    EXPECT_NEAR(curve.at(Kernel::fused_expert, 256, 64).value, 1e14, 1e6);
    // A third of the way in size, so in time: 512 / (256 + (1024 / 3 - 256) / 3) = 1.8.
    EXPECT_NEAR(curve.at(Kernel::fused_expert, 512, 64).value, 1.8e14, 1e6);
    // Not measured at this width: held.
    EXPECT_NEAR(curve.at(Kernel::fused_expert, 1024, 128).value, 2e14, 1e6);
    EXPECT_NE(p.provenance.note.find("fused_expert forward"), std::string::npos);
}

// A width w outside the grid keeps the base's rate; one inside, or on it, is interpolated or
// measured.
TEST(KernelBench, WidthsOutsideTheGridAreTheBases) {
    Profile base{.name = "base"};
    base.kernel(Kernel::fused_expert).forward = {{.size = {1.0},
                                                  .width = {32, 64, 100, 128, 1024},
                                                  .rate = {6e13, 1e14, 1.2e14, 1.5e14, 9e14},
                                                  .source = "base"}};
    const Profile p =
        with_measured_kernels(base, {experts(256, 64, 128, 1e14), experts(256, 128, 256, 2e14)});
    const RateCurve& curve = p.kernel(Kernel::fused_expert).forward.at(0);
    EXPECT_EQ(curve.width, (std::vector<double>{32, 64, 128, 1024}));
    EXPECT_NEAR(curve.at(Kernel::fused_expert, 256, 32).value, 6e13, 1e6);
    EXPECT_NEAR(curve.at(Kernel::fused_expert, 256, 64).value, 1e14, 1e6);
    EXPECT_NEAR(curve.at(Kernel::fused_expert, 256, 1024).value, 9e14, 1e6);
    EXPECT_NE(curve.source.find("widths below 64 and above 128: base"), std::string::npos);
}

// EP's experts whole, 4 R d f FLOPs forward and 8 R d f backward: a curve of their own, beside that
// of single products.
TEST(KernelBench, WholeExpertsHaveTheirOwnCurve) {
    BenchRow forward = experts(256, 1024, 512, 1e14), backward = forward, product = forward;
    forward.op = "ep_experts_forward";
    backward.op = "ep_experts_backward";
    product.op = "grouped_forward";
    forward.flops = product.flops = 4.0 * 1024 * 1024 * 512;
    forward.median_us = forward.flops / 2e14 * 1e6;
    backward.flops = 2.0 * forward.flops;
    backward.median_us = backward.flops / 3e14 * 1e6;
    product.median_us = product.flops / 4e14 * 1e6;
    const Profile p = with_measured_kernels({}, {forward, backward, product});
    const KernelCurves& whole = p.kernel(Kernel::grouped_gemm_gelu);
    EXPECT_NEAR(whole.forward.at(0).at(Kernel::grouped_gemm_gelu, 256, 512).value, 2e14, 1e6);
    EXPECT_NEAR(whole.backward.at(0).at(Kernel::grouped_gemm_gelu, 256, 512).value, 3e14, 1e6);
    EXPECT_NEAR(p.kernel(Kernel::grouped_gemm).forward.at(0).rate.at(0), 4e14, 1e6);
}

// Gated experts, HP's of 6 P d f FLOPs forward and 12 backward, have curves of their own and leave
// those of ungated ones alone; each says when it was measured.
TEST(KernelBench, GatedExpertsHaveTheirOwnCurves) {
    const BenchRow ungated = experts(256, 64, 512, 1e14);
    const auto gated = [&](const char* op, double per_work, double rate) {
        BenchRow r = ungated;
        r.op = op;
        r.date = "later";
        r.flops = per_work * r.num_tokens * 2 * 64 * 512;
        r.median_us = r.flops / rate * 1e6;
        return r;
    };
    const Profile p =
        with_measured_kernels({}, {ungated, gated("experts_forward_swiglu", 6.0, 2e14),
                                   gated("experts_backward_swiglu", 12.0, 3e14),
                                   gated("ep_experts_forward_swiglu", 6.0, 4e14),
                                   gated("ep_experts_backward_swiglu", 12.0, 5e14)});
    const auto rate = [&](Kernel kernel, Pass pass) {
        const KernelCurves& curves = p.kernel(kernel);
        const double width = is_fused_expert(kernel) ? 64 : 512;
        return (pass == Pass::forward ? curves.forward : curves.backward)
            .at(0)
            .at(kernel, 256, width)
            .value;
    };
    EXPECT_NEAR(rate(Kernel::fused_expert, Pass::forward), 1e14, 1e6);
    EXPECT_NEAR(rate(Kernel::fused_expert_swiglu, Pass::forward), 2e14, 1e6);
    EXPECT_NEAR(rate(Kernel::fused_expert_swiglu, Pass::backward), 3e14, 1e6);
    EXPECT_NEAR(rate(Kernel::grouped_gemm_swiglu, Pass::forward), 4e14, 1e6);
    EXPECT_NEAR(rate(Kernel::grouped_gemm_swiglu, Pass::backward), 5e14, 1e6);
    const auto date = [&](Kernel kernel) {
        const std::string& source = p.kernel(kernel).forward.at(0).source;
        return source.substr(source.rfind(' ') + 1);
    };
    EXPECT_EQ(date(Kernel::fused_expert), "today");
    EXPECT_EQ(date(Kernel::fused_expert_swiglu), "later");
}

TEST(KernelBench, ScatterInACellIsTheResidual) {
    const Profile p =
        with_measured_kernels({}, {experts(256, 64, 128, 0.9e14), experts(256, 64, 128, 1e14),
                                   experts(256, 64, 128, 1.1e14)});
    const RateCurve& curve = p.kernel(Kernel::fused_expert).forward.at(0);
    EXPECT_NEAR(curve.at(Kernel::fused_expert, 256, 64).value, 1e14, 1e6);
    EXPECT_NEAR(curve.residual, 0.1 * std::sqrt(2.0 / 3.0), 5e-4);  // kept to a tenth of a percent
}

// Time a row t = a + b f: measured at f = 128 over the sizes, at 256 and 512 at one. The rate, f /
// t up to a constant, is that line's at every f and size; what the line misses is the residual.
TEST(KernelBench, AnExpertsTimeIsALineInItsInnerWidth) {
    const auto rate = [](double f) { return 1e12 * f / (0.4 + f / 200.0); };
    std::vector<BenchRow> rows;
    for (const double size : {256.0, 1024.0}) rows.push_back(experts(size, 64, 128, rate(128)));
    for (const double f : {256.0, 512.0}) rows.push_back(experts(f, 64, f, rate(f)));
    rows.push_back(experts(512, 64, 128, rate(128)));
    const Profile p = with_measured_kernels({}, rows);
    const RateCurve& curve = p.kernel(Kernel::fused_expert).forward.at(0);
    EXPECT_EQ(curve.inner, (std::vector<double>{128, 512}));
    for (const double f : {128.0, 200.0, 256.0, 512.0}) {
        for (const double size : {256.0, 600.0, 1024.0})
            EXPECT_NEAR(curve.at(Kernel::fused_expert, size, 64, f).value / rate(f), 1.0, 1e-3)
                << f;
    }
    EXPECT_DOUBLE_EQ(curve.residual, 0.03);
    rows.back().median_us *= 1.2;  // two lines: each is judged by the other
    EXPECT_GT(with_measured_kernels({}, rows).kernel(Kernel::fused_expert).forward.at(0).residual,
              0.05);
}

TEST(KernelBench, TheFastestImplementationIsTaken) {
    BenchRow slow = experts(256, 64, 128, 0.5e14);
    slow.implementation = "slow";
    const Profile p = with_measured_kernels({}, {slow, experts(256, 64, 128, 1e14)});
    EXPECT_NEAR(
        p.kernel(Kernel::fused_expert).forward.at(0).at(Kernel::fused_expert, 256, 64).value, 1e14,
        1e6);
}

// Row movers share a curve over bytes b: rate b / t of each operation at its own b, of an operation
// that two implementations run the faster one.
TEST(KernelBench, OperationsOfOneKernelShareItsCurve) {
    const auto mover = [](const char* op, const char* implementation, double bytes, double rate) {
        return BenchRow{.op = op,
                        .implementation = implementation,
                        .median_us = bytes / rate * 1e6,
                        .bytes = bytes,
                        .device = "toy",
                        .date = "today"};
    };
    const Profile p = with_measured_kernels(
        {}, {mover("combine_forward", "gather", 1e6, 1e12), mover("ep_permute", "slow", 1e7, 1e12),
             mover("ep_permute", "vectorised", 1e7, 2e12),
             mover("ep_unpermute", "vectorised", 1e8, 3e12)});
    const RateCurve& curve = p.kernel(Kernel::gather).forward.at(0);
    EXPECT_EQ(curve.size, (std::vector<double>{1e6, 1e7, 1e8}));
    EXPECT_EQ(curve.rate, (std::vector<double>{1e12, 2e12, 3e12}));
    EXPECT_NE(curve.source.find("ep_permute vectorised (1 shapes)"), std::string::npos);
}

// Sizes b and 1.04 b are one point at b sqrt(1.04); 1.1 b is another. Its rates r (1 -+ s) leave
// the residual s.
TEST(KernelBench, SizesWithinFivePercentAreOnePoint) {
    const double b = 1e8, r = 1e12, s = 0.2;
    const auto mover = [](const char* op, double bytes, double rate) {
        return BenchRow{.op = op, .median_us = bytes / rate * 1e6, .bytes = bytes};
    };
    const Profile p = with_measured_kernels(
        {}, {mover("combine_forward", b, r * (1 - s)), mover("ep_permute", 1.04 * b, r * (1 + s)),
             mover("ep_unpermute", 1.1 * b, 1.05 * r)});
    const RateCurve& curve = p.kernel(Kernel::gather).forward.at(0);
    ASSERT_EQ(curve.size.size(), 2U);
    EXPECT_NEAR(curve.size[0], b * std::sqrt(1.04), 5e-4 * b);  // four digits are kept
    EXPECT_NEAR(curve.rate[0], r, 1.0);
    EXPECT_NEAR(curve.residual, s, 1e-9);
}

TEST(KernelBench, ACutFileIsRefusedWithItsLine) {
    const std::string file = testing::TempDir() + "/cut.csv";
    std::ofstream(file) << "op,impl,num_heads,head_dim,num_experts,expert_dim,num_tokens,top_k,l2,"
                           "median_us,flops,bytes,check,device,driver,cuda,date,sm_mhz\n"
                           "router_forward,fused,2,128,128,256,65536,4,cold,97.";
    try {
        read_kernel_bench(file);
        FAIL() << "no error";
    } catch (const InputError& e) {
        EXPECT_NE(std::string(e.what()).find("cut.csv:2"), std::string::npos);
    }
}

}  // namespace
}  // namespace headway
