// Sparse experts: from routed rows to the gated sum of their experts' outputs, and back. With
// `peers`, expert e of a router lives on rank e / (E / peers) and rows travel there and back (EP,
// and the inner EP of HP x EP); without, all experts are local. `fused` (HP) gathers each expert's
// rows when it computes, instead of laying all copies out first. Three ways to travel: a copy per
// chosen expert (Dedup::none), a copy per distinct rank (Dedup::rank), or a copy per distinct other
// node, which the rank that gets it sends on (Dedup::node); under the last two the destination
// forms the gated sum over its own experts. What a copy needs besides its row (counts, and under
// dedup its experts and gates) goes with count_exchange, of both stages of Dedup::node.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "models/vocab/plan.hpp"
#include "runtime/rank_context.hpp"
#include "runtime/reference/dedup_stage.hpp"
#include "runtime/reference/expert_ffn.hpp"
#include "runtime/reference/router.hpp"
#include "runtime/reference/row_exchange.hpp"

namespace headway::runtime {

struct SparseShape {
    int num_experts = 0;  // E, of one router, on all peers together
    Activation activation = Activation::gelu;
    Dedup dedup = Dedup::none;
    bool fused = false;  // without peers only
    Summation summation = Summation::fast;
    int ranks_per_node = 0;      // Dedup::node: consecutive peers; 0: all are on one node
    bool experts_again = false;  // backward computes the experts again; not `fused`
};

// What Dedup::rank and Dedup::node leave besides: copies that arrived are numbered through both
// stages, and so are entries.
template <class S>
struct DedupState {
    DedupStage<S> first, second;           // the second of Dedup::node with several nodes
    std::vector<std::int64_t> entry_copy;  // [entries received] copy that each entry is of
    std::vector<S> entry_gate;             // [entries received]
    Matrix<S> expert_output;               // by entry group
};

// What forward leaves for backward. "Slot" is row * k + choice of a source; "copy" is a row that
// travels; "entry" is a copy at one local expert.
template <class S>
struct SparseState {
    std::vector<std::int64_t> copy_row;       // [copies sent] row of x; Dedup::none, as the next
    std::vector<std::int64_t> slot_position;  // [rows, k] copy of a slot, -1: dropped
    std::vector<std::int64_t> sent_copies;    // [peers]
    std::vector<std::int64_t> received_copies;
    DedupState<S> dedup;
    Grouping entries;    // received entries by local expert
    Matrix<S> arrived;   // rows before they are regrouped, where the experts run again; then ffn is
    FfnState<S> ffn;     // empty
    Matrix<S> returned;  // [copies sent] outputs at the source, Dedup::none
};

// What a forward that is repeated need not exchange again: how many copies go to and come from
// every peer, and which of them are each expert's. Rank- and node-dedup tell their choices again.
template <class S>
SparseState<S> counts_alone(SparseState<S>& state) {
    SparseState<S> counts;
    counts.sent_copies = std::move(state.sent_copies);
    counts.received_copies = std::move(state.received_copies);
    counts.entries = std::move(state.entries);
    return counts;
}

// experts: [heads * E] without peers, [E / peers] with.
template <class S>
Matrix<S> sparse_forward(RankContext& context, Communicator* peers, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                         std::span<const RowBlock> blocks, const Routed<S>& routed,
                         SparseState<S>& state);

// `x` is that of forward. Returns dx; sets the gradient of every gate and adds to the experts'
// gradients.
template <class S>
Matrix<S> sparse_backward(RankContext& context, Communicator* peers, const SparseShape& shape,
                          std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                          const Routed<S>& routed, const SparseState<S>& state,
                          ConstMatrixView<S> dout, std::vector<S>& gate_gradient,
                          std::span<ExpertWeights<S>> gradients);

}  // namespace headway::runtime
