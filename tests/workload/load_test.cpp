// Loads of a layer: which group and which rank of it is busiest, without noise, with a popularity
// for each source, and what every draw conserves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/workload/drawn_group.hpp"
#include "models/workload/inclusion.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/member_rates.hpp"
#include "models/workload/workload.hpp"
#include "models/workload/worst_group.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

std::size_t at(PathClass c) {
    return static_cast<std::size_t>(c);
}

double total(const std::array<double, static_cast<std::size_t>(kNumPathClasses)>& counts) {
    return std::accumulate(counts.begin(), counts.end(), 0.0);
}

// Every pair of ranks, on clusters whose domains, nodes and leaves divide groups or cut them.
TEST(WorstGroup, CountsPeersAsPathClassDoes) {
    for (const int per_leaf : {0, 1, 2, 3}) {
        for (const int domain : {2, 4, 8, 24}) {
            Cluster cluster = toy::cluster(6, 4);
            cluster.nvlink->domain = domain;
            cluster.pcie = Pcie{.bandwidth = 1e10 * byte / second};
            cluster.fabric->nodes_per_leaf = per_leaf;
            for (const auto& [first, count, stride] :
                 {std::array{0, 24, 1}, {6, 6, 1}, {3, 3, 1}, {1, 8, 3}, {12, 12, 1}}) {
                for (int rank = 0; rank < 24; ++rank) {
                    PathCounts expected{};
                    for (int i = 0; i < count; ++i)
                        ++expected[at(path_class(cluster, rank, first + i * stride))];
                    expected[at(PathClass::self)] = 0;
                    EXPECT_EQ(peers_of(cluster, rank, first, count, stride), expected);
                }
            }
        }
    }
}

// H = 8 heads on 24 ranks of 3 nodes, 3 ranks a head: heads 2 and 5 lie on two nodes. The rank that
// is alone on its node sends to its 2 peers over the NIC: 2 T' D/c copies. Scatter: rank 2 has 2, 5
// on its node and 6 more of its stride elsewhere.
TEST(WorstGroup, HeadsThatStraddleNodesPayTheNic) {
    Scenario s = toy::scenario(3, 8);
    s.model.moe.num_experts = 96;
    s.cluster.fabric->nic = 0.25 * toy::kLink * byte / second;
    const Plan plan = toy::hp(8, s.model, 24);
    const ExpertLayout layout = expert_layout(s, plan);
    EXPECT_EQ(worst_group(s.cluster, 3), 6);
    const GroupLoad load = expected_load(s, plan, 0);
    const double copies = layout.tokens_per_rank * uniform_hit_probability(layout.router, 3);
    EXPECT_NEAR(load.copies_max[at(PathClass::nic)], 2 * copies, 1e-6);
    EXPECT_NEAR(load.copies_max[at(PathClass::nvlink)], 0.0, 1e-9);
    // On the mean rank of ranks 6, 7 | 8: (1 + 1 + 2) / 3.
    EXPECT_NEAR(load.copies_mean[at(PathClass::nic)], 4.0 / 3.0 * copies, 1e-6);
    const PeerCounts scatter = exchange_peers(s.cluster, 24, 3);
    EXPECT_EQ(scatter.worst[at(PathClass::nic)], 6);
    EXPECT_EQ(scatter.worst[at(PathClass::nvlink)], 1);
}

// Four nodes in a group, three under a leaf: the fourth reaches all 24 others across the spine.
TEST(WorstGroup, LeavesThatCutAGroupPayTheSpine) {
    Scenario s = toy::scenario(4, 8);
    s.cluster.fabric->nodes_per_leaf = 3;
    s.cluster.fabric->oversubscription = 2.0;
    const double rows = 4096.0 * 4 / 32;
    const GroupLoad load = expected_load(s, toy::ep(Dedup::none, 32), 0);
    EXPECT_NEAR(load.copies_max[at(PathClass::spine)], 24 * rows, 1e-6);
    EXPECT_NEAR(load.copies_max[at(PathClass::nic)], 0.0, 1e-6);
    EXPECT_NEAR(total(load.copies_mean), 31 * rows, 1e-6);
}

// Without noise every path to a number gives the expectation: T (N - 1) q_N copies of rank-dedup.
TEST(Load, WithoutNoiseDrawsAreTheExpectation) {
    Scenario s = toy::scenario(4, 8);
    s.model.moe.num_experts = 256;
    s.model.moe.top_k = 8;
    s.batch.sequence_length = 1024;
    const RouterShape router{256, 8};
    const DrawnGroup drawn = draw_group(s, toy::ep(Dedup::rank, 8), 0, 0);
    const double copies = 1024 * 7 * uniform_hit_probability(router, 8);
    for (int r = 0; r < 8; ++r) {
        EXPECT_NEAR(static_cast<double>(drawn.copies.sent(r)), copies, 7);
        EXPECT_EQ(drawn.rows[static_cast<std::size_t>(r)], 1024 * 8);
    }
    Plan limited = toy::ep(Dedup::node, 32);
    std::get<ExpertParallel>(limited.layer).node_limit = 1;
    const DrawnGroup one_node = draw_group(s, limited, 0, 0);
    for (int r = 0; r < 32; ++r)
        EXPECT_NEAR(static_cast<double>(one_node.staged.over_nic.sent(r)), 1024 * 0.75,
                    3);  // 3 nodes of 4 are not its own
    const GroupLoad sampled = sampled_load(s, limited, 0, 0),
                    expected = expected_load(s, limited, 0);
    EXPECT_EQ(sampled.copies_max, expected.copies_max);
}

// With a popularity for each source: what arrives is the sum over the sources, each with its own.
TEST(Load, EverySourceCountsWithItsOwnPopularity) {
    for (const Dedup dedup : {Dedup::none, Dedup::rank, Dedup::node}) {
        for (const int seed : {1, 2, 3}) {
            Scenario s = toy::scenario(2, 4);
            s.routing = {.skew = Skew::zipf,
                         .parameter = 1.2,
                         .scope = SkewScope::per_source,
                         .seed = static_cast<std::uint64_t>(seed)};
            const Plan plan = toy::ep(dedup, 8);
            const GroupLoad expected = expected_load(s, plan, 0),
                            sampled = sampled_load(s, plan, 0, 0);
            EXPECT_NEAR(expected.rows_max / sampled.rows_max, 1.0, 0.02);
            EXPECT_NEAR(total(expected.copies_mean) / total(sampled.copies_mean), 1.0, 0.02);
            EXPECT_NEAR(total(expected.copies_max) / total(sampled.copies_max), 1.0, 0.03);
            EXPECT_NEAR(expected.copies_received / sampled.copies_received, 1.0, 0.03);
        }
    }
}

// Draws by token and by count, over plans and skews: what is sent is received, naive >= rank-dedup
// >= node-dedup over the NIC, and T k N rows are worked on.
TEST(Load, DrawsConserveRowsAndDedupNeverSendsMore) {
    for (const bool noise : {true, false}) {
        for (const Skew skew : {Skew::none, Skew::zipf, Skew::dirichlet}) {
            for (const Drawing drawing : {Drawing::by_token, Drawing::by_count}) {
                Scenario s = toy::scenario(2, 4);
                s.batch.sequence_length = 512;
                s.routing = {.noise = noise, .skew = skew, .parameter = 0.9, .seed = 5};
                std::vector<std::int64_t> across;
                for (const Dedup dedup : {Dedup::none, Dedup::rank, Dedup::node}) {
                    const DrawnGroup d = draw_group(s, toy::ep(dedup, 8), 0, 0, 0, drawing);
                    EXPECT_EQ(std::accumulate(d.rows.begin(), d.rows.end(), std::int64_t{0}),
                              8 * 512 * 4);
                    std::int64_t nic = 0;
                    const TrafficMatrix& copies = d.forwarded ? d.staged.over_nic : d.copies;
                    for (int i = 0; i < 8; ++i) {
                        for (int j = 0; j < 8; ++j) nic += i / 4 != j / 4 ? copies.at(i, j) : 0;
                    }
                    across.push_back(nic);
                }
                EXPECT_GE(across[0], across[1]);
                EXPECT_GE(across[1], across[2]);
            }
        }
    }
}

// Rows 1, 1, 2, 4 (mean 2): a part for each quarter of the 8 rows. Two experts of 1 fill the first.
TEST(RowSpread, PartsHoldEquallyManyRows) {
    const RowSpread spread = row_spread({4, 1, 2, 1});
    ASSERT_EQ(spread.num_parts, 3);
    EXPECT_DOUBLE_EQ(spread.parts[0].size, 0.5);
    EXPECT_DOUBLE_EQ(spread.parts[0].share, 0.25);
    EXPECT_DOUBLE_EQ(spread.parts[1].size, 1.0);
    EXPECT_DOUBLE_EQ(spread.parts[2].size, 2.0);
    EXPECT_DOUBLE_EQ(spread.parts[2].share, 0.5);
    EXPECT_EQ(row_spread({3, 3, 3}).num_parts, 0);
}

}  // namespace
}  // namespace headway
