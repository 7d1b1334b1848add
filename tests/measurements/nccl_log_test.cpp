#include "models/measurements/nccl_log.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "models/vocab/error.hpp"
#include "tests/measurements/logs.hpp"

namespace headway {
namespace {

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
    {"sendrecv_2.14_pcie.log", Collective::send_recv, 2, 1, PathClass::pcie, 12, 20, 1},
};

// Every version's log gives the numbers it was written from, to the three digits it prints.
TEST(NcclLog, ReadsTheOutputOfEveryVersion) {
    for (const GoodLog& log : kGood) {
        SCOPED_TRACE(log.file);
        const NcclTable table = only_table(kLogs / log.file);
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
        const TimeCurve curve = to_time_curve(only_table(kLogs / log.file), log.path);
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
    EXPECT_EQ(only_table(kLogs / "mpirun_tagged_2x8_h200.log").device, "NVIDIA H200");
    EXPECT_EQ(only_table(kLogs / "reduce_scatter_2.18.json").device, "NVIDIA H100 80GB HBM3");
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
        const NcclTable table = only_table(kLogs / "real" / log.file);
        EXPECT_EQ(table.collective, log.collective);
        EXPECT_EQ(table.num_ranks, log.ranks);
        EXPECT_EQ(table.num_hosts, log.hosts);
        EXPECT_EQ(table.device, log.device);
        expect_bandwidths(log, table);
    }
}

// Two ranks a group, eight groups at once: a communicator has the ranks of its group, and a buffer
// of S bytes puts 2 S (n-1)/n = S on the bus.
TEST(NcclLog, SplitCommunicatorsHaveTheRanksOfAGroup) {
    const NcclTable table = only_table(kLogs / "all_reduce_split_mask_0x7.log");
    EXPECT_EQ(table.num_ranks, 2);
    EXPECT_EQ(table.num_hosts, 2);
    EXPECT_EQ(to_time_curve(table, PathClass::nic).bytes.front(), 1.0737e9);
}

std::string text_of(const std::filesystem::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

// Every line of a log with what a launcher puts before it: the table is the same.
TEST(NcclLog, LooksBehindThePrefixesOfLaunchers) {
    const std::string log = text_of(kLogs / "alltoall_perf_2.13_h100.log");
    const NcclTable plain = read_nccl_log(log, "alltoall.log").tables.front();
    for (const std::string prefix :
         {"0: ", " 7: ", "[1,0]<stdout>:", "[1,0]<stdout>: ", "[0] ", "node0: ", "worker-0  | ",
          "2026-04-19T03:09:07.123456789Z ", "2026-04-19 03:09:07 ", "[pod/nccl-0/main] ", "> ",
          "Apr 19 03:09:07 node0 run[12]: ", "\t", "   "}) {
        SCOPED_TRACE(prefix);
        std::istringstream lines(log);
        std::string text;
        for (std::string line; std::getline(lines, line);) text += prefix + line + "\r\n";
        const NcclLog read = read_nccl_log(text, "alltoall.log");
        ASSERT_EQ(read.tables.size(), 1U);
        const NcclTable& table = read.tables.front();
        EXPECT_EQ(table.num_ranks, plain.num_ranks);
        EXPECT_EQ(table.num_hosts, plain.num_hosts);
        EXPECT_EQ(table.device, plain.device);
        EXPECT_EQ(table.size, plain.size);
        EXPECT_EQ(table.seconds, plain.seconds);
    }
    // And without the marks of its comments, as web pages show it.
    std::string bare = log;
    std::erase(bare, '#');
    EXPECT_EQ(read_nccl_log(bare, "alltoall.log").tables.front().seconds, plain.seconds);
}

// System: a run and a second of it, 10 % slower throughout. Expectation: one table of two runs, the
// curve in the middle, and a residual of the spread: 5 % off the middle on both sides, 1.4826 times
// that for a normal distribution.
TEST(NcclLog, RepeatsOfARunBecomeItsResidual) {
    const std::string log = text_of(kLogs / "alltoall_perf_2.13_h100.log");
    NcclLog read = read_nccl_log(log + log, "alltoall.log");
    ASSERT_EQ(read.tables.size(), 1U);
    NcclTable& table = read.tables.front();
    EXPECT_EQ(table.num_runs, 2);
    ASSERT_EQ(table.size.size(), 16U);
    const TimeCurve same = to_time_curve(table, PathClass::nvlink);
    EXPECT_LT(same.residual, 0.01);
    for (std::size_t i = 8; i < 16; ++i) table.seconds[i] *= 1.1;
    const TimeCurve apart = to_time_curve(table, PathClass::nvlink);
    EXPECT_NEAR(apart.residual, 1.4826 * 0.05 / 1.05, 0.01);
    EXPECT_NEAR(apart.seconds.back() / same.seconds.back(), 1.05, 1e-3);
}

// Runs of several programs in one file are tables of their own; of one that no phase has use for,
// it is said.
TEST(NcclLog, ReadsSeveralProgramsOfOneFile) {
    const std::string alltoall = text_of(kLogs / "alltoall_perf_2.13_h100.log"),
                      gather = text_of(kLogs / "all_gather_2.17_timestamps_gb300.log");
    const NcclLog both = read_nccl_log("./alltoall_perf -g 8\n" + alltoall + gather, "two.log");
    ASSERT_EQ(both.tables.size(), 2U);
    EXPECT_EQ(both.tables[0].collective, Collective::all_to_all);
    EXPECT_EQ(both.tables[1].collective, Collective::all_gather);
    EXPECT_EQ(both.tables[1].num_ranks, 4);
    std::string other = gather;
    const std::string name = "all_gather_perf";
    for (std::size_t at = 0; (at = other.find(name, at)) != std::string::npos;)
        other.replace(at, name.size(), "broadcast_perf");
    const NcclLog one = read_nccl_log("./alltoall_perf -g 8\n" + alltoall + other, "two.log");
    EXPECT_EQ(one.tables.size(), 1U);
    ASSERT_EQ(one.skipped.size(), 1U);
    EXPECT_NE(one.skipped[0].find("broadcast_perf"), std::string::npos);
}

// rccl-tests -Z json and -Z csv say the same, and what is printed: 1 GiB in 6 ms on 8 ranks.
TEST(NcclLog, ReadsTheFilesOfRcclTests) {
    for (const char* file : {"all_reduce_rccl_Z.json", "all_reduce_rccl_Z.csv"}) {
        SCOPED_TRACE(file);
        const NcclTable table = only_table(kLogs / file);
        EXPECT_EQ(table.collective, Collective::all_reduce);
        EXPECT_EQ(table.num_ranks, 8);
        EXPECT_EQ(table.num_hosts, 1);
        EXPECT_EQ(table.size, std::vector<double>{1073741824.0});
        EXPECT_EQ(table.seconds, std::vector<double>{6000e-6});
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
    EXPECT_EQ(expect_rejections(kLogs / "bad"), 16);
}

// Crashed, cut out of their context, two in one file, or of processes that were not one run.
TEST(NcclLog, RejectsRealLogsThatSayTooLittle) {
    EXPECT_EQ(expect_rejections(kLogs / "real/bad"), 7);
}

TEST(NcclLog, TheCollectiveAskedForMustBeTheLogs) {
    const auto read = [](const char* file, Collective c) {
        read_nccl_log(kLogs / file, {.collective = c});
    };
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
