// What a cluster becomes as namespaces, bridges and cables; no rights are needed.
#include "runtime/lab/lab_plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "models/vocab/error.hpp"
#include "runtime/lab/lab_script.hpp"
#include "sim/topology.hpp"

namespace headway::runtime {
namespace {

constexpr Bandwidth kGbps = 1e9 / 8.0 * byte / second;

// 4 nodes of 2 GPUs and one NIC, two nodes a leaf, 2:1.
Cluster two_leaves() {
    Cluster cluster{.name = "two_leaves", .num_nodes = 4, .gpus_per_node = 2};
    cluster.pcie = Pcie{.bandwidth = 80.0 * kGbps};
    cluster.fabric = Fabric{
        .nics_per_node = 1, .nic = 40.0 * kGbps, .nodes_per_leaf = 2, .oversubscription = 2.0};
    return cluster;
}

// 2 nodes of 4 GPUs with NVLink, a NIC each on rails of their own.
Cluster rails() {
    Cluster cluster{.name = "rails", .num_nodes = 2, .gpus_per_node = 4};
    cluster.nvlink = NvLink{.domain = 4, .bandwidth = 400.0 * kGbps};
    cluster.fabric = Fabric{.nics_per_node = 4, .nic = 40.0 * kGbps, .rails = true};
    return cluster;
}

const LabCable& cable_of(const LabPlan& plan, const std::string& link) {
    const auto it = std::find_if(
        plan.cables.begin(), plan.cables.end(),
        [&](const LabCable& cable) { return cable.up_link == link || cable.down_link == link; });
    if (it == plan.cables.end()) throw std::logic_error("no cable for " + link);
    return *it;
}

bool says(const LabPlan& plan, const std::string& words) {
    return describe(plan).find(words) != std::string::npos;
}

TEST(LabPlan, EveryLinkOfTheSimulatorIsACableAtItsScaledRate) {
    for (const Cluster& cluster : {two_leaves(), rails()}) {
        const LabPlan plan = plan_lab(cluster, {.scale = 0.025});
        const sim::Topology topology(cluster);
        for (std::uint32_t l = 0; l < static_cast<std::uint32_t>(topology.num_links()); ++l) {
            const std::string name = topology.link_name(l);
            const LabCable& cable = cable_of(plan, name);
            const Bandwidth rate = cable.up_link == name ? cable.up : cable.down;
            EXPECT_NEAR(rate.in(byte / second), 0.025 * topology.capacity()[l], 1.0) << name;
        }
    }
}

TEST(LabPlan, ATrunkIsTheNicsOfItsLeafOverTheOversubscription) {
    // 2 nodes x 1 NIC x 40 Gbit/s / 2, and one spine over both leaves.
    const LabPlan plan = plan_lab(two_leaves(), {});
    EXPECT_DOUBLE_EQ(cable_of(plan, "leaf_up:1").up.in(kGbps), 40.0);
    EXPECT_EQ(cable_of(plan, "leaf_up:1").bridge, "spine");
}

TEST(LabPlan, GpusThatShareANicMeetBeforeIt) {
    const LabPlan plan = plan_lab(two_leaves(), {});
    const LabCable& nic = cable_of(plan, "nic_up:3");
    EXPECT_EQ(nic.host, -1);
    EXPECT_EQ(nic.lower_bridge, "card3");
    EXPECT_EQ(nic.bridge, "leaf1");
    const auto sharers = std::count_if(
        plan.cables.begin(), plan.cables.end(),
        [](const LabCable& c) { return c.bridge == "card3" && c.up_link.empty() && c.host >= 6; });
    EXPECT_EQ(sharers, 2);
}

TEST(LabPlan, RoutesFollowTheSimulatorsPaths) {
    // Rank 0 to rank 1: NVLink; to 4, its own rail: the NIC; to 6: over its neighbour 2.
    const std::vector<LabRoute> routes = plan_lab(rails(), {}).hosts[0].routes;
    const auto to = [&](int peer) {
        return *std::find_if(routes.begin(), routes.end(),
                             [&](const LabRoute& r) { return r.peer == peer; });
    };
    EXPECT_EQ(to(1).interface, "nvl");
    EXPECT_EQ(to(4).interface, "nic");
    EXPECT_EQ(to(6).interface, "nvl");
    EXPECT_EQ(to(6).via, 2);
    EXPECT_EQ(to(4).via, -1);
}

TEST(LabPlan, OverridesSlowAndKillLinksAndSlowRanks) {
    Cluster cluster = two_leaves();
    cluster.link_overrides = {{"nic_down:1", 0.25}, {"leaf:0", 0.5}, {"nic_up:2", 0.0}};
    cluster.rank_overrides = {{5, 0.8}};
    const LabPlan plan = plan_lab(cluster, {});
    EXPECT_DOUBLE_EQ(cable_of(plan, "nic_down:1").down.in(kGbps), 10.0);
    EXPECT_DOUBLE_EQ(cable_of(plan, "nic_up:1").up.in(kGbps), 40.0);
    EXPECT_DOUBLE_EQ(cable_of(plan, "leaf_down:0").down.in(kGbps), 20.0);
    EXPECT_TRUE(cable_of(plan, "nic_up:2").dead);
    EXPECT_TRUE(says(plan, "a link dead one way: nic_up:2 and nic_down:2 are both down"));
    EXPECT_DOUBLE_EQ(plan.hosts[5].speed, 0.8);
    EXPECT_TRUE(says(plan, "gpu5: its ranks run 80 % of the time"));
    // The dead port is down, and has no bucket.
    const LabScript script = fabric_script(plan, std::vector<int>(8, 1));
    EXPECT_NE(script.ip.find("link set nic2 down"), std::string::npos);
    EXPECT_EQ(script.tc.find("dev nic2 "), std::string::npos);
    EXPECT_NE(script.tc.find("dev nic1 parent 1: classid 1:1 htb rate 10000000000bit"),
              std::string::npos);
}

TEST(LabPlan, NodesAsHostsShareALoopback) {
    const LabPlan plan = plan_lab(two_leaves(), {.hosts = HostKind::nodes});
    ASSERT_EQ(plan.hosts.size(), 4U);
    EXPECT_EQ(plan.hosts[2].ranks, (std::vector<int>{4, 5}));
    EXPECT_EQ(cable_of(plan, "nic_up:2").host, 2);
    EXPECT_TRUE(says(plan, "links inside a node: its ranks share a host and its loopback"));
}

TEST(LabPlan, WhatCannotBeLaidOutIsRefused) {
    const auto refused = [](const Cluster& cluster, LabOptions options) -> std::string {
        try {
            plan_lab(cluster, options);
        } catch (const InputError& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_NE(refused(rails(), {.hosts = HostKind::nodes}).find("4 NICs a node"),
              std::string::npos);
    Cluster large = two_leaves();
    large.num_nodes = 200;
    EXPECT_NE(refused(large, {}).find("400 hosts"), std::string::npos);
    Cluster typo = two_leaves();
    typo.link_overrides = {{"nik:0", 0.5}};
    EXPECT_NE(refused(typo, {}).find("no link 'nik:0'"), std::string::npos);
    Cluster apart = two_leaves();
    apart.fabric.reset();
    EXPECT_NE(refused(apart, {}).find("no fabric"), std::string::npos);
    Cluster pods = two_leaves(), planes = pods, pairs = rails();
    pods.fabric->core = CoreTier{};
    EXPECT_NE(refused(pods, {}).find("fabric.core"), std::string::npos);
    planes.fabric->planes = 2;
    EXPECT_NE(refused(planes, {}).find("2 planes"), std::string::npos);
    pairs.nvlink->pairwise = true;
    EXPECT_NE(refused(pairs, {}).find("nvlink.pairwise"), std::string::npos);
}

TEST(LabPlan, SaysWhatItDoesNotEmulate) {
    Cluster cluster = two_leaves();
    cluster.fabric->spraying = Spraying::ecmp;
    cluster.fabric->uplinks_per_leaf = 4;
    const LabPlan plan = plan_lab(cluster, {});
    EXPECT_TRUE(says(plan, "hashed uplinks"));
    EXPECT_TRUE(says(plan, "latency of links"));
    EXPECT_TRUE(says(plan, "RDMA"));
    EXPECT_DOUBLE_EQ(cable_of(plan, "leaf_up:0").up.in(kGbps), 40.0);  // 4 uplinks of a quarter
}

}  // namespace
}  // namespace headway::runtime
