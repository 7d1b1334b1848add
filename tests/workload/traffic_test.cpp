// Traffic matrices against counts made by hand and against conservation laws.
#include "models/workload/traffic.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace headway {
namespace {

std::vector<Assignment> sampled_group(int ranks, const RouterShape& shape, std::int64_t tokens,
                                      const Routing& routing) {
    std::vector<Assignment> group;
    for (int r = 0; r < ranks; ++r)
        group.push_back(sample_assignment(routing, shape, {.source_rank = r}, tokens));
    return group;
}

// Two ranks, four experts (0, 1 on rank 0; 2, 3 on rank 1), k = 2.
// Rank 0's tokens choose {0, 1}, {1, 2}, {2, 3}; rank 1's token chooses {0, 3}.
TEST(DispatchCopies, HandCounted) {
    const std::vector<Assignment> group = {{3, 2, {0, 1, 1, 2, 2, 3}}, {1, 2, {0, 3}}};
    const TrafficMatrix naive = dispatch_copies(group, 4, Dedup::none);
    EXPECT_EQ(naive.bytes, (std::vector<std::int64_t>{3, 3, 1, 1}));
    const TrafficMatrix dedup = dispatch_copies(group, 4, Dedup::rank);
    EXPECT_EQ(dedup.bytes, (std::vector<std::int64_t>{2, 2, 1, 1}));
    EXPECT_EQ(rows_per_rank(group, 4), (std::vector<std::int64_t>{4, 4}));
    EXPECT_EQ(rows_per_expert(group, 4), (std::vector<std::int64_t>{2, 2, 2, 2}));
}

TEST(DispatchCopies, NaiveConservesTokensTimesKAndDedupNeverSendsMore) {
    const RouterShape shape{64, 6, 1, 1};
    for (double s : {0.0, 1.0}) {
        Routing routing;
        routing.skew = s > 0 ? Skew::zipf : Skew::none;
        routing.parameter = s;
        const auto group = sampled_group(8, shape, 512, routing);
        const TrafficMatrix naive = dispatch_copies(group, 64, Dedup::none);
        const TrafficMatrix dedup = dispatch_copies(group, 64, Dedup::rank);
        for (int i = 0; i < 8; ++i) {
            EXPECT_EQ(naive.sent(i) + naive.at(i, i), 512 * 6);
            for (int j = 0; j < 8; ++j)
                EXPECT_LE(dedup.at(i, j), std::min<std::int64_t>(512, naive.at(i, j)));
        }
        const std::vector<std::int64_t> rows = rows_per_rank(group, 64);
        for (int j = 0; j < 8; ++j) {
            EXPECT_EQ(rows[static_cast<std::size_t>(j)], naive.received(j) + naive.at(j, j));
        }
    }
}

// Every (token, destination rank) pair of rank-dedup is served inside exactly one node; over the
// NIC a token crosses once per distinct remote node.
TEST(NodeCopies, InsideEqualsRankDedupAndNicIsOneCopyPerNode) {
    const RouterShape shape{32, 4, 1, 1};
    const auto group = sampled_group(8, shape, 256, Routing{});
    const TrafficMatrix dedup = dispatch_copies(group, 32, Dedup::rank);
    const NodeCopies node = node_dispatch_copies(group, 32, 4);
    EXPECT_EQ(std::accumulate(node.inside.bytes.begin(), node.inside.bytes.end(), std::int64_t{0}),
              std::accumulate(dedup.bytes.begin(), dedup.bytes.end(), std::int64_t{0}));
    for (int i = 0; i < 8; ++i) {
        for (int j = 0; j < 8; ++j) {
            if (i / 4 != j / 4) {
                EXPECT_EQ(node.inside.at(i, j), 0);
            }
            if (i % 4 != j % 4 || i / 4 == j / 4) {
                EXPECT_EQ(node.over_nic.at(i, j), 0);
            }
        }
        EXPECT_LE(node.over_nic.sent(i), 256);
    }
}

TEST(Assignment, IsDistinctRepeatableAndIndependentAcrossRanks) {
    for (const RouterShape& shape :
         {RouterShape{16, 16, 1, 1}, RouterShape{64, 8, 8, 4}, RouterShape{32, 1, 1, 1}}) {
        Routing routing;
        routing.skew = Skew::zipf;
        routing.parameter = 2.0;
        const Assignment a = sample_assignment(routing, shape, {}, 300);
        EXPECT_EQ(a.expert, sample_assignment(routing, shape, {}, 300).expert);
        for (std::int64_t t = 0; t < 300; ++t) {
            std::vector<std::int32_t> row(a.expert.begin() + t * shape.top_k,
                                          a.expert.begin() + (t + 1) * shape.top_k);
            std::sort(row.begin(), row.end());
            EXPECT_EQ(std::unique(row.begin(), row.end()), row.end());
            EXPECT_GE(row.front(), 0);
            EXPECT_LT(row.back(), shape.num_experts);
        }
    }
    EXPECT_NE(sample_assignment(Routing{}, {64, 4, 1, 1}, {.source_rank = 0}, 64).expert,
              sample_assignment(Routing{}, {64, 4, 1, 1}, {.source_rank = 1}, 64).expert);
}

TEST(Assignment, WithoutNoiseIsTheExpectation) {
    Routing routing;
    routing.noise = false;
    const auto rows = rows_per_expert({sample_assignment(routing, {16, 4, 1, 1}, {}, 100)}, 16);
    for (std::int64_t r : rows) EXPECT_EQ(r, 25);  // T k / E
    routing.skew = Skew::zipf;
    routing.parameter = 1.5;
    const Assignment a = sample_assignment(routing, {16, 4, 1, 1}, {}, 100);
    for (std::int64_t t = 0; t < 100; ++t) {
        std::vector<std::int32_t> row(a.expert.begin() + t * 4, a.expert.begin() + (t + 1) * 4);
        std::sort(row.begin(), row.end());
        EXPECT_EQ(std::unique(row.begin(), row.end()), row.end());
    }
}

// Groups are honoured without noise too: no token uses more than t of G, and rows are expected
// ones.
TEST(Assignment, WithoutNoiseKeepsGroupsAndRows) {
    Routing routing;
    routing.noise = false;
    for (const GroupScore score : {GroupScore::random, GroupScore::max, GroupScore::top2_sum}) {
        const Assignment a = sample_assignment(routing, {64, 6, 8, 2, score}, {}, 320);
        for (std::int64_t t = 0; t < 320; ++t) {
            std::vector<std::int32_t> row(a.expert.begin() + t * 6, a.expert.begin() + t * 6 + 6);
            std::sort(row.begin(), row.end());
            EXPECT_EQ(std::unique(row.begin(), row.end()), row.end());
            std::vector<std::int32_t> groups;
            for (const std::int32_t e : row) groups.push_back(e / 8);
            groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
            EXPECT_LE(groups.size(), 2U);
        }
        for (const std::int64_t r : rows_per_expert({a}, 64))
            EXPECT_LE(std::abs(r - 30), 3);  // T k / E
    }
}

// N <= H: every rank gets T H/N sub-tokens from every rank, whatever k. N > H: T from those it
// serves.
TEST(HeadScatter, IsUniformAndIndependentOfRouting) {
    const TrafficMatrix small = head_scatter_copies({10, 10, 10, 10}, 8);
    for (std::int64_t b : small.bytes) EXPECT_EQ(b, 20);
    const TrafficMatrix wide = head_scatter_copies(std::vector<std::int64_t>(8, 10), 2);
    for (int r = 0; r < 8; ++r) {
        EXPECT_EQ(wide.sent(r) + wide.at(r, r), 20);      // T H
        EXPECT_EQ(wide.received(r) + wide.at(r, r), 20);  // T N / (N / H)
    }
    EXPECT_EQ(scattered_sub_tokens(std::vector<std::int64_t>(8, 10), 2),
              std::vector<std::int64_t>(8, 20));
}

}  // namespace
}  // namespace headway
