#include "runtime/reference/deduplicated.hpp"

#include <stdexcept>
#include <utility>

#include "runtime/reference/dedup_route.hpp"
#include "runtime/reference/experts_again.hpp"

namespace headway::runtime {

namespace {

DedupRoute route_of(const Communicator& peers, const SparseShape& shape) {
    const int n = peers.size(), node = shape.dedup == Dedup::node ? shape.ranks_per_node : 0;
    if (node > 0 && node < n && n % node != 0)
        throw std::logic_error("node-dedup: the ranks do not fill whole nodes");
    return {.rank = peers.rank(),
            .num_ranks = n,
            .ranks_per_node = node > 0 && node < n ? node : n,
            .experts_per_rank = shape.num_experts / n};
}

template <class S>
std::int64_t num_copies(const DedupState<S>& state) {
    return state.first.num_received() + state.second.num_received();
}

// Entries of both stages, one after the other; those that went on from here belong to no expert.
template <class S>
void merge_entries(std::span<const Choice<S>> onward, int experts_per_rank, DedupState<S>& state,
                   Grouping& entries) {
    const std::size_t count = state.first.arrived.size() + state.second.arrived.size();
    std::vector<std::int64_t> expert;
    expert.reserve(count);
    state.entry_copy.reserve(count);
    state.entry_gate.reserve(count);
    const auto add = [&](const Choice<S>& entry, std::int64_t first_copy, bool stays) {
        state.entry_copy.push_back(first_copy + entry.row);
        state.entry_gate.push_back(entry.gate);
        expert.push_back(stays ? entry.expert : -1);
    };
    for (std::size_t i = 0; i < state.first.arrived.size(); ++i)
        add(state.first.arrived[i], 0, onward.empty() || onward[i].peer < 0);
    for (const Choice<S>& entry : state.second.arrived)
        add(entry, state.first.num_received(), true);
    entries = group_by(expert, experts_per_rank);
}

template <class S>
void exchange_metadata(Communicator& peers, const DedupRoute& route,
                       std::span<const Choice<S>> choices, DedupState<S>& state,
                       Grouping& entries) {
    exchange_choices<S>(peers, choices, state.first);
    std::vector<Choice<S>> onward;
    if (route.is_staged()) {
        onward = second_choices<S>(route, state.first);
        state.second = plan_stage<S>(onward, route.num_ranks);
        exchange_choices<S>(peers, onward, state.second);
    }
    merge_entries<S>(onward, route.experts_per_rank, state, entries);
}

// Copies at the source [sent] to all copies at the experts; the second stage sends on what the
// first one brought from other nodes.
template <class S>
Matrix<S> to_experts(Communicator& peers, const DedupState<S>& state, const Matrix<S>& rows) {
    const DedupStage<S>&first = state.first, &second = state.second;
    const Eigen::Index num_first = first.num_received();
    Matrix<S> arrived(num_copies(state), rows.cols());
    exchange_rows_into<S>(peers, rows, first.sent_copies, first.received_copies, arrived.data());
    if (second.sent_copies.empty()) return arrived;
    const Matrix<S> onward = gather_rows<S>(arrived.topRows(num_first), second.copy_row);
    exchange_rows_into<S>(peers, onward, second.sent_copies, second.received_copies,
                          arrived.data() + num_first * rows.cols());
    return arrived;
}

// The way back: a copy that was sent on returns as the sum of what its copies return.
template <class S>
Matrix<S> from_experts(Communicator& peers, const DedupState<S>& state, Matrix<S>& rows) {
    const DedupStage<S>&first = state.first, &second = state.second;
    const Eigen::Index num_first = first.num_received();
    if (!second.sent_copies.empty()) {
        const Matrix<S> back = exchange_rows<S>(peers, rows.bottomRows(rows.rows() - num_first),
                                                second.received_copies, second.sent_copies);
        add_copies<S>(second, back, rows.topRows(num_first));
    }
    return exchange_rows<S>(peers, rows.topRows(num_first), first.received_copies,
                            first.sent_copies);
}

template <class S>
std::vector<S> return_gate_gradients(Communicator& peers, const DedupState<S>& state,
                                     std::span<S> by_entry, std::size_t num_slots) {
    const std::size_t num_first = state.first.arrived.size();
    if (!state.second.sent_copies.empty()) {
        return_to_choices<S>(peers, state.second, by_entry.subspan(num_first),
                             by_entry.first(num_first));
    }
    std::vector<S> result(num_slots, S(0));
    return_to_choices<S>(peers, state.first, by_entry.first(num_first), result);
    return result;
}

// Copy of each entry, in the order in which the experts hold the entries.
template <class S>
std::vector<std::int64_t> copy_by_expert(const SparseState<S>& state) {
    std::vector<std::int64_t> copy = state.entries.order;
    for (std::int64_t& entry : copy)
        entry = state.dedup.entry_copy[static_cast<std::size_t>(entry)];
    return copy;
}

}  // namespace

template <class S>
Matrix<S> forward_dedup(RankContext& context, Communicator& peers, const SparseShape& shape,
                        std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                        const Routed<S>& routed, SparseState<S>& state) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    const DedupRoute route = route_of(peers, shape);
    DedupState<S>& dedup = state.dedup;
    std::vector<Choice<S>> choices;
    Matrix<S> rows, partial;
    {
        const PhaseScope scope(context, in(Phase::permute));
        choices = first_choices<S>(route, routed);
        dedup.first = plan_stage<S>(choices, peers.size());
        rows = gather_rows<S>(x, dedup.first.copy_row);
    }
    {
        const PhaseScope scope(context, in(Phase::count_exchange), &peers);
        exchange_metadata<S>(peers, route, choices, dedup, state.entries);
    }
    {
        const PhaseScope scope(context, in(Phase::dispatch), &peers);
        rows = to_experts<S>(peers, dedup, rows);
    }
    if (shape.experts_again) state.arrived = rows;
    {
        const PhaseScope scope(context, in(Phase::regroup));
        state.ffn.x = gather_rows<S>(rows, copy_by_expert(state));
    }
    {
        const PhaseScope scope(context, in(Phase::expert));
        dedup.expert_output = expert_forward<S>(shape.activation, experts, state.entries.offset,
                                                state.ffn, shape.summation);
    }
    {
        const PhaseScope scope(context, in(Phase::ungroup));
        partial = Matrix<S>::Zero(num_copies(dedup), x.cols());
        for (std::size_t i = 0; i < state.entries.order.size(); ++i) {
            const auto entry = static_cast<std::size_t>(state.entries.order[i]);
            partial.row(dedup.entry_copy[entry]) +=
                dedup.entry_gate[entry] * dedup.expert_output.row(static_cast<Eigen::Index>(i));
        }
        if (shape.experts_again) {
            state.ffn = {};
            dedup.expert_output.resize(0, 0);
        }
    }
    {
        const PhaseScope scope(context, in(Phase::combine), &peers);
        rows = from_experts<S>(peers, dedup, partial);
    }
    const PhaseScope scope(context, in(Phase::unpermute));
    Matrix<S> out = Matrix<S>::Zero(x.rows(), x.cols());
    add_copies<S>(dedup.first, rows, out);
    return out;
}

template <class S>
Matrix<S> backward_dedup(RankContext& context, Communicator& peers, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, const Routed<S>& routed,
                         const SparseState<S>& state, ConstMatrixView<S> dout,
                         std::vector<S>& gate_gradient, std::span<ExpertWeights<S>> gradients) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    const DedupState<S>& dedup = state.dedup;
    Matrix<S> rows, partial, output;
    FfnState<S> again;
    if (shape.experts_again) {
        const std::vector<std::int64_t> order = copy_by_expert(state);
        output = experts_again<S>(context, shape, experts, &order, state, again);
    }
    const Matrix<S>& expert_output = shape.experts_again ? output : dedup.expert_output;
    std::vector<S> entry_gradient(dedup.entry_gate.size());
    {
        const PhaseScope scope(context, in(Phase::unpermute));
        rows = gather_rows<S>(dout, dedup.first.copy_row);
    }
    {
        const PhaseScope scope(context, in(Phase::combine), &peers);
        partial = to_experts<S>(peers, dedup, rows);
    }
    {
        const PhaseScope scope(context, in(Phase::ungroup));
        rows.resize(expert_output.rows(), dout.cols());
        for (std::size_t i = 0; i < state.entries.order.size(); ++i) {
            const auto entry = static_cast<std::size_t>(state.entries.order[i]);
            const auto row = static_cast<Eigen::Index>(i);
            const auto dpartial = partial.row(dedup.entry_copy[entry]);
            entry_gradient[entry] = dpartial.dot(expert_output.row(row));
            rows.row(row) = dedup.entry_gate[entry] * dpartial;
        }
    }
    {
        const PhaseScope scope(context, in(Phase::expert));
        rows = expert_backward<S>(shape.activation, experts, state.entries.offset,
                                  shape.experts_again ? again : state.ffn, rows, shape.summation,
                                  gradients);
    }
    {
        const PhaseScope scope(context, in(Phase::regroup));
        partial.setZero();
        const std::vector<std::int64_t> copy = copy_by_expert(state);
        for (std::size_t i = 0; i < copy.size(); ++i)
            partial.row(copy[i]) += rows.row(static_cast<Eigen::Index>(i));
    }
    {
        const PhaseScope scope(context, in(Phase::dispatch), &peers);
        rows = from_experts<S>(peers, dedup, partial);
    }
    {
        const PhaseScope scope(context, in(Phase::count_exchange), &peers);
        gate_gradient = return_gate_gradients<S>(peers, dedup, entry_gradient, routed.gate.size());
    }
    const PhaseScope scope(context, in(Phase::permute));
    Matrix<S> dx = Matrix<S>::Zero(dout.rows(), dout.cols());
    add_copies<S>(dedup.first, rows, dx);
    return dx;
}

template Matrix<float> forward_dedup<float>(RankContext&, Communicator&, const SparseShape&,
                                            std::span<const ExpertWeights<float>>,
                                            ConstMatrixView<float>, const Routed<float>&,
                                            SparseState<float>&);
template Matrix<float> backward_dedup<float>(RankContext&, Communicator&, const SparseShape&,
                                             std::span<const ExpertWeights<float>>,
                                             const Routed<float>&, const SparseState<float>&,
                                             ConstMatrixView<float>, std::vector<float>&,
                                             std::span<ExpertWeights<float>>);
template Matrix<double> forward_dedup<double>(RankContext&, Communicator&, const SparseShape&,
                                              std::span<const ExpertWeights<double>>,
                                              ConstMatrixView<double>, const Routed<double>&,
                                              SparseState<double>&);
template Matrix<double> backward_dedup<double>(RankContext&, Communicator&, const SparseShape&,
                                               std::span<const ExpertWeights<double>>,
                                               const Routed<double>&, const SparseState<double>&,
                                               ConstMatrixView<double>, std::vector<double>&,
                                               std::span<ExpertWeights<double>>);

}  // namespace headway::runtime
