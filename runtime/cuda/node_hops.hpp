// Node-dedup's two hops, as index arithmetic on the device: runtime/reference/dedup_route.hpp is
// the same on the host. A node is `ranks_per_node` consecutive ranks, with the experts that live
// there one after the other.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

namespace headway::runtime {

struct NodeHops {
    int rank = 0, ranks_per_node = 1, experts_per_rank = 1;

    int first_of_node() const { return rank / ranks_per_node * ranks_per_node; }
    int experts_per_node() const { return ranks_per_node * experts_per_rank; }
};

// hop_index[i] = peer * experts_per_node + number of expert index[i] inside its node. The peer is
// the expert's rank on the own node, else the rank of the own number on the expert's node.
void first_hops(const NodeHops& hops, std::int64_t count, const std::int32_t* index,
                std::int32_t* hop_index, cudaStream_t stream);

// Records that arrived, experts by number inside the node or -1, in place: those at [own[0],
// own[1]) came from the own node and stay, which is written as -2 - local expert; the others say
// where their rows go on to: rank of the node * experts_per_rank + expert there.
void second_hops(const NodeHops& hops, std::array<std::int64_t, 2> own, std::int32_t* records,
                 cudaStream_t stream);

// keys[i]: the local expert of a record that stays, else -1.
void stay_keys(std::int64_t count, const std::int32_t* records, std::int32_t* keys,
               cudaStream_t stream);

}  // namespace headway::runtime
