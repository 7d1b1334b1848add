#include "models/fit/nccl_log.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

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

struct RealLog {
    const char* file;
    Collective collective;
    int ranks, hosts;
    const char* device;
    double algbw, busbw;  // that the log prints, over size / time: 1, and as PERFORMANCE.md says
    std::size_t rows;
};

const RealLog kReal[] = {
    {"all_reduce_perf_8xa100_nd96.log", Collective::all_reduce, 8, 1, "A100-SXM4-40GB", 1,
     2 * 7.0 / 8, 13},
    {"reduce_scatter_perf_8xa100_nd96.log", Collective::reduce_scatter, 8, 1, "A100-SXM4-40GB", 1,
     7.0 / 8, 10},
    // Before 2020 algbw of all_gather was that of S (n-1)/n.
    {"2xgtx1080_all_gather.log", Collective::all_gather, 2, 1, "GeForce GTX 1080", 1.0 / 2, 1.0 / 2,
     6},
    {"2x8_h100_a3mega.log", Collective::all_reduce, 16, 2, "NVIDIA H100 80GB HBM3", 1,
     2 * 15.0 / 16, 10},
    {"2x2_h20_nccl_info.log", Collective::all_to_all, 4, 2, "NVIDIA H20-3e", 1, 3.0 / 4, 8},
    {"all_reduce_perf_8xmi300x_rccl.log", Collective::all_reduce, 8, 1, "AMD Instinct MI300X VF", 1,
     2 * 7.0 / 8, 8},
    {"2x4_gh200_slingshot.log", Collective::all_reduce, 8, 2, "NVIDIA GH200 120GB", 1, 2 * 7.0 / 8,
     8},
    {"2x8_a100_oci.log", Collective::all_reduce, 16, 2, "NVIDIA A100-SXM4-40GB", 1, 2 * 15.0 / 16,
     1},
};

// The log's own out-of-place bandwidths, to the two digits that it prints; its times are rounded to
// four digits and more.
void expect_bandwidths(const RealLog& log, const NcclTable& table) {
    std::ifstream stream(kLogs / "real" / log.file);
    std::size_t row = 0;
    for (std::string line; std::getline(stream, line);) {
        std::istringstream words(line);
        std::vector<std::string> w;
        for (std::string word; words >> word;) w.push_back(word);
        if (w.size() < 8 || std::to_string(std::atoll(w[0].c_str())) != w[0]) continue;
        ASSERT_LT(row, table.size.size());
        const double rate = table.size[row] / table.seconds[row] / 1e9;
        EXPECT_NEAR(std::stod(w[w.size() - 7]), log.algbw * rate, 0.0051 + 1e-3 * rate) << line;
        EXPECT_NEAR(std::stod(w[w.size() - 6]), log.busbw * rate, 0.0051 + 1e-3 * rate) << line;
        ++row;
    }
    EXPECT_EQ(row, log.rows);
}

// Logs of other people's machines, from public places that logs/real/README.md names: what they
// say of ranks, hosts, devices and bandwidth is what is read.
TEST(NcclLog, ReadsRealLogs) {
    for (const RealLog& log : kReal) {
        SCOPED_TRACE(log.file);
        const NcclTable table = read_nccl_log(kLogs / "real" / log.file);
        EXPECT_EQ(table.collective, log.collective);
        EXPECT_EQ(table.num_ranks, log.ranks);
        EXPECT_EQ(table.num_hosts, log.hosts);
        EXPECT_EQ(table.device, log.device);
        expect_bandwidths(log, table);
        const TimeCurve curve = to_time_curve(table);
        EXPECT_EQ(curve.path, log.hosts > 1 ? PathClass::nic : PathClass::nvlink);
        EXPECT_GT(curve.link, Bandwidth{});
        EXPECT_TRUE(std::is_sorted(curve.seconds.begin(), curve.seconds.end()));
    }
}

// Beside every file of a folder of bad logs lies the beginning of its message.
int expect_rejections(const std::filesystem::path& folder) {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() == ".expected") continue;
        SCOPED_TRACE(entry.path().filename().string());
        std::ifstream stream(entry.path().string() + ".expected");
        std::string expected;
        std::getline(stream, expected);
        EXPECT_FALSE(expected.empty());
        try {
            read_nccl_log(entry.path());
            ADD_FAILURE() << "accepted";
        } catch (const InputError& error) {
            EXPECT_EQ(std::string(error.what()).substr(0, expected.size()), expected);
        }
        ++count;
    }
    return count;
}

TEST(NcclLog, RejectsMalformedLogsWithTheirPlace) {
    EXPECT_EQ(expect_rejections(kLogs / "bad"), 14);
}

// Crashed, cut out of their context, two in one file, or of processes that were not one run.
TEST(NcclLog, RejectsRealLogsThatSayTooLittle) {
    EXPECT_EQ(expect_rejections(kLogs / "real/bad"), 5);
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
