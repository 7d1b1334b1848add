// Traffic of one MoE layer in one group, exactly, from what the tokens chose: which copies travel
// between which ranks. Entries count token copies; times the bytes of a copy they are the P x P
// byte matrix that a real run must exchange. Combine is the transpose of dispatch, and the backward
// pass repeats both.
#pragma once

#include <cstdint>
#include <vector>

#include "models/vocab/plan.hpp"
#include "models/vocab/traffic_matrix.hpp"
#include "models/workload/routing.hpp"

namespace headway::inline workload {

// Copies from each source rank to each destination rank of the group, the diagonal included.
// `assignments` holds one entry a source rank; expert e lives on rank e / (num_experts /
// group_size).
//   none: a copy per chosen expert; rank: a copy per distinct destination rank.
// For Dedup::node use node_dispatch_copies.
// Expert tensor parallelism: `expert_tensor` consecutive ranks, a part, have the experts of one in
// common. A copy per chosen expert goes to the rank of the part that has the source's place in its
// own; one per distinct rank goes to each.
TrafficMatrix dispatch_copies(const std::vector<Assignment>& assignments, int num_experts,
                              Dedup dedup, int expert_tensor = 1);

// Node-dedup: `over_nic` holds one copy per distinct remote node, sent to the GPU there with the
// sender's local number; `inside` what then travels within nodes: forwarded copies, and the
// sender's own-node destinations (one per rank).
struct NodeCopies {
    TrafficMatrix over_nic;
    TrafficMatrix inside;
};
NodeCopies node_dispatch_copies(const std::vector<Assignment>& assignments, int num_experts,
                                int gpus_per_node, int expert_tensor = 1);

// Rows that each rank's experts work on. [rank]
std::vector<std::int64_t> rows_per_rank(const std::vector<Assignment>& assignments, int num_experts,
                                        int expert_tensor = 1);

// Rows of each expert, summed over sources. [E]
std::vector<std::int64_t> rows_per_expert(const std::vector<Assignment>& assignments,
                                          int num_experts);

// Copies times bytes a copy.
TrafficMatrix scaled(const TrafficMatrix& copies, std::int64_t bytes_per_copy);

// HP: sub-tokens from each rank to each rank of the group, for tokens[r] tokens on rank r. With N
// <= H ranks, rank j owns heads [j H/N, (j+1) H/N) and gets them of every token. With N > H, head h
// is shared by c = N/H consecutive ranks, and the tokens of source i go to member i mod c of each
// head's ranks.
TrafficMatrix head_scatter_copies(const std::vector<std::int64_t>& tokens, int num_heads);

// The ranks' share of the tokens that choose experts of a head under HP x EP: sub-tokens rank r
// holds after the scatter.
std::vector<std::int64_t> scattered_sub_tokens(const std::vector<std::int64_t>& tokens,
                                               int num_heads);

}  // namespace headway::inline workload
