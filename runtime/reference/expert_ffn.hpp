// Experts on rows that are grouped by expert: y = act(x U) D without a gate, y = (silu(x G) * x U)
// D for SwiGLU. GELU is z Phi(z) (erf) or its tanh form. Backward computes the activation anew from
// the saved pre-activations.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/vocab/model_spec.hpp"
#include "runtime/reference/matrix.hpp"

namespace headway::runtime {

template <class S>
struct ExpertWeights {
    Matrix<S> up;    // [width, f]
    Matrix<S> gate;  // [width, f], empty without a gate
    Matrix<S> down;  // [f, width]
};

template <class S>
struct FfnState {
    Matrix<S> x;     // [rows, width]
    Matrix<S> up;    // [rows, f], before the activation
    Matrix<S> gate;  // [rows, f], likewise, for SwiGLU
};

// One expert: adds its output to y (zero before), and its pre-activations to up and gate (zero).
template <class S>
void ffn_forward(Activation activation, const ExpertWeights<S>& expert, ConstMatrixView<S> x,
                 MatrixView<S> up, MatrixView<S> gate, MatrixView<S> y, Summation summation);

// Adds to dx and to the expert's gradient.
template <class S>
void ffn_backward(Activation activation, const ExpertWeights<S>& expert, ConstMatrixView<S> x,
                  ConstMatrixView<S> up, ConstMatrixView<S> gate, ConstMatrixView<S> dy,
                  MatrixView<S> dx, ExpertWeights<S>& gradient, Summation summation);

// offset[e] .. offset[e + 1] are expert e's rows of `state.x`; fills the rest of the state.
template <class S>
Matrix<S> expert_forward(Activation activation, std::span<const ExpertWeights<S>> experts,
                         std::span<const std::int64_t> offset, FfnState<S>& state,
                         Summation summation);

// Returns dx and adds to the experts' gradients.
template <class S>
Matrix<S> expert_backward(Activation activation, std::span<const ExpertWeights<S>> experts,
                          std::span<const std::int64_t> offset, const FfnState<S>& state,
                          ConstMatrixView<S> dy, Summation summation,
                          std::span<ExpertWeights<S>> gradients);

}  // namespace headway::runtime
