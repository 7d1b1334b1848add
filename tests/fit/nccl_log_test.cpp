#include "models/fit/nccl_log.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "models/fit/nccl_import.hpp"
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
    {"sendrecv_2.14_pcie.log", Collective::send_recv, 2, 1, PathClass::pcie, 12, 20, 1},
};

NcclTable only_table(const std::filesystem::path& file, const LogFacts& facts = {}) {
    const NcclLog log = read_nccl_log(file, facts);
    EXPECT_EQ(log.tables.size(), 1U);
    EXPECT_TRUE(log.skipped.empty());
    return log.tables.front();
}

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

// What has to be stated of a public log, as options of calibrate state it, and what it fills then.
struct Import {
    const char* file;
    ImportOptions options;
    Collective collective;
    int ranks;
    PathClass path;
    int num_curves = 1;
};

const Import kImports[] = {
    {"all_reduce_perf_8xa100_nd96.log", {}, Collective::all_reduce, 8, PathClass::nvlink},
    {"reduce_scatter_perf_8xa100_nd96.log", {}, Collective::reduce_scatter, 8, PathClass::nvlink},
    {"2xgtx1080_all_gather.log", {}, Collective::all_gather, 2, PathClass::pcie},
    {"2xgtx1080_two_programs.log", {}, Collective::all_reduce, 2, PathClass::pcie, 2},
    {"2x8_h100_a3mega.log", {}, Collective::all_reduce, 16, PathClass::nic},
    {"2x2_h20_nccl_info.log", {}, Collective::all_to_all, 4, PathClass::nic},
    {"all_reduce_perf_8xmi300x_rccl.log", {}, Collective::all_reduce, 8, PathClass::nvlink},
    {"2x4_gh200_slingshot.log", {}, Collective::all_reduce, 8, PathClass::nic},
    {"2x8_a100_oci.log", {}, Collective::all_reduce, 16, PathClass::nic},
    {"2x1_gh200_alps.log", {}, Collective::all_reduce, 2, PathClass::nic},
    {"8xmi355x_two_programs.log", {}, Collective::all_reduce, 8, PathClass::nvlink, 2},
    {"1x4_gb300.log", {}, Collective::all_to_all, 4, PathClass::nvlink},
    {"alltoall_8xh20.log", {}, Collective::all_to_all, 8, PathClass::nvlink},
    {"1x8_mi300x.log",
     {.facts = {.collective = Collective::all_reduce}},
     Collective::all_reduce,
     8,
     PathClass::nvlink},
    {"all_reduce_2xp4de_efa_srun.log",
     {.facts = {.num_ranks = 16, .num_hosts = 2}},
     Collective::all_reduce,
     16,
     PathClass::nic},
    {"all_reduce_2xp5_efa_srun.log",
     {.facts = {.num_ranks = 16, .num_hosts = 2}},
     Collective::all_reduce,
     16,
     PathClass::nic},
    {"all_reduce_2xp5_efa_mpijob.log",
     {.facts = {.num_ranks = 16, .num_hosts = 2}},
     Collective::all_reduce,
     16,
     PathClass::nic},
    {"all_reduce_2x8_h100_nebius.log",
     {.facts = {.num_ranks = 16, .num_hosts = 2}},
     Collective::all_reduce,
     16,
     PathClass::nic},
    {"16x4_gb300_ranks_cut.log",
     {.facts = {.num_ranks = 64, .num_hosts = 16}, .path = PathClass::nvlink},
     Collective::all_reduce,
     64,
     PathClass::nvlink},
    {"32x4_gb300_ranks_cut.log",
     {.facts = {.num_ranks = 128, .num_hosts = 32}, .path = PathClass::nic},
     Collective::all_to_all,
     128,
     PathClass::nic},
    {"16x16_v100_256.log",
     {.facts = {.num_ranks = 256, .num_hosts = 16}},
     Collective::all_reduce,
     256,
     PathClass::nic},
    {"all_reduce_18x4_gb200_rack.log",
     {.facts = {.num_ranks = 72, .num_hosts = 18}, .path = PathClass::nvlink},
     Collective::all_reduce,
     72,
     PathClass::nvlink},
    {"2x1_h100_tree.log",
     {.facts = {.num_ranks = 2, .num_hosts = 2}},
     Collective::all_reduce,
     2,
     PathClass::nic},
    {"all_gather_2_bf16.log",
     {.facts = {.num_ranks = 2}, .path = PathClass::nvlink},
     Collective::all_gather,
     2,
     PathClass::nvlink},
    {"all_reduce_24xh100_hydra.log",
     {.facts = {.num_ranks = 24, .num_hosts = 3}},
     Collective::all_reduce,
     24,
     PathClass::nic},
    {"2x1_strix_halo_alltoall.log",
     {.facts = {.num_ranks = 2, .num_hosts = 2}},
     Collective::all_to_all,
     2,
     PathClass::nic},
    {"all_reduce_8_mooncake.log",
     {.facts = {.num_ranks = 8}, .path = PathClass::nvlink},
     Collective::all_reduce,
     8,
     PathClass::nvlink},
    {"2x8_a3mega_plain.log",
     {.facts = {.collective = Collective::all_gather, .num_ranks = 16, .num_hosts = 2}},
     Collective::all_gather,
     16,
     PathClass::nic},
    {"2x8_a100_ranks_cut.log",
     {.facts = {.num_ranks = 16, .num_hosts = 2}},
     Collective::all_reduce,
     16,
     PathClass::nic},
    {"16_mi350x_no_ranks.log",
     {.facts = {.num_ranks = 16, .num_hosts = 2}},
     Collective::all_reduce,
     16,
     PathClass::nic},
    {"2x8_cases.log",
     {.facts = {.num_ranks = 16, .num_hosts = 2}},
     Collective::all_reduce,
     16,
     PathClass::nic},
    {"3x1_gb10_ring.log",
     {.facts = {.num_ranks = 3, .num_hosts = 3}},
     Collective::all_gather,
     3,
     PathClass::nic},
    {"8xh100_unnamed.log",
     {.facts = {.collective = Collective::all_reduce}},
     Collective::all_reduce,
     8,
     PathClass::nvlink},
    {"2x8_h100_tcpx.log",
     {.facts = {.collective = Collective::all_gather, .num_ranks = 16, .num_hosts = 2}},
     Collective::all_gather,
     16,
     PathClass::nic},
};

struct PrintedRow {
    double size, busbw;  // bytes, GB/s
};

// Size and out-of-place bus bandwidth of the rows of a log, as its text prints them.
std::vector<PrintedRow> printed_rows(const char* file) {
    const std::regex row_begin(R"(\d+\s+\d+\s+(float|half|bfloat16|u?int8|double)\b)");
    const std::regex tag(R"(\[\d+\])");  // of Hydra, also inside rows
    std::vector<PrintedRow> rows;
    std::ifstream stream(kLogs / "real" / file);
    for (std::string line; std::getline(stream, line);) {
        line = std::regex_replace(line, tag, "");
        std::smatch match;
        if (!std::regex_search(line, match, row_begin)) continue;
        std::istringstream words(line.substr(static_cast<std::size_t>(match.position())));
        std::vector<std::string> w;
        for (std::string word; words >> word;) w.push_back(word);
        // ... time algbw busbw errors, twice
        if (w.size() > 10) rows.push_back({std::stod(w[0]), std::stod(w[w.size() - 6])});
    }
    return rows;
}

// What nccl-tests' PERFORMANCE.md multiplies size / time by.
double bus_factor(Collective collective, int n) {
    return (collective == Collective::all_reduce ? 2.0 : 1.0) * (n - 1) / n;
}

// System: a profile without curves. Expectation: each log fills the curve named, and in every row
// of 1 MiB or more its time is within 5 % of the row's, its bus bandwidth of the one printed.
TEST(NcclImport, FillsCurvesThatHoldTheRowsOfPublicLogs) {
    int judged = 0;
    for (const Import& import : kImports) {
        SCOPED_TRACE(import.file);
        Profile profile;
        const NcclLog log = read_nccl_log(kLogs / "real" / import.file, import.options.facts);
        const auto sentences = import_tables(log.tables, import.options, profile);
        ASSERT_EQ(profile.communication.size(), static_cast<std::size_t>(import.num_curves));
        ASSERT_EQ(sentences.size(), profile.communication.size());
        EXPECT_EQ(profile.communication[0].collective, import.collective);
        const std::vector<PrintedRow> printed = printed_rows(import.file);
        std::size_t row = 0;
        for (std::size_t t = 0; t < log.tables.size(); ++t) {
            const NcclTable& table = log.tables[t];
            const TimeCurve& curve = profile.communication[t];
            EXPECT_EQ(curve.path, import.path);
            EXPECT_EQ(curve.num_ranks, import.ranks);
            EXPECT_EQ(curve.link, Bandwidth{});
            EXPECT_TRUE(std::is_sorted(curve.seconds.begin(), curve.seconds.end()));
            for (std::size_t i = 0; i < table.size.size(); ++i, ++row) {
                ASSERT_LT(row, printed.size());
                ASSERT_EQ(printed[row].size, table.size[i]);
                if (table.size[i] < 1 << 20) continue;
                const double at = curve.at(curve_bytes(table, curve.path, table.size[i])).value;
                EXPECT_NEAR(at, table.seconds[i], 0.05 * table.seconds[i]) << table.size[i];
                const double busbw =
                    bus_factor(curve.collective, curve.num_ranks) * table.size[i] / at;
                EXPECT_NEAR(busbw / 1e9, printed[row].busbw, 0.05 * printed[row].busbw)
                    << table.size[i];
                ++judged;
            }
        }
        EXPECT_EQ(row, printed.size());
    }
    EXPECT_GE(std::size(kImports), 25u);
    EXPECT_GE(judged, 150);
}

// A log that leaves something out is refused, and the message names the option that states it.
TEST(NcclImport, AsksForWhatALogLeavesOut) {
    const auto message = [](const char* file, const ImportOptions& options,
                            const Profile& base = {}) -> std::string {
        Profile profile = base;
        try {
            import_tables(read_nccl_log(kLogs / file, options.facts).tables, options, profile);
        } catch (const InputError& error) {
            return error.what();
        }
        return "accepted";
    };
    const auto expect = [](const std::string& text, const char* found, const char* option) {
        EXPECT_NE(text.find(found), std::string::npos) << text;
        EXPECT_NE(text.find(option), std::string::npos) << text;
    };
    const std::string no_ranks = message("real/all_reduce_2x8_h100_nebius.log", {});
    expect(no_ranks, "bandwidths are those of 16 ranks", "--ranks N and --nodes N");
    expect(message("real/all_reduce_2x8_h100_nebius.log", {.facts = {.num_ranks = 8}}),
           "no all_reduce of 8 ranks", "those of 16 ranks");
    expect(message("real/all_reduce_2x8_h100_nebius.log", {.facts = {.num_ranks = 16}}),
           "on how many hosts", "--nodes N");
    expect(message("real/16x4_gb300_ranks_cut.log", {}), "4 of 64 ranks are listed", "--ranks N");
    expect(message("real/16x4_gb300_ranks_cut.log", {.facts = {.num_ranks = 64, .num_hosts = 16}}),
           "NVLink of this device may span hosts", "--path nvlink, nic or spine");
    expect(message("real/2x8_a3mega_plain.log", {}), "does not name its collective",
           "--collective");
    expect(message("real/all_reduce_8_mooncake.log", {.facts = {.num_ranks = 8, .num_hosts = 1}}),
           "nothing says whether its GPUs had NVLink", "--path nvlink or pcie");
    // What is asked for must not contradict the log.
    expect(message("alltoall_perf_2.13_h100.log", {.path = PathClass::spine}),
           "all ranks are on one host", "--nodes N");
    expect(message("mpirun_tagged_2x8_h200.log", {.path = PathClass::pcie}),
           "the ranks are on 2 hosts", "--nodes 1");
    expect(message("alltoall_perf_2.13_h100.log", {.facts = {.num_ranks = 4}}), "a run of 8 ranks",
           "--ranks 8");
    // A guess that the base or the cluster contradicts is asked for.
    Profile of_pcie;
    of_pcie.communication = {{.path = PathClass::pcie, .num_ranks = 8}};
    expect(message("alltoall_perf_2.13_h100.log", {}, of_pcie), "curves are over pcie",
           "--path nvlink or pcie");
    ImportOptions of_cluster;
    of_cluster.cluster = Cluster{.name = "c", .gpus_per_node = 8, .pcie = Pcie{}};
    expect(message("alltoall_perf_2.13_h100.log", of_cluster), "cluster c has no NVLink",
           "--path nvlink or pcie");
}

// The link is the one stated, else that of the cluster described; never another curve's.
TEST(NcclImport, TakesTheLinkFromWhoStatesIt) {
    const auto link = [](const ImportOptions& options) {
        Profile profile;
        profile.communication = {
            {.path = PathClass::nic, .num_ranks = 16, .link = 50.0 * GB / second}};
        import_tables(read_nccl_log(kLogs / "mpirun_tagged_2x8_h200.log").tables, options, profile);
        EXPECT_EQ(profile.communication.size(), 1U);
        return profile.communication.front().link.in(GB / second);
    };
    EXPECT_EQ(link({}), 0.0);
    EXPECT_EQ(link({.link = 25.0 * GB / second}), 25.0);
    ImportOptions options;
    options.cluster = Cluster{.num_nodes = 2, .gpus_per_node = 8};
    options.cluster->fabric = Fabric{.nics_per_node = 4, .nic = 20.0 * GB / second};
    EXPECT_EQ(link(options), 10.0);  // four NICs of 20 GB/s for eight ranks
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
