#include "runtime/reference/expert_ffn.hpp"

#include <cmath>
#include <numbers>

namespace headway::runtime {

namespace {

template <class S>
struct ValueAndSlope {
    S value, slope;
};

template <class S>
ValueAndSlope<S> gelu(S z) {
    const S cdf = S(0.5) * std::erfc(-z / std::numbers::sqrt2_v<S>);
    const S density =
        std::exp(S(-0.5) * z * z) * std::numbers::inv_sqrtpi_v<S> / std::numbers::sqrt2_v<S>;
    return {z * cdf, cdf + z * density};
}

// z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2
template <class S>
ValueAndSlope<S> gelu_tanh(S z) {
    const S a = std::numbers::sqrt2_v<S> * std::numbers::inv_sqrtpi_v<S>, b = S(0.044715);
    const S t = std::tanh(a * (z + b * z * z * z));
    const S slope = a * (1 + 3 * b * z * z) * (1 - t * t);
    return {S(0.5) * z * (1 + t), S(0.5) * (1 + t + z * slope)};
}

template <class S>
ValueAndSlope<S> silu(S z) {
    const S s = 1 / (1 + std::exp(-z));
    return {z * s, s * (1 + z * (1 - s))};
}

// GPT-OSS's gate and linear half, clamped; slopes are 0 where they are.
template <class S>
ValueAndSlope<S> clamped_quick_gelu(S z) {
    const S limit = S(7), scale = S(1.702), x = std::min(z, limit);
    const S s = 1 / (1 + std::exp(-scale * x));
    return {x * s, z < limit ? s * (1 + scale * x * (1 - s)) : S(0)};
}
template <class S>
ValueAndSlope<S> clamped_linear(S z) {
    const S limit = S(7);
    return {1 + std::clamp(z, -limit, limit), std::abs(z) < limit ? S(1) : S(0)};
}

// Hidden rows of one expert from its pre-activations.
template <class S>
Matrix<S> hidden_rows(Activation activation, ConstMatrixView<S> up, ConstMatrixView<S> gate) {
    switch (activation) {
        case Activation::gelu:
            return up.unaryExpr([](S z) { return gelu(z).value; });
        case Activation::gelu_tanh:
            return up.unaryExpr([](S z) { return gelu_tanh(z).value; });
        case Activation::quick_geglu:
            return gate.unaryExpr([](S z) { return clamped_quick_gelu(z).value; })
                .cwiseProduct(up.unaryExpr([](S z) { return clamped_linear(z).value; }));
        case Activation::swiglu:
            break;
    }
    return gate.unaryExpr([](S z) { return silu(z).value; }).cwiseProduct(up);
}

// From the gradient of the hidden rows to that of the pre-activations, in place of `dup`.
template <class S>
void activation_backward(Activation activation, ConstMatrixView<S> up, ConstMatrixView<S> gate,
                         Matrix<S>& dup, Matrix<S>& dgate) {
    switch (activation) {
        case Activation::gelu:
            dup = dup.cwiseProduct(up.unaryExpr([](S z) { return gelu(z).slope; }));
            return;
        case Activation::gelu_tanh:
            dup = dup.cwiseProduct(up.unaryExpr([](S z) { return gelu_tanh(z).slope; }));
            return;
        case Activation::quick_geglu: {
            const Matrix<S> linear = up.unaryExpr([](S z) { return clamped_linear(z).value; });
            const Matrix<S> slope = up.unaryExpr([](S z) { return clamped_linear(z).slope; });
            dgate = dup.cwiseProduct(linear).cwiseProduct(
                gate.unaryExpr([](S z) { return clamped_quick_gelu(z).slope; }));
            dup = dup.cwiseProduct(slope).cwiseProduct(
                gate.unaryExpr([](S z) { return clamped_quick_gelu(z).value; }));
            return;
        }
        case Activation::swiglu:
            break;
    }
    dgate = dup.cwiseProduct(up).cwiseProduct(gate.unaryExpr([](S z) { return silu(z).slope; }));
    dup = dup.cwiseProduct(gate.unaryExpr([](S z) { return silu(z).value; }));
}

}  // namespace

template <class S>
void ffn_forward(Activation activation, const ExpertWeights<S>& expert, ConstMatrixView<S> x,
                 MatrixView<S> up, MatrixView<S> gate, MatrixView<S> y, Summation summation) {
    add_product<S>(up, x, expert.up, summation);
    if (is_gated(activation)) add_product<S>(gate, x, expert.gate, summation);
    const Matrix<S> hidden = hidden_rows<S>(activation, up, gate);
    add_product<S>(y, hidden, expert.down, summation);
}

template <class S>
void ffn_backward(Activation activation, const ExpertWeights<S>& expert, ConstMatrixView<S> x,
                  ConstMatrixView<S> up, ConstMatrixView<S> gate, ConstMatrixView<S> dy,
                  MatrixView<S> dx, ExpertWeights<S>& gradient, Summation summation) {
    const Matrix<S> hidden = hidden_rows<S>(activation, up, gate);
    add_product_tn<S>(gradient.down, hidden, dy, summation);
    Matrix<S> dup = Matrix<S>::Zero(up.rows(), up.cols()), dgate;
    add_product_nt<S>(dup, dy, expert.down, summation);
    activation_backward<S>(activation, up, gate, dup, dgate);
    add_product_tn<S>(gradient.up, x, dup, summation);
    add_product_nt<S>(dx, dup, expert.up, summation);
    if (!is_gated(activation)) return;
    add_product_tn<S>(gradient.gate, x, dgate, summation);
    add_product_nt<S>(dx, dgate, expert.gate, summation);
}

template <class S>
Matrix<S> expert_forward(Activation activation, std::span<const ExpertWeights<S>> experts,
                         std::span<const std::int64_t> offset, FfnState<S>& state,
                         Summation summation) {
    const Eigen::Index rows = state.x.rows();
    const Eigen::Index f = experts.empty() ? 0 : experts[0].up.cols();
    const bool gated = is_gated(activation);
    state.up = Matrix<S>::Zero(rows, f);
    state.gate = Matrix<S>::Zero(gated ? rows : 0, f);
    Matrix<S> y = Matrix<S>::Zero(rows, state.x.cols());
    for (std::size_t e = 0; e < experts.size(); ++e) {
        const Eigen::Index first = offset[e], count = offset[e + 1] - first;
        if (count == 0) continue;
        ffn_forward<S>(activation, experts[e], state.x.middleRows(first, count),
                       state.up.middleRows(first, count),
                       state.gate.middleRows(gated ? first : 0, gated ? count : 0),
                       y.middleRows(first, count), summation);
    }
    return y;
}

template <class S>
Matrix<S> expert_backward(Activation activation, std::span<const ExpertWeights<S>> experts,
                          std::span<const std::int64_t> offset, const FfnState<S>& state,
                          ConstMatrixView<S> dy, Summation summation,
                          std::span<ExpertWeights<S>> gradients) {
    const bool gated = is_gated(activation);
    Matrix<S> dx = Matrix<S>::Zero(state.x.rows(), state.x.cols());
    for (std::size_t e = 0; e < experts.size(); ++e) {
        const Eigen::Index first = offset[e], count = offset[e + 1] - first;
        if (count == 0) continue;
        ffn_backward<S>(activation, experts[e], state.x.middleRows(first, count),
                        state.up.middleRows(first, count),
                        state.gate.middleRows(gated ? first : 0, gated ? count : 0),
                        dy.middleRows(first, count), dx.middleRows(first, count), gradients[e],
                        summation);
    }
    return dx;
}

template void ffn_forward<float>(Activation, const ExpertWeights<float>&, ConstMatrixView<float>,
                                 MatrixView<float>, MatrixView<float>, MatrixView<float>,
                                 Summation);
template void ffn_backward<float>(Activation, const ExpertWeights<float>&, ConstMatrixView<float>,
                                  ConstMatrixView<float>, ConstMatrixView<float>,
                                  ConstMatrixView<float>, MatrixView<float>, ExpertWeights<float>&,
                                  Summation);
template Matrix<float> expert_forward<float>(Activation, std::span<const ExpertWeights<float>>,
                                             std::span<const std::int64_t>, FfnState<float>&,
                                             Summation);
template Matrix<float> expert_backward<float>(Activation, std::span<const ExpertWeights<float>>,
                                              std::span<const std::int64_t>, const FfnState<float>&,
                                              ConstMatrixView<float>, Summation,
                                              std::span<ExpertWeights<float>>);
template void ffn_forward<double>(Activation, const ExpertWeights<double>&, ConstMatrixView<double>,
                                  MatrixView<double>, MatrixView<double>, MatrixView<double>,
                                  Summation);
template void ffn_backward<double>(Activation, const ExpertWeights<double>&,
                                   ConstMatrixView<double>, ConstMatrixView<double>,
                                   ConstMatrixView<double>, ConstMatrixView<double>,
                                   MatrixView<double>, ExpertWeights<double>&, Summation);
template Matrix<double> expert_forward<double>(Activation, std::span<const ExpertWeights<double>>,
                                               std::span<const std::int64_t>, FfnState<double>&,
                                               Summation);
template Matrix<double> expert_backward<double>(Activation, std::span<const ExpertWeights<double>>,
                                                std::span<const std::int64_t>,
                                                const FfnState<double>&, ConstMatrixView<double>,
                                                Summation, std::span<ExpertWeights<double>>);

}  // namespace headway::runtime
