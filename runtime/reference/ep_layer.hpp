// EP: the expert-parallel MoE layer of one rank, forward and backward. Phases: shared_expert,
// route, latent_down, permute, count_exchange, dispatch, regroup, expert, ungroup, combine,
// unpermute, latent_up; a single rank has no exchanges. y = [sum over chosen e of g_e FFN_e(x D)] U
// + FFN_shared(x), D and U only with a latent width.
#pragma once

#include <optional>

#include "runtime/reference/sparse_experts.hpp"

namespace headway::runtime {

struct EpShape {
    SparseShape sparse;
    RoutingRule routing;
};

// Weights of one rank, or their gradients: the router, projections and shared expert are
// replicated, the routed experts are those that live here.
template <class S>
struct EpWeights {
    RouterWeights<S> router;                 // width d
    std::vector<ExpertWeights<S>> experts;   // [E / ranks]
    Matrix<S> latent_down, latent_up;        // [d, l] and [l, d]; empty without a latent width
    std::optional<ExpertWeights<S>> shared;  // all shared experts side by side
};

template <class S>
struct EpState {
    Routed<S> routed;
    Matrix<S> latent;      // x D
    Matrix<S> latent_sum;  // before U
    SparseState<S> sparse;
    FfnState<S> shared;
};

// `forced`: experts of each token [tokens, k], or empty.
template <class S>
Matrix<S> ep_forward(RankContext& context, const EpShape& shape, const EpWeights<S>& weights,
                     ConstMatrixView<S> x, EpState<S>& state,
                     std::span<const std::int32_t> forced = {});

// Returns dx and adds to `gradients`: for replicated weights, what this rank's tokens give.
template <class S>
Matrix<S> ep_backward(RankContext& context, const EpShape& shape, const EpWeights<S>& weights,
                      ConstMatrixView<S> x, const EpState<S>& state, ConstMatrixView<S> dout,
                      EpWeights<S>& gradients);

}  // namespace headway::runtime
