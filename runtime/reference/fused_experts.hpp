// Local experts without laying copies out: what the fused HP kernel does, see sparse_experts.hpp.
// Its phases are permute (grouping of ids), expert (which gathers) and unpermute; backward has no
// unpermute, as the experts read the output's gradient by row themselves.
#pragma once

#include "runtime/reference/sparse_experts.hpp"

namespace headway::runtime {

template <class S>
Matrix<S> forward_fused(RankContext& context, const SparseShape& shape,
                        std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                        std::span<const RowBlock> blocks, const Routed<S>& routed,
                        SparseState<S>& state);

template <class S>
Matrix<S> backward_fused(RankContext& context, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                         const Routed<S>& routed, const SparseState<S>& state,
                         ConstMatrixView<S> dout, std::vector<S>& gate_gradient,
                         std::span<ExpertWeights<S>> gradients);

}  // namespace headway::runtime
