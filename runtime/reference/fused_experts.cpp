#include "runtime/reference/fused_experts.hpp"

#include "runtime/reference/slots.hpp"

namespace headway::runtime {

template <class S>
Matrix<S> forward_fused(RankContext& context, const SparseShape& shape,
                        std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                        std::span<const RowBlock> blocks, const Routed<S>& routed,
                        SparseState<S>& state) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    const bool gated = is_gated(shape.activation);
    {
        const PhaseScope scope(context, in(Phase::permute));
        state.entries = group_slots(blocks, routed.expert, routed.top_k, shape.num_experts);
        state.copy_row = state.entries.order;
        for (std::int64_t& slot : state.copy_row) slot /= routed.top_k;
        state.slot_position = positions(state.entries, routed.expert.size());
    }
    {
        const PhaseScope scope(context, in(Phase::expert));
        const auto num_copies = static_cast<Eigen::Index>(state.copy_row.size());
        const Eigen::Index f = experts.empty() ? 0 : experts[0].up.cols();
        state.ffn.up = Matrix<S>::Zero(num_copies, f);
        state.ffn.gate = Matrix<S>::Zero(gated ? num_copies : 0, f);
        state.returned = Matrix<S>::Zero(num_copies, x.cols());
        for (std::size_t e = 0; e < experts.size(); ++e) {
            const std::int64_t first = state.entries.offset[e];
            const std::int64_t count = state.entries.offset[e + 1] - first;
            if (count == 0) continue;
            const Matrix<S> rows = gather_rows<S>(
                x, std::span(state.copy_row)
                       .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
            ffn_forward<S>(shape.activation, experts[e], rows,
                           state.ffn.up.middleRows(first, count),
                           state.ffn.gate.middleRows(gated ? first : 0, gated ? count : 0),
                           state.returned.middleRows(first, count), shape.summation);
        }
    }
    const PhaseScope scope(context, in(Phase::unpermute));
    return gated_sum<S>(routed, state.slot_position, state.returned);
}

template <class S>
Matrix<S> backward_fused(RankContext& context, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                         const Routed<S>& routed, const SparseState<S>& state,
                         ConstMatrixView<S> dout, std::vector<S>& gate_gradient,
                         std::span<ExpertWeights<S>> gradients) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    const bool gated = is_gated(shape.activation);
    Matrix<S> dcopies;
    {
        const PhaseScope scope(context, in(Phase::expert));
        gate_gradient.assign(routed.gate.size(), S(0));
        dcopies = Matrix<S>::Zero(state.returned.rows(), dout.cols());
        for (std::size_t e = 0; e < experts.size(); ++e) {
            const std::int64_t first = state.entries.offset[e];
            const std::int64_t count = state.entries.offset[e + 1] - first;
            if (count == 0) continue;
            const auto index =
                std::span(state.copy_row)
                    .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
            const Matrix<S> rows = gather_rows<S>(x, index);
            Matrix<S> dy = gather_rows<S>(dout, index);
            for (std::int64_t i = 0; i < count; ++i) {
                const auto slot = static_cast<std::size_t>(
                    state.entries.order[static_cast<std::size_t>(first + i)]);
                gate_gradient[slot] = dy.row(i).dot(state.returned.row(first + i));
                dy.row(i) *= routed.gate[slot];
            }
            ffn_backward<S>(shape.activation, experts[e], rows,
                            state.ffn.up.middleRows(first, count),
                            state.ffn.gate.middleRows(gated ? first : 0, gated ? count : 0), dy,
                            dcopies.middleRows(first, count), gradients[e], shape.summation);
        }
    }
    const PhaseScope scope(context, in(Phase::permute));
    return sum_of_slots<S>(state.slot_position, static_cast<std::size_t>(routed.top_k), dcopies);
}

template Matrix<float> forward_fused<float>(RankContext&, const SparseShape&,
                                            std::span<const ExpertWeights<float>>,
                                            ConstMatrixView<float>, std::span<const RowBlock>,
                                            const Routed<float>&, SparseState<float>&);
template Matrix<float> backward_fused<float>(RankContext&, const SparseShape&,
                                             std::span<const ExpertWeights<float>>,
                                             ConstMatrixView<float>, const Routed<float>&,
                                             const SparseState<float>&, ConstMatrixView<float>,
                                             std::vector<float>&, std::span<ExpertWeights<float>>);
template Matrix<double> forward_fused<double>(RankContext&, const SparseShape&,
                                              std::span<const ExpertWeights<double>>,
                                              ConstMatrixView<double>, std::span<const RowBlock>,
                                              const Routed<double>&, SparseState<double>&);
template Matrix<double> backward_fused<double>(RankContext&, const SparseShape&,
                                               std::span<const ExpertWeights<double>>,
                                               ConstMatrixView<double>, const Routed<double>&,
                                               const SparseState<double>&, ConstMatrixView<double>,
                                               std::vector<double>&,
                                               std::span<ExpertWeights<double>>);

}  // namespace headway::runtime
