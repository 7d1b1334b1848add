// Experts that backward computes again, from the rows as they arrived.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/reference/slots.hpp"
#include "runtime/reference/sparse_experts.hpp"

namespace headway::runtime {

// `order`: of the arrived rows by expert, or null where they arrived so. Fills `ffn` and returns
// what the experts return.
template <class S>
Matrix<S> experts_again(RankContext& context, const SparseShape& shape,
                        std::span<const ExpertWeights<S>> experts,
                        const std::vector<std::int64_t>* order, const SparseState<S>& state,
                        FfnState<S>& ffn) {
    const RepeatedForward repeated(context);
    if (order != nullptr) {
        const PhaseScope scope(context, {Phase::regroup, Pass::forward});
        ffn.x = gather_rows<S>(state.arrived, *order);
    } else {
        ffn.x = state.arrived;
    }
    const PhaseScope scope(context, {Phase::expert, Pass::forward});
    return expert_forward<S>(shape.activation, experts, state.entries.offset, ffn, shape.summation);
}

}  // namespace headway::runtime
