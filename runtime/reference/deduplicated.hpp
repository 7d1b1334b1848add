// The exchanges of Dedup::rank and Dedup::node: see sparse_experts.hpp, which calls them.
#pragma once

#include "runtime/reference/sparse_experts.hpp"

namespace headway::runtime {

template <class S>
Matrix<S> forward_dedup(RankContext& context, Communicator& peers, const SparseShape& shape,
                        std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                        const Routed<S>& routed, SparseState<S>& state);

template <class S>
Matrix<S> backward_dedup(RankContext& context, Communicator& peers, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, const Routed<S>& routed,
                         const SparseState<S>& state, ConstMatrixView<S> dout,
                         std::vector<S>& gate_gradient, std::span<ExpertWeights<S>> gradients);

}  // namespace headway::runtime
