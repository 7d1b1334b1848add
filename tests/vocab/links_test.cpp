// Links by name.
#include "models/vocab/links.hpp"

#include <gtest/gtest.h>

namespace headway {
namespace {

// 4 nodes of 4 GPUs with a NIC each, 2 nodes a leaf.
Cluster cluster() {
    return {.num_nodes = 4,
            .gpus_per_node = 4,
            .nvlink = NvLink{.domain = 4},
            .fabric = Fabric{.nics_per_node = 4, .nodes_per_leaf = 2}};
}

TEST(Links, EveryLinkIsFoundByItsName) {
    for (const bool rails : {false, true}) {
        for (const Spraying spraying : {Spraying::ideal, Spraying::ecmp}) {
            Cluster c = cluster();
            c.nvlink->pairwise = rails;
            c.fabric->planes = rails ? 2 : 1;
            c.fabric->core = CoreTier{.leaves_per_pod = 1, .uplinks_per_pod = 2};
            c.fabric->rails = rails;
            c.fabric->spraying = spraying;
            c.fabric->uplinks_per_leaf = 3;
            for (int k = 0; k < kNumLinkKinds; ++k) {
                const auto kind = static_cast<LinkKind>(k);
                for (int i = 0; i < num_links(c, kind); ++i) {
                    const std::vector<NamedLink> found = links_named(c, link_name(c, {kind, i}));
                    ASSERT_EQ(found.size(), 1U) << link_name(c, {kind, i});
                    EXPECT_EQ(found[0], (NamedLink{kind, i}));
                }
            }
        }
    }
}

TEST(Links, ANameWithoutDirectionIsBoth) {
    EXPECT_EQ(links_named(cluster(), "nic:15").size(), 2U);
    Cluster c = cluster();
    c.fabric->spraying = Spraying::ecmp;
    c.fabric->uplinks_per_leaf = 3;
    EXPECT_EQ(links_named(c, "leaf:1").size(), 2U * 3U);
}

TEST(Links, WhatIsNotThereIsNotFound) {
    for (const char* name :
         {"nic:16", "nic", "nic:", "nic:-1", "nic: 1", "nic:01", "nic:1x", "nic_up_down:1",
          "pcie:0", "leaf:2", "leaf_up:0.0", "nic:1.0", "nic:99999999999999999999"})
        EXPECT_TRUE(links_named(cluster(), name).empty()) << name;
}

// Number 1 of the second domain is rank 5, which has no link to itself; a NIC has a port in each
// plane, a leaf the uplinks of one plane before the next one's.
TEST(Links, PartsAreGpusOfTheDomainOrPlanes) {
    Cluster c = cluster();
    c.nvlink->pairwise = true;
    c.fabric->planes = 2;
    c.fabric->spraying = Spraying::ecmp;
    c.fabric->uplinks_per_leaf = 3;
    EXPECT_EQ(links_named(c, "nvlink_pair:5").size(), 3U);
    EXPECT_EQ(links_named(c, "nvlink_pair:5.3")[0], (NamedLink{LinkKind::nvlink_pair, 5 * 3 + 2}));
    EXPECT_EQ(links_named(c, "nic:2.1").size(), 2U);
    EXPECT_EQ(links_named(c, "leaf_up:1.5")[0], (NamedLink{LinkKind::leaf_up, 6 + 3 + 2}));
    for (const char* name : {"nvlink_pair:5.1", "nvlink_pair:5.4", "nvlink:5", "nic:2.2", "core:0"})
        EXPECT_TRUE(links_named(c, name).empty()) << name;
}

// An exchange of all waits for the slowest link; a faster one helps only when all are.
TEST(Links, TheSlowestLinkOfAClassCounts) {
    Cluster c = cluster();
    c.link_overrides = {{.link = "nic:1", .bandwidth_factor = 0.5},
                        {.link = "nic_up:2", .bandwidth_factor = 0.25}};
    EXPECT_EQ(least_link_factor(c, PathClass::nic), 0.25);
    EXPECT_EQ(least_link_factor(c, PathClass::nvlink), 1.0);
    c.link_overrides = {{.link = "nic:1", .bandwidth_factor = 2.0}};
    EXPECT_EQ(least_link_factor(c, PathClass::nic), 1.0);
    c.link_overrides.clear();
    for (int i = 0; i < 16; ++i)
        c.link_overrides.push_back({.link = "nic:" + std::to_string(i), .bandwidth_factor = 2.0});
    EXPECT_EQ(least_link_factor(c, PathClass::nic), 2.0);
}

}  // namespace
}  // namespace headway
