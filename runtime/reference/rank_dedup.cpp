#include "runtime/reference/rank_dedup.hpp"

#include <algorithm>
#include <utility>

namespace headway::runtime {

namespace {

// What a destination needs to know of an entry, besides its gate.
struct EntryLabel {
    std::int32_t copy;    // within the copies from the same source
    std::int32_t expert;  // local to the destination
};

template <class T>
std::vector<T> exchange_items(Communicator& peers, const std::vector<T>& items,
                              std::span<const std::int64_t> sent,
                              std::span<const std::int64_t> received) {
    std::vector<std::int64_t> sent_bytes, received_bytes;
    std::int64_t total = 0;
    for (const std::int64_t n : sent) sent_bytes.push_back(n * std::int64_t{sizeof(T)});
    for (const std::int64_t n : received) {
        received_bytes.push_back(n * std::int64_t{sizeof(T)});
        total += n;
    }
    std::vector<T> result(static_cast<std::size_t>(total));
    peers.all_to_all_v(items.data(), sent_bytes, result.data(), received_bytes);
    return result;
}

// Copies (one per row and distinct destination) and entries (one per kept slot), both by
// destination and then by row. Returns the labels of the entries.
template <class S>
std::vector<EntryLabel> plan_copies(const Routed<S>& routed, int num_peers, int experts_per_peer,
                                    SparseState<S>& state) {
    const auto k = static_cast<std::size_t>(routed.top_k);
    std::vector<std::int64_t> entry_key(routed.expert.size(), -1), copy_key = entry_key;
    for (std::size_t slot = 0; slot < routed.expert.size(); ++slot) {
        if (routed.expert[slot] < 0) continue;
        const std::int64_t peer = routed.expert[slot] / experts_per_peer;
        const auto row_begin = entry_key.begin() + static_cast<std::ptrdiff_t>(slot / k * k);
        const auto here = entry_key.begin() + static_cast<std::ptrdiff_t>(slot);
        if (std::find(row_begin, here, peer) == here) copy_key[slot] = peer;
        entry_key[slot] = peer;
    }
    const Grouping copies = group_by(copy_key, num_peers), entries = group_by(entry_key, num_peers);
    state.copy_row = copies.order;
    for (std::int64_t& slot : state.copy_row) slot /= routed.top_k;
    state.entry_slot = entries.order;
    std::vector<EntryLabel> labels;
    for (std::int64_t peer = 0; peer < num_peers; ++peer) {
        const auto p = static_cast<std::size_t>(peer);
        state.sent_copies.push_back(copies.size(peer));
        state.sent_entries.push_back(entries.size(peer));
        std::int64_t copy = copies.offset[p];
        for (std::int64_t i = entries.offset[p]; i < entries.offset[p + 1]; ++i) {
            const std::int64_t slot = entries.order[static_cast<std::size_t>(i)];
            while (state.copy_row[static_cast<std::size_t>(copy)] != slot / routed.top_k) ++copy;
            labels.push_back({static_cast<std::int32_t>(copy - copies.offset[p]),
                              routed.expert[static_cast<std::size_t>(slot)] % experts_per_peer});
        }
    }
    return labels;
}

template <class S>
void exchange_labels(Communicator& peers, const Routed<S>& routed,
                     const std::vector<EntryLabel>& labels, int experts_per_peer,
                     SparseState<S>& state) {
    const auto num_peers = static_cast<std::size_t>(peers.size());
    std::vector<std::int64_t> sent, received(2 * num_peers);
    for (std::size_t p = 0; p < num_peers; ++p) {
        sent.insert(sent.end(), {state.sent_copies[p], state.sent_entries[p]});
    }
    peers.all_to_all(sent.data(), received.data(), 2 * sizeof(std::int64_t));
    for (std::size_t p = 0; p < num_peers; ++p) {
        state.received_copies.push_back(received[2 * p]);
        state.received_entries.push_back(received[2 * p + 1]);
    }
    std::vector<S> gates;
    for (const std::int64_t slot : state.entry_slot)
        gates.push_back(routed.gate[static_cast<std::size_t>(slot)]);
    const auto arrived = exchange_items(peers, labels, state.sent_entries, state.received_entries);
    state.entry_gate = exchange_items(peers, gates, state.sent_entries, state.received_entries);
    std::vector<std::int64_t> expert;
    std::int64_t first_copy = 0;
    std::size_t entry = 0;
    for (std::size_t p = 0; p < num_peers; ++p) {
        for (std::int64_t i = 0; i < state.received_entries[p]; ++i, ++entry) {
            state.entry_copy.push_back(first_copy + arrived[entry].copy);
            expert.push_back(arrived[entry].expert);
        }
        first_copy += state.received_copies[p];
    }
    state.entries = group_by(expert, experts_per_peer);
}

// Copy of each entry, in the order in which the experts hold the entries.
template <class S>
std::vector<std::int64_t> copy_by_expert(const SparseState<S>& state) {
    std::vector<std::int64_t> copy = state.entries.order;
    for (std::int64_t& entry : copy) entry = state.entry_copy[static_cast<std::size_t>(entry)];
    return copy;
}

}  // namespace

template <class S>
Matrix<S> forward_dedup(RankContext& context, Communicator& peers, const SparseShape& shape,
                        std::span<const ExpertWeights<S>> experts, ConstMatrixView<S> x,
                        const Routed<S>& routed, SparseState<S>& state) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    const int local = shape.num_experts / peers.size();
    std::vector<EntryLabel> labels;
    Matrix<S> rows, partial;
    {
        const PhaseScope scope(context, in(Phase::permute));
        labels = plan_copies(routed, peers.size(), local, state);
        rows = gather_rows<S>(x, state.copy_row);
    }
    {
        const PhaseScope scope(context, in(Phase::count_exchange), &peers);
        exchange_labels(peers, routed, labels, local, state);
    }
    {
        const PhaseScope scope(context, in(Phase::dispatch), &peers);
        rows = exchange_rows<S>(peers, rows, state.sent_copies, state.received_copies);
    }
    const Eigen::Index num_received = rows.rows();
    {
        const PhaseScope scope(context, in(Phase::regroup));
        state.ffn.x = gather_rows<S>(rows, copy_by_expert(state));
    }
    {
        const PhaseScope scope(context, in(Phase::expert));
        state.expert_output = expert_forward<S>(shape.activation, experts, state.entries.offset,
                                                state.ffn, shape.summation);
    }
    {
        const PhaseScope scope(context, in(Phase::ungroup));
        partial = Matrix<S>::Zero(num_received, x.cols());
        for (std::size_t i = 0; i < state.entries.order.size(); ++i) {
            const auto entry = static_cast<std::size_t>(state.entries.order[i]);
            partial.row(state.entry_copy[entry]) +=
                state.entry_gate[entry] * state.expert_output.row(static_cast<Eigen::Index>(i));
        }
    }
    {
        const PhaseScope scope(context, in(Phase::combine), &peers);
        rows = exchange_rows<S>(peers, partial, state.received_copies, state.sent_copies);
    }
    const PhaseScope scope(context, in(Phase::unpermute));
    Matrix<S> out = Matrix<S>::Zero(x.rows(), x.cols());
    for (std::size_t copy = 0; copy < state.copy_row.size(); ++copy) {
        out.row(state.copy_row[copy]) += rows.row(static_cast<Eigen::Index>(copy));
    }
    return out;
}

template <class S>
Matrix<S> backward_dedup(RankContext& context, Communicator& peers, const SparseShape& shape,
                         std::span<const ExpertWeights<S>> experts, const Routed<S>& routed,
                         const SparseState<S>& state, ConstMatrixView<S> dout,
                         std::vector<S>& gate_gradient, std::span<ExpertWeights<S>> gradients) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    Matrix<S> rows, partial;
    std::vector<S> entry_gradient(state.entry_gate.size());
    {
        const PhaseScope scope(context, in(Phase::unpermute));
        rows = gather_rows<S>(dout, state.copy_row);
    }
    {
        const PhaseScope scope(context, in(Phase::combine), &peers);
        partial = exchange_rows<S>(peers, rows, state.sent_copies, state.received_copies);
    }
    {
        const PhaseScope scope(context, in(Phase::ungroup));
        rows.resize(state.expert_output.rows(), dout.cols());
        for (std::size_t i = 0; i < state.entries.order.size(); ++i) {
            const auto entry = static_cast<std::size_t>(state.entries.order[i]);
            const auto row = static_cast<Eigen::Index>(i);
            const auto dpartial = partial.row(state.entry_copy[entry]);
            entry_gradient[entry] = dpartial.dot(state.expert_output.row(row));
            rows.row(row) = state.entry_gate[entry] * dpartial;
        }
    }
    {
        const PhaseScope scope(context, in(Phase::expert));
        rows = expert_backward<S>(shape.activation, experts, state.entries.offset, state.ffn, rows,
                                  shape.summation, gradients);
    }
    {
        const PhaseScope scope(context, in(Phase::regroup));
        partial.setZero();
        const std::vector<std::int64_t> copy = copy_by_expert(state);
        for (std::size_t i = 0; i < copy.size(); ++i) {
            partial.row(copy[i]) += rows.row(static_cast<Eigen::Index>(i));
        }
    }
    {
        const PhaseScope scope(context, in(Phase::dispatch), &peers);
        rows = exchange_rows<S>(peers, partial, state.received_copies, state.sent_copies);
    }
    {
        const PhaseScope scope(context, in(Phase::count_exchange), &peers);
        const auto back =
            exchange_items(peers, entry_gradient, state.received_entries, state.sent_entries);
        gate_gradient.assign(routed.gate.size(), S(0));
        for (std::size_t i = 0; i < back.size(); ++i)
            gate_gradient[static_cast<std::size_t>(state.entry_slot[i])] = back[i];
    }
    const PhaseScope scope(context, in(Phase::permute));
    Matrix<S> dx = Matrix<S>::Zero(dout.rows(), dout.cols());
    for (std::size_t copy = 0; copy < state.copy_row.size(); ++copy) {
        dx.row(state.copy_row[copy]) += rows.row(static_cast<Eigen::Index>(copy));
    }
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
