#include "models/measurements/samples_file.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

class SamplesFileTest : public testing::Test {
  protected:
    std::filesystem::path path =
        std::filesystem::path(testing::TempDir()) /
        (std::string("samples_") + testing::UnitTest::GetInstance()->current_test_info()->name());

    void SetUp() override { std::filesystem::remove(path); }
    void TearDown() override { std::filesystem::remove(path); }

    void write_to_end(const std::string& text) const { std::ofstream(path, std::ios::app) << text; }
};

CalibrationSamples step(double t) {
    CalibrationSamples s;
    s.kernels = {{.kernel = Kernel::gather,
                  .pass = Pass::backward,
                  .size = 3.0,
                  .width = 128.0,
                  .work = 1.0 / 3.0,
                  .seconds = t,
                  .streamed_bytes = 7.0,
                  .launches = 2,
                  .part_size = 0.3,
                  .part_work = 0.9}};
    s.exchanges = {{.path = PathClass::pcie, .num_ranks = 2, .sample = {4096.0, 2 * t, 1024.0}},
                   {.path = PathClass::pcie, .num_ranks = 4, .sample = {64.0, t}, .is_bare = true}};
    s.phases = {{{.layer = LayerKind::ep_rank,
                  .phase = Phase::ungroup,
                  .own_tokens = 32,
                  .tokens = 64,
                  .hidden = 128,
                  .width = 96,
                  .experts = 16,
                  .top_k = 3,
                  .expert_width = 256,
                  .rows = 1.0 / 3.0,
                  .sent = 70.5,
                  .arrived = 71.5},
                 Pass::backward,
                 3 * t},
                {{.phase = Phase::expert}, Pass::forward, t}};
    s.launch = {t / 8};
    s.count_exchange = {t / 4, t / 5};
    return s;
}

TEST_F(SamplesFileTest, GivesBackEveryStepToTheLastBit) {
    {
        SamplesFile file(path, "a machine");
        EXPECT_TRUE(file.finished().empty());
        file.append(step(0.1));
        file.append(step(0.2));
    }
    const SamplesFile again(path, "a machine");
    ASSERT_EQ(again.finished().size(), 2u);
    const CalibrationSamples& s = again.finished()[1];
    ASSERT_EQ(s.kernels.size(), 1u);
    const KernelSample got = s.kernels[0], sent = step(0.2).kernels[0];
    EXPECT_EQ(got.kernel, sent.kernel);
    EXPECT_EQ(got.pass, sent.pass);
    EXPECT_EQ(got.work, 1.0 / 3.0);  // as it was, not as it prints
    EXPECT_EQ(got.seconds, 0.2);
    EXPECT_EQ(got.streamed_bytes, 7.0);
    EXPECT_EQ(got.launches, 2);
    EXPECT_EQ(got.part_size, 0.3);
    EXPECT_EQ(got.part_work, 0.9);
    ASSERT_EQ(s.exchanges.size(), 2u);
    EXPECT_FALSE(s.exchanges[0].is_bare);
    EXPECT_TRUE(s.exchanges[1].is_bare);
    EXPECT_EQ(s.exchanges[0].sample.seconds, 0.4);
    EXPECT_EQ(s.exchanges[0].sample.bytes, 4096.0);
    EXPECT_EQ(s.exchanges[0].sample.mean_bytes, 1024.0);
    EXPECT_EQ(s.exchanges[1].sample.mean_bytes, 64.0);
    ASSERT_EQ(s.phases.size(), 1u);  // of the row movers
    const MeasuredPhase row_mover = s.phases[0], wanted = step(0.2).phases[0];
    EXPECT_EQ(row_mover.pass, Pass::backward);
    EXPECT_EQ(row_mover.seconds, wanted.seconds);
    EXPECT_EQ(row_mover.shape.layer, LayerKind::ep_rank);
    EXPECT_EQ(row_mover.shape.phase, Phase::ungroup);
    EXPECT_EQ(row_mover.shape.own_tokens, 32.0);
    EXPECT_EQ(row_mover.shape.tokens, 64.0);
    EXPECT_EQ(row_mover.shape.hidden, 128.0);
    EXPECT_EQ(row_mover.shape.width, 96);
    EXPECT_EQ(row_mover.shape.experts, 16);
    EXPECT_EQ(row_mover.shape.top_k, 3);
    EXPECT_EQ(row_mover.shape.expert_width, 256.0);
    EXPECT_EQ(row_mover.shape.rows, 1.0 / 3.0);
    EXPECT_EQ(row_mover.shape.sent, 70.5);
    EXPECT_EQ(row_mover.shape.arrived, 71.5);
    EXPECT_EQ(s.launch, std::vector<double>{0.2 / 8});
    EXPECT_EQ(s.count_exchange, (std::vector<double>{0.2 / 4, 0.2 / 5}));
}

// System: exchanges whose time follows the mean rank's bytes, not the busiest's. A calibration that
// was stopped after each of its steps and resumed gives the profile of one that was not.
TEST_F(SamplesFileTest, ResumedIsNotStopped) {
    CalibrationSamples whole;
    for (int i = 1; i <= 6; ++i) {
        CalibrationSamples s = step(0.01 * i);
        const double bytes = 4096.0 * i * i, mean = bytes / (1.0 + 0.3 * i);
        s.exchanges = {
            {.path = PathClass::pcie, .num_ranks = 2, .sample = {bytes, 1e-6 + 1e-9 * mean, mean}}};
        append(whole, s);
        SamplesFile(path, "a machine").append(s);
    }
    CalibrationSamples resumed;
    const SamplesFile file(path, "a machine");
    for (const CalibrationSamples& s : file.finished()) append(resumed, s);
    const Profile a = fit_profile(whole, {}, "test"), b = fit_profile(resumed, {}, "test");
    ASSERT_EQ(a.communication.size(), b.communication.size());
    for (std::size_t i = 0; i < a.communication.size(); ++i) {
        EXPECT_EQ(a.communication[i].bytes, b.communication[i].bytes);
        EXPECT_EQ(a.communication[i].seconds, b.communication[i].seconds);
        EXPECT_EQ(a.communication[i].mean_share, b.communication[i].mean_share);
        EXPECT_EQ(a.communication[i].residual, b.communication[i].residual);
    }
    for (int k = 0; k < kNumKernels; ++k) {
        const KernelCurves &x = a.kernel(static_cast<Kernel>(k)),
                           &y = b.kernel(static_cast<Kernel>(k));
        ASSERT_EQ(x.backward.size(), y.backward.size());
        for (std::size_t i = 0; i < x.backward.size(); ++i) {
            EXPECT_EQ(x.backward[i].size, y.backward[i].size);
            EXPECT_EQ(x.backward[i].rate, y.backward[i].rate);
        }
    }
    EXPECT_EQ(a.overheads.launch, b.overheads.launch);
    EXPECT_EQ(a.overheads.count_exchange, b.overheads.count_exchange);
    ASSERT_EQ(a.phases.size(), b.phases.size());
    for (std::size_t i = 0; i < a.phases.size(); ++i)
        EXPECT_EQ(a.phases[i].seconds, b.phases[i].seconds);
    EXPECT_GT(b.communication.at(0).mean_share, 0.5);
}

TEST_F(SamplesFileTest, RefusesASecondWriter) {
    const SamplesFile first(path, "a machine");
    try {
        const SamplesFile second(path, "a machine");
        FAIL() << "two write one file";
    } catch (const InputError& error) {
        EXPECT_NE(std::string(error.what()).find("another process is writing it"),
                  std::string::npos);
    }
}

TEST_F(SamplesFileTest, DropsAStepThatWasCutAndGoesOn) {
    SamplesFile(path, "a machine").append(step(0.1));
    write_to_end("launch,,,,,,,,0.5" + std::string(15, ',') + "\nlaunch,,,");
    {
        SamplesFile file(path, "a machine");
        ASSERT_EQ(file.finished().size(), 1u);
        file.append(step(0.3));
    }
    const SamplesFile again(path, "a machine");
    ASSERT_EQ(again.finished().size(), 2u);
    EXPECT_EQ(again.finished()[1].launch, std::vector<double>{0.3 / 8});
}

TEST_F(SamplesFileTest, RefusesSamplesOfAnotherCalibrationAndKeepsThem) {
    SamplesFile(path, "a machine").append(step(0.1));
    EXPECT_THROW(SamplesFile(path, "another machine"), InputError);
    EXPECT_EQ(SamplesFile(path, "a machine").finished().size(), 1u);
}

TEST_F(SamplesFileTest, NamesTheLineOfWhatItCannotRead) {
    SamplesFile(path, "a machine").append(step(0.1));
    write_to_end("kernel,warp_drive,forward,,,1,1,1,1,0,1,0,0,,,,,,,,,,,\n");
    try {
        SamplesFile file(path, "a machine");
        FAIL() << "read a kernel that does not exist";
    } catch (const InputError& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find(":11"), std::string::npos) << text;
        EXPECT_NE(text.find("warp_drive"), std::string::npos) << text;
    }
}

}  // namespace
}  // namespace headway
