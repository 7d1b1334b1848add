// Slots: the (row, choice) pairs of routed rows, in groups by expert, and the sums over a row's
// choices.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/reference/router.hpp"
#include "runtime/reference/row_exchange.hpp"

namespace headway::runtime {

// Kept slots by (head, expert); a slot is row * k + choice.
Grouping group_slots(std::span<const RowBlock> blocks, std::span<const std::int32_t> expert,
                     int top_k, int num_experts);

// out[row] = sum over its choices of gate * y[position of the slot], in the order of the choices.
template <class S>
Matrix<S> gated_sum(const Routed<S>& routed, std::span<const std::int64_t> position,
                    const Matrix<S>& y);

// The same without gates.
template <class S>
Matrix<S> sum_of_slots(std::span<const std::int64_t> position, std::size_t top_k,
                       const Matrix<S>& y);

}  // namespace headway::runtime
