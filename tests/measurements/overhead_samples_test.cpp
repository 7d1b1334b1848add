#include "models/measurements/overhead_samples.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

std::filesystem::path overheads_file(const std::string& rows) {
    // Tests run beside each other, each as a process of its own.
    const auto folder = std::filesystem::path(testing::TempDir()) / std::to_string(::getpid());
    std::filesystem::create_directories(folder);
    const std::filesystem::path file = folder / "headway_overheads_test.csv";
    std::ofstream(file) << "quantity,bytes,value\n" << rows;
    return file;
}

// launch L = 2 us, host wait H = 12 us, an exchange of counts with that wait M = 40 us: the
// exchange alone is M - H. Copies of b bytes in b / R + L give the rate R, also beyond the largest.
TEST(Overheads, BecomeThoseOfTheProfile) {
    CalibrationSamples samples;
    const DeviceFacts facts =
        add_overheads(overheads_file("device,0,NVIDIA X\nmultiprocessors,0,32\nlaunch,0,2e-06\n"
                                     "host_sync,0,1.2e-05\ncopy,4000000,4e-06\n"
                                     "copy,400000000,0.000202\noverlap,1000,1.5\n"),
                      samples);
    EXPECT_EQ(facts.at("device"), "NVIDIA X");
    EXPECT_EQ(facts.at("multiprocessors"), "32");
    samples.count_exchange = {4e-5};
    const Profile p = fit_profile(samples, {}, "test");
    EXPECT_DOUBLE_EQ(p.overheads.launch.in(second), 2e-6);
    EXPECT_DOUBLE_EQ(p.overheads.host_sync.in(second), 1.2e-5);
    EXPECT_NEAR(p.overheads.count_exchange.in(second), 2.8e-5, 1e-12);
    EXPECT_DOUBLE_EQ(p.overheads.overlap_slowdown, 1.5);
    const RateCurve& copies = p.kernel(Kernel::streaming).forward.front();
    EXPECT_NEAR(copies.at(Kernel::streaming, 4e6, 1).value, 2e12, 1e6);
    EXPECT_NEAR(copies.at(Kernel::streaming, 4e8, 1).value, 2e12, 1e6);
    EXPECT_NEAR(copies.at(Kernel::streaming, 6e10, 1).value, 2e12, 0.02 * 2e12);
    EXPECT_GT(copies.residual, 0.0);
}

// The host's times are medians, and their spread that of either. Experts of e beside reductions of
// r_i that begin m before them: e + c (r_i - m) while a kernel is slowed, s e at most.
TEST(Overheads, TheHostAndWhatReductionsSlowDown) {
    const double e = 4e-4, c = 0.9, m = 1e-5, s = 1.75;
    std::string rows =
        "host_kernel,0,4e-06\nhost_kernel,0,5e-06\nhost_kernel,0,6e-06\n"
        "host_exchange,0,9e-05\nhost_exchange,0,1e-04\nhost_exchange,0,1.1e-04\n"
        "host hp expert forward,0,1e-05\n"
        "count_exchange,0,3e-05\nhost_sync,0,1e-05\noverlap,1000,1.1\n";
    const auto row = [&](const char* name, double bytes, double value) {
        rows += std::string(name) + "," + std::to_string(bytes) + "," +
                std::to_string(1e9 * value) + "e-9\n";
    };
    row("experts", 0.0, e);
    for (const double r : {5e-5, 1e-4, 1.5e-4, 1e-3}) {
        row("reduction", 1e12 * r, r);
        row("experts_beside", 1e12 * r, std::min(e + c * (r - m), s * e));
    }
    CalibrationSamples samples;
    add_overheads(overheads_file(rows), samples);
    const Overheads o = fit_profile(samples, {}, "test").overheads;
    EXPECT_NEAR(o.host_calls[HostCall::kernel].in(us), 5.0, 1e-9);
    EXPECT_NEAR(o.host_calls[HostCall::exchange].in(us), 100.0, 1e-9);
    EXPECT_EQ(o.host_calls[HostCall::product], Seconds{});
    EXPECT_GT(o.host_residual, 0.0);
    EXPECT_NEAR(o.count_exchange.in(us), 20.0, 1e-9);
    EXPECT_NEAR(o.overlap_slowdown, s, 1e-9);
    EXPECT_NEAR(o.overlap_loss, c, 1e-6);
}

// GEMMs of rate R(w) for a smallest dimension w, launch L: t = 2 m n k / R(w) + L gives R back, and
// takes the place of the base's curves. A name that is no shape is a fact.
TEST(Overheads, GemmsBecomeTheCurveOfDenseGemms) {
    const auto rate = [](int w) { return 1e12 * w; };
    std::string rows = "launch,0,2e-06\n";
    for (const int w : {64, 256}) {
        for (const int m : {1024, 4096}) {
            const double seconds = 2.0 * m * m * w / rate(w) + 2e-6;
            rows += "gemm " + std::to_string(m) + "x" + std::to_string(m) + "x" +
                    std::to_string(w) + ",0," + std::to_string(1e9 * seconds) + "e-9\n";
        }
    }
    CalibrationSamples samples;
    const DeviceFacts facts = add_overheads(overheads_file(rows + "gemm 3x,0,1\n"), samples);
    EXPECT_EQ(facts.size(), 1u);
    ASSERT_EQ(samples.gemms.size(), 4u);
    EXPECT_EQ(samples.gemms.front().size, 2.0 * 1024 * 1024 * 64);
    Profile base;
    base.kernel(Kernel::dense_gemm).backward = {{.size = {1}, .width = {1}, .rate = {1}}};
    const Profile p = fit_profile(samples, base, "test");
    EXPECT_TRUE(p.kernel(Kernel::dense_gemm).backward.empty());
    const RateCurve& curve = p.kernel(Kernel::dense_gemm).forward.front();
    for (const int w : {64, 256})
        EXPECT_NEAR(curve.at(Kernel::dense_gemm, 2.0 * 1024 * 1024 * w, w).value, rate(w),
                    1e-4 * rate(w));
}

TEST(Overheads, BadRowsAreNamed) {
    CalibrationSamples samples;
    for (const char* row : {"launch,0\n", "copy,1,fast\n", "copy,1000,0\n", "gemm 8x8x8,0,0\n"}) {
        try {
            add_overheads(overheads_file(row), samples);
            FAIL() << row;
        } catch (const InputError& error) {
            EXPECT_NE(std::string(error.what()).find("headway_overheads_test.csv:2"),
                      std::string::npos);
        }
    }
    EXPECT_THROW(add_overheads("/nowhere/overheads.csv", samples), InputError);
}

}  // namespace
}  // namespace headway
