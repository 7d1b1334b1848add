#include "sim/all_to_all.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/sim/table_cases.hpp"

namespace headway::sim {
namespace {

AllToAllResult run(std::string_view topology, std::string_view sizes, int ranks,
                   AllToAllOptions options = {}) {
    return all_to_all(Topology(cases::cluster(topology, ranks)), cases::matrix(sizes, ranks),
                      options);
}

// The generator must be the one of the table: total, size(0,1), size(1,0).
TEST(TableCases, GeneratorCheckValues) {
    const TrafficMatrix zipf = cases::zipf(64), rand = cases::rand(64);
    EXPECT_EQ(zipf.total_off_rank(), 4249667019);
    EXPECT_EQ(zipf.at(0, 1), 185240);
    EXPECT_EQ(zipf.at(1, 0), 273771);
    EXPECT_EQ(rand.total_off_rank(), 4230402401);
    EXPECT_EQ(rand.at(0, 1), 224545);
    EXPECT_EQ(rand.at(1, 0), 294716);
}

// Results of SimGrid 3.32 (CM02, all factors 1, latency 0) and of an independent progressive
// filling that agree to 1 ns; from 256 hosts on of SimGrid alone. Printed with 9 decimals, hence
// 0.5 ns.
struct Row {
    int ranks;
    std::string_view topology, sizes;
    double end, mean, bound;
};

class Table : public testing::TestWithParam<Row> {};

TEST_P(Table, EndMeanAndBound) {
    const Row row = GetParam();
    const AllToAllResult r = run(row.topology, row.sizes, row.ranks);
    const auto tolerance = [](double value) { return std::max(0.51e-9, 1e-6 * value); };
    EXPECT_NEAR(r.completion.in(second), row.end, tolerance(row.end));
    EXPECT_NEAR(r.mean_flow_completion.in(second), row.mean, tolerance(row.mean));
    EXPECT_NEAR(r.lower_bound.in(second), row.bound, tolerance(row.bound));
    EXPECT_EQ(r.flows, std::int64_t{row.ranks} * (row.ranks - 1));
    EXPECT_EQ(r.error_bound.in(second), 0.0);
}

constexpr Row kRows[] = {
    {8, "star", "bal", 0.000146801, 0.000146801, 0.000146801},
    {8, "star", "zipf", 0.000481161, 0.000127783, 0.000481161},
    {8, "star", "rand", 0.000278444, 0.000103286, 0.000277783},
    {32, "star", "bal", 0.000650117, 0.000650117, 0.000650117},
    {32, "star", "zipf", 0.004833875, 0.000531512, 0.004833875},
    {32, "star", "rand", 0.001192746, 0.000314425, 0.001192746},
    {32, "leafspine", "bal", 0.001006633, 0.000845626, 0.001006633},
    {32, "leafspine", "zipf", 0.004833875, 0.000568116, 0.004833875},
    {32, "leafspine", "rand", 0.001193850, 0.000394640, 0.001192746},
    {64, "star", "bal", 0.001321206, 0.001321206, 0.001321206},
    {64, "star", "zipf", 0.018527541, 0.001115601, 0.018527541},
    {64, "star", "rand", 0.002424353, 0.000553916, 0.002424353},
    {64, "leafspine", "bal", 0.002348810, 0.002120454, 0.002348810},
    {64, "leafspine", "zipf", 0.018527541, 0.001290895, 0.018527541},
    {64, "leafspine", "rand", 0.002894731, 0.000867187, 0.002584344},
    {128, "star", "bal", 0.002663383, 0.002663383, 0.002663383},
    {128, "star", "zipf", 0.062663917, 0.002242510, 0.062663917},
    {128, "star", "rand", 0.004330699, 0.000974930, 0.004330699},
    {128, "leafspine", "bal", 0.005033165, 0.004771929, 0.005033165},
    {128, "leafspine", "zipf", 0.062663917, 0.002710701, 0.062663917},
    {128, "leafspine", "rand", 0.005905122, 0.001725508, 0.005781580},
    {256, "star", "bal", 0.005347738, 0.005347738, 0.005347738},
    {256, "leafspine", "bal", 0.010401874, 0.010124392, 0.010401874},
    {512, "star", "bal", 0.010716447, 0.010716447, 0.010716447},
    {512, "leafspine", "bal", 0.021139292, 0.020853735, 0.021139292},
    {1024, "star", "bal", 0.021453865, 0.021453865, 0.021453865},
    {1024, "leafspine", "bal", 0.042614129, 0.042324545, 0.042614129},
};
INSTANTIATE_TEST_SUITE_P(AllRows, Table, testing::ValuesIn(kRows), [](const auto& i) {
    return std::string(i.param.topology) + "_" + std::string(i.param.sizes) + "_" +
           std::to_string(i.param.ranks);
});

// Symmetry is a shortcut, not another model.
TEST(AllToAll, CollapseEqualsFlowByFlow) {
    for (const std::string_view topology : {"star", "leafspine"}) {
        const AllToAllResult fast = run(topology, "bal", 64);
        const AllToAllResult slow = run(topology, "bal", 64, {.collapse = false});
        EXPECT_NEAR(fast.completion.in(us), slow.completion.in(us), 1e-5);
        EXPECT_NEAR(fast.mean_flow_completion.in(us), slow.mean_flow_completion.in(us), 1e-5);
        EXPECT_EQ(fast.instants, slow.instants);
        ASSERT_EQ(fast.links.size(), slow.links.size());
        for (std::size_t l = 0; l < fast.links.size(); ++l) {
            EXPECT_EQ(fast.links[l].name, slow.links[l].name);
            EXPECT_NEAR(fast.links[l].bytes.in(byte), slow.links[l].bytes.in(byte), 0.5);
            EXPECT_NEAR(fast.links[l].busy.in(us), slow.links[l].busy.in(us), 1e-5);
        }
    }
}

TEST(AllToAll, TheErrorBoundHoldsAndShrinksWithEpsilon) {
    for (const std::string_view topology : {"star", "leafspine"}) {
        for (const std::string_view sizes : {"zipf", "rand"}) {
            const AllToAllResult exact = run(topology, sizes, 64);
            double previous = 1.0;
            for (const double epsilon : {1e-1, 1e-2, 1e-3, 1e-4}) {
                const AllToAllResult r = run(topology, sizes, 64, {.epsilon = epsilon});
                const double bound = r.error_bound.in(second);
                EXPECT_LE(std::abs((r.completion - exact.completion).in(second)), bound);
                EXPECT_GE(r.completion * (1 + 1e-9), r.lower_bound);
                EXPECT_LT(r.instants, exact.instants);
                EXPECT_LT(bound, previous);
                previous = bound;
            }
            EXPECT_LT(previous, 1e-3 * exact.completion.in(second));
        }
    }
}

// At the size where exact runs still take a second, for the epsilon of the published table.
TEST(AllToAll, TheErrorBoundHoldsAt128Ranks) {
    for (const std::string_view topology : {"star", "leafspine"}) {
        for (const std::string_view sizes : {"zipf", "rand"}) {
            const AllToAllResult exact = run(topology, sizes, 128);
            for (const double epsilon : {1e-2, 1e-3}) {
                const AllToAllResult r = run(topology, sizes, 128, {.epsilon = epsilon});
                EXPECT_LE(std::abs((r.completion - exact.completion).in(second)),
                          r.error_bound.in(second));
                EXPECT_LT(10 * r.instants, exact.instants);
            }
        }
    }
}

// Every byte leaves through the sender's NIC and arrives through the receiver's.
TEST(AllToAll, BytesAreConservedOnLinks) {
    const TrafficMatrix m = cases::zipf(32);
    const AllToAllResult r = all_to_all(Topology(cases::cluster("leafspine", 32)), m);
    double up = 0.0, down = 0.0;
    for (const LinkUse& l : r.links) {
        up += l.name.starts_with("nic_up") ? l.bytes.in(byte) : 0.0;
        down += l.name.starts_with("nic_down") ? l.bytes.in(byte) : 0.0;
        EXPECT_LE(l.bytes / l.capacity, l.busy * (1 + 1e-9)) << l.name;
    }
    EXPECT_EQ(up, static_cast<double>(m.total_off_rank()));
    EXPECT_EQ(down, static_cast<double>(m.total_off_rank()));
}

TEST(AllToAll, MoreBandwidthIsNeverSlower) {
    for (const std::string_view sizes : {"bal", "zipf", "rand"}) {
        const TrafficMatrix m = cases::matrix(sizes, 32);
        Seconds previous = 1e9 * second;
        for (const double factor : {0.5, 1.0, 1.5, 4.0}) {
            Cluster c = cases::cluster("leafspine", 32);
            c.fabric->nic *= factor;
            const AllToAllResult r = all_to_all(Topology(c), m);
            EXPECT_LT(r.completion, previous);
            EXPECT_GE(r.completion * (1 + 1e-9), r.lower_bound);
            previous = r.completion;
        }
    }
}

TEST(AllToAll, RenumberingRanksPermutesTheResult) {
    const int ranks = 24;
    const TrafficMatrix m = cases::zipf(ranks);
    const std::vector<int> order = cases::SplitMix64(7).permutation(ranks);
    TrafficMatrix renumbered(ranks);
    for (int i = 0; i < ranks; ++i) {
        for (int j = 0; j < ranks; ++j) {
            renumbered.at(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]) =
                m.at(i, j);
        }
    }
    const Topology star(cases::cluster("star", ranks));
    const AllToAllResult a = all_to_all(star, m), b = all_to_all(star, renumbered);
    for (int i = 0; i < ranks; ++i) {
        const auto from = static_cast<std::size_t>(i);
        const auto to = static_cast<std::size_t>(order[from]);
        EXPECT_NEAR(a.rank_finish[from].in(us), b.rank_finish[to].in(us), 1e-3);
    }
}

TEST(AllToAll, AnEmptyMatrixTakesNoTime) {
    const AllToAllResult r = all_to_all(Topology(cases::cluster("star", 4)), TrafficMatrix(4));
    EXPECT_EQ(r.completion.in(second), 0.0);
    EXPECT_EQ(r.flows, 0);
}

}  // namespace
}  // namespace headway::sim
