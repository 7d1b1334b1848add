// The way of a choice under Dedup::rank and Dedup::node: where a row goes first, and where from
// there. A node is `ranks_per_node` consecutive ranks. A row for the own node goes straight to the
// expert's rank; one for another node goes to the rank there with the sender's number inside its
// node, which knows experts by their number in the node and sends it on. Rank-dedup: one node.
#pragma once

#include <span>
#include <vector>

#include "runtime/reference/dedup_stage.hpp"
#include "runtime/reference/router.hpp"

namespace headway::runtime {

struct DedupRoute {
    int rank = 0, num_ranks = 1;
    int ranks_per_node = 1;
    int experts_per_rank = 1;

    bool is_staged() const { return ranks_per_node < num_ranks; }
    int first_of_node() const { return rank / ranks_per_node * ranks_per_node; }
    bool is_near(int peer) const { return peer / ranks_per_node == rank / ranks_per_node; }
};

// One for every slot of the own rows; dropped slots stay.
template <class S>
std::vector<Choice<S>> first_choices(const DedupRoute& route, const Routed<S>& routed);

// One for every entry that the first stage brought: those from other nodes go on, those from the
// own node have arrived and stay.
template <class S>
std::vector<Choice<S>> second_choices(const DedupRoute& route, const DedupStage<S>& first);

}  // namespace headway::runtime
