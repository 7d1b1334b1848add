#include "sim/topology.hpp"

#include <gtest/gtest.h>

#include "models/vocab/error.hpp"

namespace headway::sim {
namespace {

// 4 nodes of 4 GPUs: NVLink inside, a NIC per GPU, 2 nodes a leaf, 2:1.
Cluster four_nodes() {
    Cluster c{.name = "four", .num_nodes = 4, .gpus_per_node = 4};
    c.nvlink = NvLink{.domain = 4, .bandwidth = 450.0 * GB / second};
    c.fabric = Fabric{.nics_per_node = 4,
                      .nic = 50.0 * GB / second,
                      .nodes_per_leaf = 2,
                      .oversubscription = 2.0};
    return c;
}

std::vector<std::string> path_names(const Topology& t, int source, int destination) {
    std::vector<std::string> names;
    const Path path = t.path(source, destination);
    for (const std::uint32_t l : path.span()) names.push_back(t.link_name(l));
    return names;
}

using Names = std::vector<std::string>;

double capacity_of(const Topology& t, const std::string& name) {
    for (std::uint32_t l = 0; l < static_cast<std::uint32_t>(t.num_links()); ++l) {
        if (t.link_name(l) == name) return t.capacity()[l];
    }
    return -1.0;
}

TEST(Topology, PathsOfANvlinkClusterWithLeaves) {
    const Topology t(four_nodes());
    EXPECT_EQ(path_names(t, 5, 5), Names{});
    EXPECT_EQ(path_names(t, 0, 3), (Names{"nvlink_up:0", "nvlink_down:3"}));
    EXPECT_EQ(path_names(t, 1, 6), (Names{"nic_up:1", "nic_down:6"}));
    EXPECT_EQ(path_names(t, 1, 14), (Names{"nic_up:1", "leaf_up:0", "leaf_down:1", "nic_down:14"}));
    // 2 nodes x 4 NICs x 50 GB/s over 2
    EXPECT_DOUBLE_EQ(capacity_of(t, "leaf_up:0"), 200e9);
    EXPECT_DOUBLE_EQ(capacity_of(t, "nic_down:15"), 50e9);
}

// A pod of a leaf: 2 nodes x 4 NICs x 50 GB/s over 2 x 2. In two planes each has half, and a
// message a path in both.
TEST(Topology, PodsAndPlanes) {
    Cluster c = four_nodes();
    c.fabric->core = CoreTier{.leaves_per_pod = 1, .oversubscription = 2.0};
    const Names up = {"nic_up:1",    "leaf_up:0",   "core_up:0",
                      "core_down:1", "leaf_down:1", "nic_down:14"};
    EXPECT_EQ(path_names(Topology(c), 1, 14), up);
    EXPECT_DOUBLE_EQ(capacity_of(Topology(c), "core_up:0"), 100e9);
    c.fabric->planes = 2;
    EXPECT_EQ(Topology(c).live_paths(1, 14).size(), 2U);
    EXPECT_DOUBLE_EQ(capacity_of(Topology(c), "core_up:0.1"), 50e9);
    EXPECT_DOUBLE_EQ(capacity_of(Topology(c), "nic_up:1.0"), 25e9);
}

TEST(Topology, PairwiseLinksRelayToARail) {
    Cluster c = four_nodes();
    c.nvlink->pairwise = true;
    c.fabric->rails = true;
    const Topology t(c);
    EXPECT_EQ(path_names(t, 5, 7), (Names{"nvlink_pair:5.3"}));
    EXPECT_EQ(path_names(t, 1, 6), (Names{"nvlink_pair:1.2", "nic_up:2", "nic_down:6"}));
    EXPECT_DOUBLE_EQ(capacity_of(t, "nvlink_pair:1.2"), 150e9);
}

TEST(Topology, RailsStayOnTheirRailByWayOfNvlink) {
    Cluster c = four_nodes();
    c.fabric->rails = true;
    const Topology t(c);
    EXPECT_EQ(path_names(t, 1, 5), (Names{"nic_up:1", "nic_down:5"}));
    EXPECT_EQ(path_names(t, 1, 6),
              (Names{"nvlink_up:1", "nvlink_down:2", "nic_up:2", "nic_down:6"}));
    // leaf = group * rails + rail; a rail switch has 2 nodes x 1 NIC below, 50 GB/s above
    EXPECT_EQ(path_names(t, 1, 14), (Names{"nvlink_up:1", "nvlink_down:2", "nic_up:2", "leaf_up:2",
                                           "leaf_down:6", "nic_down:14"}));
    EXPECT_DOUBLE_EQ(capacity_of(t, "leaf_up:2"), 50e9);
}

TEST(Topology, RailsWithoutNvlinkCrossTheSpine) {
    Cluster c = four_nodes();
    c.nvlink.reset();
    c.pcie = Pcie{.bandwidth = 64.0 * GB / second};
    c.fabric->rails = true;
    EXPECT_EQ(path_names(Topology(c), 1, 6),
              (Names{"nic_up:1", "leaf_up:1", "leaf_down:2", "nic_down:6"}));
}

TEST(Topology, PcieSwitchesShareTheirUplink) {
    Cluster c{.name = "pcie", .num_nodes = 1, .gpus_per_node = 8};
    c.pcie = Pcie{.bandwidth = 64.0 * GB / second,
                  .gpus_per_switch = 4,
                  .root_bandwidth = 64.0 * GB / second};
    const Topology t(c);
    EXPECT_EQ(path_names(t, 0, 3), (Names{"pcie_up:0", "pcie_down:3"}));
    EXPECT_EQ(path_names(t, 0, 4),
              (Names{"pcie_up:0", "pcie_root_up:0", "pcie_root_down:1", "pcie_down:4"}));
}

TEST(Topology, FewNicsAreShared) {
    Cluster c = four_nodes();
    c.fabric->nics_per_node = 2;
    c.fabric->nodes_per_leaf = 0;
    EXPECT_EQ(path_names(Topology(c), 1, 7), (Names{"nic_up:0", "nic_down:3"}));
}

TEST(Topology, EcmpPicksOneUplinkBySeed) {
    Cluster c = four_nodes();
    c.fabric->spraying = Spraying::ecmp;
    c.fabric->uplinks_per_leaf = 4;
    const Topology a(c, 1), b(c, 1), other(c, 2);
    EXPECT_DOUBLE_EQ(capacity_of(a, "leaf_up:0.0"), 50e9);
    int moved = 0;
    for (int i = 0; i < 8; ++i) {
        for (int j = 8; j < 16; ++j) {
            EXPECT_EQ(path_names(a, i, j), path_names(b, i, j));
            moved += path_names(a, i, j) != path_names(other, i, j);
        }
    }
    EXPECT_GT(moved, 16) << "3 of 4 pairs should change uplinks with the seed";
    EXPECT_FALSE(a.is_symmetric());
}

TEST(Topology, OverridesScaleOneOrBothDirections) {
    Cluster c = four_nodes();
    c.link_overrides = {{.link = "nic:3", .bandwidth_factor = 0.5},
                        {.link = "nvlink_up:2", .bandwidth_factor = 0.1}};
    const Topology t(c);
    EXPECT_DOUBLE_EQ(capacity_of(t, "nic_up:3"), 25e9);
    EXPECT_DOUBLE_EQ(capacity_of(t, "nic_down:3"), 25e9);
    EXPECT_DOUBLE_EQ(capacity_of(t, "nvlink_up:2"), 45e9);
    EXPECT_DOUBLE_EQ(capacity_of(t, "nvlink_down:2"), 450e9);
    EXPECT_FALSE(t.is_symmetric());
    EXPECT_TRUE(Topology(four_nodes()).is_symmetric());
}

template <class Action>
std::string error_of(Action action) {
    try {
        action();
    } catch (const InputError& e) {
        return e.what();
    }
    return "no error";
}

TEST(Topology, AnUnknownLinkNamesTheKnownOnes) {
    Cluster c = four_nodes();
    c.link_overrides = {{.link = "nik_up:3", .bandwidth_factor = 0.5}};
    const std::string error = error_of([&] { Topology t(c); });
    EXPECT_NE(error.find("no link 'nik_up:3'"), std::string::npos) << error;
    EXPECT_NE(error.find("nic_up:0..15"), std::string::npos) << error;
    EXPECT_NE(error.find("did you mean 'nic_up'?"), std::string::npos) << error;
    c.link_overrides = {{.link = "nic_up:16", .bandwidth_factor = 0.5}};
    EXPECT_NE(error_of([&] { Topology t(c); }).find("no link 'nic_up:16'"), std::string::npos);
}

TEST(Topology, ADeadPathNamesThePairAndTheLink) {
    Cluster c = four_nodes();
    c.link_overrides = {{.link = "nic_down:6", .bandwidth_factor = 0.0}};
    const Topology t(c);
    try {
        (void)t.live_paths(1, 6);
        FAIL() << "a path over a dead link";
    } catch (const DeadPath& e) {
        EXPECT_STREQ(e.what(), "rank 1 cannot reach rank 6: link nic_down:6 is dead");
        EXPECT_EQ(e.where().link, "nic_down:6");
    }
    EXPECT_EQ(t.live_paths(1, 5).front().size, 2);
}

// Two NICs of B for each GPU are one NIC of 2 B.
TEST(Topology, AGpuSeesItsNicsAsOne) {
    Cluster c = four_nodes();
    c.fabric->nics_per_node = 8;
    const Topology t(c);
    EXPECT_EQ(path_names(t, 1, 6), (Names{"nic_up:1", "nic_down:6"}));
    EXPECT_DOUBLE_EQ(capacity_of(t, "nic_up:1"), 2 * 50e9);
    EXPECT_DOUBLE_EQ(capacity_of(t, "leaf_up:0"), 400e9);
}

TEST(Topology, NodesWithoutFabricAreAnError) {
    Cluster c = four_nodes();
    c.fabric.reset();
    EXPECT_NE(error_of([&] { Topology t(c); }).find("4 nodes and no fabric"), std::string::npos);
    c.nvlink->domain = 16;
    EXPECT_EQ(path_names(Topology(c), 0, 15), (Names{"nvlink_up:0", "nvlink_down:15"}));
}

}  // namespace
}  // namespace headway::sim
