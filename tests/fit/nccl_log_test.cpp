#include "models/fit/nccl_log.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

const std::filesystem::path kLogs = std::filesystem::path(HEADWAY_SOURCE_DIR) / "tests/fit/logs";

struct GoodLog {
    const char* file;
    Collective collective;
    int ranks, hosts;
    PathClass path;
    // The logs follow t = a + bytes / bandwidth, bytes = size * factor of the collective.
    double a_us, gb_per_s, factor;
};

const GoodLog kGood[] = {
    {"alltoall_perf_2.0_v100.log", Collective::all_to_all, 8, 1, PathClass::nvlink, 18, 115,
     7.0 / 8},
    {"all_reduce_perf_2.10_2x8_a100.log", Collective::all_reduce, 16, 2, PathClass::nic, 60, 180,
     2 * 15.0 / 16},
    {"alltoall_perf_2.13_h100.log", Collective::all_to_all, 8, 1, PathClass::nvlink, 22, 360,
     7.0 / 8},
    {"mpirun_tagged_2x8_h200.log", Collective::all_to_all, 16, 2, PathClass::nic, 70, 82,
     15.0 / 16},
    {"all_gather_2.17_timestamps_gb300.log", Collective::all_gather, 4, 1, PathClass::nvlink, 15,
     650, 3.0 / 4},
    {"alltoall_2.19_per_iteration_b200.log", Collective::all_to_all, 8, 1, PathClass::nvlink, 20,
     640, 7.0 / 8},
    {"reduce_scatter_2.18.json", Collective::reduce_scatter, 8, 1, PathClass::nvlink, 14, 365,
     7.0 / 8},
    {"sendrecv_2.14_pcie.log", Collective::send_recv, 2, 1, PathClass::nvlink, 12, 20, 1},
};

// Every version's log gives the numbers it was written from, to the three digits it prints.
TEST(NcclLog, ReadsTheOutputOfEveryVersion) {
    for (const GoodLog& log : kGood) {
        SCOPED_TRACE(log.file);
        const NcclTable table = read_nccl_log(kLogs / log.file);
        EXPECT_EQ(table.collective, log.collective);
        EXPECT_EQ(table.num_ranks, log.ranks);
        EXPECT_EQ(table.num_hosts, log.hosts);
        ASSERT_EQ(table.size.size(), 8U);  // 64 KiB to 1 GiB, factor 4
        for (std::size_t i = 0; i < table.size.size(); ++i) {
            EXPECT_EQ(table.size[i], 65536.0 * std::pow(4.0, static_cast<double>(i)));
            const double micros = log.a_us + table.size[i] * log.factor / log.gb_per_s / 1e3;
            EXPECT_NEAR(table.seconds[i] * 1e6, micros, 6e-4 * micros);
        }
    }
}

// T(bytes) of the curve is the line again, with bytes as profile.hpp defines them: what a rank
// sends to others; over NICs, what leaves its node (half of S (n-1)/n * 16/15 for two nodes).
TEST(NcclLog, MakesTheCurveOfAProfile) {
    for (const GoodLog& log : kGood) {
        SCOPED_TRACE(log.file);
        const TimeCurve curve = to_time_curve(read_nccl_log(kLogs / log.file));
        EXPECT_EQ(curve.collective, log.collective);
        EXPECT_EQ(curve.path, log.path);
        EXPECT_EQ(curve.num_ranks, log.ranks);
        EXPECT_LT(curve.residual, 0.01);
        const bool leaves_node =
            log.collective == Collective::all_to_all && log.path == PathClass::nic;
        const double size = 64.0 * 1024 * 1024;
        const double bytes = leaves_node ? size / 2 : size * log.factor;
        EXPECT_NEAR(curve.at(bytes).value * 1e6, log.a_us + size * log.factor / log.gb_per_s / 1e3,
                    0.01 * curve.at(bytes).value * 1e6);
    }
}

TEST(NcclLog, NamesTheDeviceOfRankZero) {
    EXPECT_EQ(read_nccl_log(kLogs / "mpirun_tagged_2x8_h200.log").device, "NVIDIA H200");
    EXPECT_EQ(read_nccl_log(kLogs / "reduce_scatter_2.18.json").device, "NVIDIA H100 80GB HBM3");
}

// Beside every file of logs/bad lies the beginning of its message.
TEST(NcclLog, RejectsMalformedLogsWithTheirPlace) {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(kLogs / "bad")) {
        if (entry.path().extension() == ".expected") continue;
        SCOPED_TRACE(entry.path().filename().string());
        std::ifstream stream(entry.path().string() + ".expected");
        std::string expected;
        std::getline(stream, expected);
        ASSERT_FALSE(expected.empty());
        try {
            read_nccl_log(entry.path());
            ADD_FAILURE() << "accepted";
        } catch (const InputError& error) {
            EXPECT_EQ(std::string(error.what()).substr(0, expected.size()), expected);
        }
        ++count;
    }
    EXPECT_EQ(count, 13);
}

TEST(NcclLog, TheCollectiveAskedForMustBeTheLogs) {
    const auto read = [](const char* file, Collective c) { read_nccl_log(kLogs / file, c); };
    EXPECT_NO_THROW(read("bad/unnamed.log", Collective::all_to_all));
    EXPECT_THROW(read("all_gather_2.17_timestamps_gb300.log", Collective::all_to_all), InputError);
    EXPECT_THROW(read("reduce_scatter_2.18.json", Collective::all_reduce), InputError);
}

// No prefix of a log crashes the reader: it is read or rejected.
TEST(NcclLog, EveryPrefixIsReadOrRejected) {
    for (const char* file : {"alltoall_perf_2.13_h100.log", "reduce_scatter_2.18.json"}) {
        std::ifstream stream(kLogs / file);
        const std::string text{std::istreambuf_iterator<char>(stream), {}};
        for (std::size_t n = 0; n < text.size(); n += 37) {
            try {
                read_nccl_log(std::string_view(text).substr(0, n), file);
            } catch (const InputError&) {
            }
        }
    }
}

}  // namespace
}  // namespace headway
