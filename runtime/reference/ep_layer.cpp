#include "runtime/reference/ep_layer.hpp"

#include "runtime/reference/shared_expert.hpp"

namespace headway::runtime {

template <class S>
Matrix<S> ep_forward(RankContext& context, const EpShape& shape, const EpWeights<S>& weights,
                     ConstMatrixView<S> x, EpState<S>& state,
                     std::span<const std::int32_t> forced) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    Communicator* peers = context.communicator.size() > 1 ? &context.communicator : nullptr;
    const Summation summation = shape.sparse.summation;
    const RowBlock block{.count = x.rows()};
    state = {.sparse = context.again ? counts_alone(state.sparse) : SparseState<S>{}};
    Matrix<S> shared;
    if (weights.shared) {
        const PhaseScope scope(context, in(Phase::shared_expert));
        shared =
            shared_forward<S>(shape.sparse.activation, *weights.shared, x, state.shared, summation);
    }
    {
        const PhaseScope scope(context, in(Phase::route));
        const std::span<const std::int32_t> forced_blocks[] = {forced};
        state.routed = route<S>(
            shape.routing, {&weights.router, 1}, x, {&block, 1},
            forced.empty() ? std::span<const std::span<const std::int32_t>>{}
                           : std::span<const std::span<const std::int32_t>>{forced_blocks});
    }
    const bool latent = weights.latent_down.size() > 0;
    if (latent) {
        const PhaseScope scope(context, in(Phase::latent_down));
        state.latent = Matrix<S>::Zero(x.rows(), weights.latent_down.cols());
        add_product<S>(state.latent, x, weights.latent_down, summation);
    }
    const ConstMatrixView<S> rows = latent ? ConstMatrixView<S>(state.latent) : x;
    Matrix<S> y = sparse_forward<S>(context, peers, shape.sparse, weights.experts, rows,
                                    {&block, 1}, state.routed, state.sparse);
    if (latent) {
        const PhaseScope scope(context, in(Phase::latent_up));
        state.latent_sum = std::move(y);
        y = Matrix<S>::Zero(x.rows(), x.cols());
        add_product<S>(y, state.latent_sum, weights.latent_up, summation);
    }
    if (weights.shared) y += shared;
    return y;
}

template <class S>
Matrix<S> ep_backward(RankContext& context, const EpShape& shape, const EpWeights<S>& weights,
                      ConstMatrixView<S> x, const EpState<S>& state, ConstMatrixView<S> dout,
                      EpWeights<S>& gradients) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    Communicator* peers = context.communicator.size() > 1 ? &context.communicator : nullptr;
    const Summation summation = shape.sparse.summation;
    const RowBlock block{.count = x.rows()};
    const bool latent = weights.latent_down.size() > 0;
    Matrix<S> dsum;
    if (latent) {
        const PhaseScope scope(context, in(Phase::latent_up));
        add_product_tn<S>(gradients.latent_up, state.latent_sum, dout, summation);
        dsum = Matrix<S>::Zero(x.rows(), weights.latent_up.rows());
        add_product_nt<S>(dsum, dout, weights.latent_up, summation);
    }
    std::vector<S> gate_gradient;
    const ConstMatrixView<S> rows = latent ? ConstMatrixView<S>(state.latent) : x;
    Matrix<S> dx = sparse_backward<S>(
        context, peers, shape.sparse, weights.experts, rows, state.routed, state.sparse,
        latent ? ConstMatrixView<S>(dsum) : dout, gate_gradient, gradients.experts);
    if (latent) {
        const PhaseScope scope(context, in(Phase::latent_down));
        add_product_tn<S>(gradients.latent_down, x, dx, summation);
        Matrix<S> wide = Matrix<S>::Zero(x.rows(), x.cols());
        add_product_nt<S>(wide, dx, weights.latent_down, summation);
        dx = std::move(wide);
    }
    {
        const PhaseScope scope(context, in(Phase::route));
        route_backward<S>({&weights.router, 1}, x, {&block, 1}, state.routed, gate_gradient, dx,
                          {&gradients.router, 1});
    }
    if (weights.shared) {
        const PhaseScope scope(context, in(Phase::shared_expert));
        shared_backward<S>(shape.sparse.activation, *weights.shared, x, state.shared, dout, dx,
                           *gradients.shared, summation);
    }
    return dx;
}

template Matrix<float> ep_forward<float>(RankContext&, const EpShape&, const EpWeights<float>&,
                                         ConstMatrixView<float>, EpState<float>&,
                                         std::span<const std::int32_t>);
template Matrix<float> ep_backward<float>(RankContext&, const EpShape&, const EpWeights<float>&,
                                          ConstMatrixView<float>, const EpState<float>&,
                                          ConstMatrixView<float>, EpWeights<float>&);
template Matrix<double> ep_forward<double>(RankContext&, const EpShape&, const EpWeights<double>&,
                                           ConstMatrixView<double>, EpState<double>&,
                                           std::span<const std::int32_t>);
template Matrix<double> ep_backward<double>(RankContext&, const EpShape&, const EpWeights<double>&,
                                            ConstMatrixView<double>, const EpState<double>&,
                                            ConstMatrixView<double>, EpWeights<double>&);

}  // namespace headway::runtime
