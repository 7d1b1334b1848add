// Rows on the move: stable grouping of items by key, gathering rows by index, and the all-to-all of
// whole rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/communicator.hpp"
#include "runtime/reference/matrix.hpp"

namespace headway::runtime {

// Group g is made of items order[offset[g]] .. order[offset[g + 1] - 1].
struct Grouping {
    std::vector<std::int64_t> offset;  // [groups + 1]
    std::vector<std::int64_t> order;   // [items in a group]

    std::int64_t size(std::int64_t group) const {
        return offset[static_cast<std::size_t>(group) + 1] -
               offset[static_cast<std::size_t>(group)];
    }
};

// Counting sort: items with the same key keep their order; a negative key is in no group.
Grouping group_by(std::span<const std::int64_t> key, std::int64_t num_groups);

// position[order[i]] = i; -1 for items in no group.
std::vector<std::int64_t> positions(const Grouping& grouping, std::size_t num_items);

// Row i of the result is row index[i] of x.
template <class S>
Matrix<S> gather_rows(ConstMatrixView<S> x, std::span<const std::int64_t> index);

// sent[d] and received[s] count rows; the rows of `x` lie by destination, those of the result by
// source.
template <class S>
Matrix<S> exchange_rows(Communicator& peers, ConstMatrixView<S> x,
                        std::span<const std::int64_t> sent, std::span<const std::int64_t> received);
template <class S>
void exchange_rows_into(Communicator& peers, ConstMatrixView<S> x,
                        std::span<const std::int64_t> sent, std::span<const std::int64_t> received,
                        S* result);

}  // namespace headway::runtime
