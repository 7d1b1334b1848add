#include "models/vocab/cluster.hpp"

#include <gtest/gtest.h>

#include <array>

namespace headway {
namespace {

// The closed form counts what path_class says of every single peer, for any domain, node, leaf and
// stride.
TEST(PeersByClass, EqualsACountOverAllPeers) {
    for (const int gpus_per_node : {1, 4, 8}) {
        for (const int domain : {0, 2, 4, 8, 32}) {
            for (const int nodes_per_leaf : {-1, 0, 1, 3}) {
                for (const int stride : {1, 2, 3, 4, 5}) {
                    Cluster c;
                    c.gpus_per_node = gpus_per_node;
                    c.num_nodes = 16;
                    if (domain > 0) c.nvlink = NvLink{.domain = domain};
                    if (nodes_per_leaf >= 0) c.fabric = Fabric{.nodes_per_leaf = nodes_per_leaf};
                    if (c.fabric && stride % 2 == 1) c.fabric->core = CoreTier{.leaves_per_pod = 2};
                    const int ranks = 10 * gpus_per_node;
                    std::array<int, static_cast<std::size_t>(kNumPathClasses)> counted{};
                    for (int peer = stride; peer < ranks; peer += stride)
                        ++counted[static_cast<std::size_t>(path_class(c, 0, peer))];
                    EXPECT_EQ(peers_by_class(c, ranks, stride), counted)
                        << gpus_per_node << " GPUs a node, domain " << domain << ", "
                        << nodes_per_leaf << " nodes a leaf, stride " << stride;
                }
            }
        }
    }
}

}  // namespace
}  // namespace headway
