#include "models/measurements/nccl_import.hpp"

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

}  // namespace
}  // namespace headway
