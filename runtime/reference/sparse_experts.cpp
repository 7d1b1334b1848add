#include "runtime/reference/sparse_experts.hpp"

#include <numeric>

#include "runtime/reference/deduplicated.hpp"
#include "runtime/reference/experts_again.hpp"
#include "runtime/reference/fused_experts.hpp"
#include "runtime/reference/slots.hpp"

namespace headway::runtime {

namespace {

// Each peer learns how many rows it gets for each of its experts; sets received_copies and entries.
template <class S>
void exchange_counts(Communicator& peers, const Grouping& slots, SparseState<S>& state) {
    const auto num_peers = static_cast<std::size_t>(peers.size());
    const std::size_t num_experts = slots.offset.size() - 1, local = num_experts / num_peers;
    std::vector<std::int64_t> sent(num_experts), received(num_experts);
    for (std::size_t e = 0; e < num_experts; ++e) sent[e] = slots.offset[e + 1] - slots.offset[e];
    peers.all_to_all(sent.data(), received.data(),
                     static_cast<std::int64_t>(local * sizeof(std::int64_t)));
    state.sent_copies.assign(num_peers, 0);
    state.received_copies.assign(num_peers, 0);
    std::vector<std::int64_t> expert;  // of every received copy
    for (std::size_t i = 0; i < num_experts; ++i) {
        state.sent_copies[i / local] += sent[i];
        state.received_copies[i / local] += received[i];
        expert.insert(expert.end(), static_cast<std::size_t>(received[i]),
                      static_cast<std::int64_t>(i % local));
    }
    state.entries = group_by(expert, static_cast<std::int64_t>(local));
}

// With one expert a rank, rows arrive in expert order.
bool regroups(const Communicator& peers, const SparseShape& shape) {
    return shape.num_experts > peers.size();
}

// Puts row i of x at row order[i].
template <class S>
Matrix<S> ungroup_rows(const Matrix<S>& x, const Grouping& grouping) {
    return gather_rows<S>(x, positions(grouping, grouping.order.size()));
}

template <class S>
Matrix<S> forward_copies(RankContext& context, Communicator* peers, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                         std::span<const RowBlock> blocks, const Routed<S>& routed,
                         SparseState<S>& state) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    Grouping slots;
    Matrix<S> rows;
    {
        const PhaseScope scope(context, in(Phase::permute));
        slots = group_slots(blocks, routed.expert, routed.top_k, shape.num_experts);
        state.copy_row = slots.order;
        for (std::int64_t& slot : state.copy_row) slot /= routed.top_k;
        state.slot_position = positions(slots, routed.expert.size());
        rows = gather_rows<S>(x, state.copy_row);
    }
    if (peers != nullptr) {
        if (!context.again) {
            const PhaseScope scope(context, in(Phase::count_exchange), peers);
            exchange_counts(*peers, slots, state);
        }
        {
            const PhaseScope scope(context, in(Phase::dispatch), peers);
            rows = exchange_rows<S>(*peers, rows, state.sent_copies, state.received_copies);
        }
        if (shape.experts_again) state.arrived = rows;
        if (regroups(*peers, shape)) {
            const PhaseScope scope(context, in(Phase::regroup));
            rows = gather_rows<S>(rows, state.entries.order);
        }
    } else {
        state.entries.offset = slots.offset;
        if (shape.experts_again) state.arrived = rows;
    }
    {
        const PhaseScope scope(context, in(Phase::expert));
        state.ffn.x = std::move(rows);
        state.returned = expert_forward<S>(shape.activation, experts, state.entries.offset,
                                           state.ffn, shape.summation);
        if (shape.experts_again) state.ffn = {};
    }
    if (peers != nullptr) {
        if (regroups(*peers, shape)) {
            const PhaseScope scope(context, in(Phase::ungroup));
            state.returned = ungroup_rows<S>(state.returned, state.entries);
        }
        const PhaseScope scope(context, in(Phase::combine), peers);
        state.returned =
            exchange_rows<S>(*peers, state.returned, state.received_copies, state.sent_copies);
    }
    const PhaseScope scope(context, in(Phase::unpermute));
    return gated_sum<S>(routed, state.slot_position, state.returned);
}

template <class S>
Matrix<S> backward_copies(RankContext& context, Communicator* peers, const SparseShape& shape,
                          std::span<const ExpertWeights<S>> experts, const Routed<S>& routed,
                          const SparseState<S>& state, ConstMatrixView<S> dout,
                          std::vector<S>& gate_gradient, std::span<ExpertWeights<S>> gradients) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    const std::size_t k = static_cast<std::size_t>(routed.top_k);
    Matrix<S> rows;
    {
        const PhaseScope scope(context, in(Phase::unpermute));
        rows.resize(state.returned.rows(), state.returned.cols());
        gate_gradient.assign(routed.gate.size(), S(0));
        for (std::size_t slot = 0; slot < gate_gradient.size(); ++slot) {
            const std::int64_t i = state.slot_position[slot];
            if (i < 0) continue;
            const auto dout_row = dout.row(static_cast<Eigen::Index>(slot / k));
            gate_gradient[slot] = dout_row.dot(state.returned.row(i));
            rows.row(i) = routed.gate[slot] * dout_row;
        }
    }
    if (peers != nullptr) {
        {
            const PhaseScope scope(context, in(Phase::combine), peers);
            rows = exchange_rows<S>(*peers, rows, state.sent_copies, state.received_copies);
        }
        if (regroups(*peers, shape)) {
            const PhaseScope scope(context, in(Phase::ungroup));
            rows = gather_rows<S>(rows, state.entries.order);
        }
    }
    FfnState<S> again;
    if (shape.experts_again) {
        const bool regrouped = peers != nullptr && regroups(*peers, shape);
        experts_again<S>(context, shape, experts, regrouped ? &state.entries.order : nullptr, state,
                         again);
    }
    {
        const PhaseScope scope(context, in(Phase::expert));
        rows = expert_backward<S>(shape.activation, experts, state.entries.offset,
                                  shape.experts_again ? again : state.ffn, rows, shape.summation,
                                  gradients);
    }
    if (peers != nullptr) {
        if (regroups(*peers, shape)) {
            const PhaseScope scope(context, in(Phase::regroup));
            rows = ungroup_rows<S>(rows, state.entries);
        }
        const PhaseScope scope(context, in(Phase::dispatch), peers);
        rows = exchange_rows<S>(*peers, rows, state.received_copies, state.sent_copies);
    }
    const PhaseScope scope(context, in(Phase::permute));
    return sum_of_slots<S>(state.slot_position, k, rows);
}

}  // namespace

template <class S>
Matrix<S> sparse_forward(RankContext& context, Communicator* peers, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                         std::span<const RowBlock> blocks, const Routed<S>& routed,
                         SparseState<S>& state) {
    if (peers != nullptr && shape.dedup != Dedup::none) {
        return forward_dedup<S>(context, *peers, shape, experts, x, routed, state);
    }
    if (peers == nullptr && shape.fused) {
        return forward_fused<S>(context, shape, experts, x, blocks, routed, state);
    }
    return forward_copies<S>(context, peers, shape, experts, x, blocks, routed, state);
}

template <class S>
Matrix<S> sparse_backward(RankContext& context, Communicator* peers, const SparseShape& shape,
                          std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                          const Routed<S>& routed, const SparseState<S>& state,
                          ConstMatrixView<S> dout, std::vector<S>& gate_gradient,
                          std::span<ExpertWeights<S>> gradients) {
    if (peers != nullptr && shape.dedup != Dedup::none) {
        return backward_dedup<S>(context, *peers, shape, experts, routed, state, dout,
                                 gate_gradient, gradients);
    }
    if (peers == nullptr && shape.fused) {
        return backward_fused<S>(context, shape, experts, x, routed, state, dout, gate_gradient,
                                 gradients);
    }
    return backward_copies<S>(context, peers, shape, experts, routed, state, dout, gate_gradient,
                              gradients);
}

template Matrix<float> sparse_forward<float>(RankContext&, Communicator*, const SparseShape&,
                                             std::span<const ExpertWeights<float>>,
                                             ConstMatrixView<float>, std::span<const RowBlock>,
                                             const Routed<float>&, SparseState<float>&);
template Matrix<float> sparse_backward<float>(RankContext&, Communicator*, const SparseShape&,
                                              std::span<const ExpertWeights<float>>,
                                              ConstMatrixView<float>, const Routed<float>&,
                                              const SparseState<float>&, ConstMatrixView<float>,
                                              std::vector<float>&, std::span<ExpertWeights<float>>);
template Matrix<double> sparse_forward<double>(RankContext&, Communicator*, const SparseShape&,
                                               std::span<const ExpertWeights<double>>,
                                               ConstMatrixView<double>, std::span<const RowBlock>,
                                               const Routed<double>&, SparseState<double>&);
template Matrix<double> sparse_backward<double>(RankContext&, Communicator*, const SparseShape&,
                                                std::span<const ExpertWeights<double>>,
                                                ConstMatrixView<double>, const Routed<double>&,
                                                const SparseState<double>&, ConstMatrixView<double>,
                                                std::vector<double>&,
                                                std::span<ExpertWeights<double>>);

}  // namespace headway::runtime
