// Shared experts: a dense FFN on every token of the rank, beside the routed experts.
#pragma once

#include "runtime/reference/expert_ffn.hpp"

namespace headway::runtime {

template <class S>
Matrix<S> shared_forward(Activation activation, const ExpertWeights<S>& shared,
                         ConstMatrixView<S> x, FfnState<S>& state, Summation summation) {
    state.up = Matrix<S>::Zero(x.rows(), shared.up.cols());
    state.gate = Matrix<S>::Zero(is_gated(activation) ? x.rows() : 0, shared.up.cols());
    Matrix<S> y = Matrix<S>::Zero(x.rows(), x.cols());
    ffn_forward<S>(activation, shared, x, state.up, state.gate, y, summation);
    return y;
}

// Adds to dx and to the gradient.
template <class S>
void shared_backward(Activation activation, const ExpertWeights<S>& shared, ConstMatrixView<S> x,
                     const FfnState<S>& state, ConstMatrixView<S> dout, MatrixView<S> dx,
                     ExpertWeights<S>& gradient, Summation summation) {
    ffn_backward<S>(activation, shared, x, state.up, state.gate, dout, dx, gradient, summation);
}

}  // namespace headway::runtime
