// One stage of a deduplicated exchange: the rows of the choices travel once for every distinct peer
// that a row's choices go to; what the choices are (an expert as the peer knows it, and a gate)
// goes before the rows. Rank-dedup is one stage, node-dedup two: to the node, and inside it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/communicator.hpp"
#include "runtime/reference/row_exchange.hpp"

namespace headway::runtime {

// An expert that a row has chosen, and where the row goes for it.
template <class S>
struct Choice {
    std::int64_t row = 0;
    std::int32_t peer = -1;  // -1: stays
    std::int32_t expert = 0;
    S gate = S(0);
};

// "Copy" is a row that travels; "entry" is a choice that travels with it.
template <class S>
struct DedupStage {
    std::vector<std::int64_t> copy_row;      // [copies sent] row here
    std::vector<std::int64_t> entry_choice;  // [entries sent] index of the choice here
    std::vector<std::int64_t> sent_copies, received_copies;    // [peers]
    std::vector<std::int64_t> sent_entries, received_entries;  // [peers]
    std::vector<Choice<S>> arrived;  // [entries received] `row`: copy among those received

    std::int64_t num_received() const;  // copies
};

// Copies and entries by peer, then by row. The choices of a row stand together; peers that occur
// are 0 .. num_peers - 1.
template <class S>
DedupStage<S> plan_stage(std::span<const Choice<S>> choices, int num_peers);

// Tells the peers what they get: sets what the stage has received.
template <class S>
void exchange_choices(Communicator& peers, std::span<const Choice<S>> choices,
                      DedupStage<S>& stage);

// A number for every entry goes back to where its choice was made, to result[choice]; those of
// choices that did not travel stay as they are.
template <class S>
void return_to_choices(Communicator& peers, const DedupStage<S>& stage, std::span<const S> by_entry,
                       std::span<S> result);

// to[row of a copy] += copies: what came back for the copies of a row, in the order of the peers.
template <class S>
void add_copies(const DedupStage<S>& stage, ConstMatrixView<S> copies, MatrixView<S> to);

}  // namespace headway::runtime
