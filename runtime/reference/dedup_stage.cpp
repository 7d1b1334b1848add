#include "runtime/reference/dedup_stage.hpp"

#include <algorithm>
#include <numeric>

namespace headway::runtime {

namespace {

// What a destination needs to know of an entry, besides its gate.
struct EntryLabel {
    std::int32_t copy;  // within the copies from the same source
    std::int32_t expert;
};

template <class T>
std::vector<T> exchange_items(Communicator& peers, std::span<const T> items,
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

template <class S>
std::vector<EntryLabel> labels_of(std::span<const Choice<S>> choices, const DedupStage<S>& stage) {
    std::vector<EntryLabel> labels;
    labels.reserve(stage.entry_choice.size());
    std::size_t entry = 0, first_copy = 0;
    for (std::size_t p = 0; p < stage.sent_copies.size(); ++p) {
        std::size_t copy = first_copy;
        for (std::int64_t i = 0; i < stage.sent_entries[p]; ++i, ++entry) {
            const Choice<S>& choice = choices[static_cast<std::size_t>(stage.entry_choice[entry])];
            while (stage.copy_row[copy] != choice.row) ++copy;
            labels.push_back({static_cast<std::int32_t>(copy - first_copy), choice.expert});
        }
        first_copy += static_cast<std::size_t>(stage.sent_copies[p]);
    }
    return labels;
}

template <class S>
void exchange_counts(Communicator& peers, DedupStage<S>& stage) {
    const auto num_peers = static_cast<std::size_t>(peers.size());
    std::vector<std::int64_t> sent, received(2 * num_peers);
    for (std::size_t p = 0; p < num_peers; ++p)
        sent.insert(sent.end(), {stage.sent_copies[p], stage.sent_entries[p]});
    peers.all_to_all(sent.data(), received.data(), 2 * sizeof(std::int64_t));
    for (std::size_t p = 0; p < num_peers; ++p) {
        stage.received_copies.push_back(received[2 * p]);
        stage.received_entries.push_back(received[2 * p + 1]);
    }
}

}  // namespace

template <class S>
std::int64_t DedupStage<S>::num_received() const {
    return std::accumulate(received_copies.begin(), received_copies.end(), std::int64_t{0});
}

template <class S>
DedupStage<S> plan_stage(std::span<const Choice<S>> choices, int num_peers) {
    std::vector<std::int64_t> entry_key, copy_key;
    entry_key.reserve(choices.size());
    copy_key.reserve(choices.size());
    std::size_t row_begin = 0;
    for (std::size_t i = 0; i < choices.size(); ++i) {
        if (choices[i].row != choices[row_begin].row) row_begin = i;
        const std::int64_t peer = choices[i].peer;
        const auto begin = entry_key.begin() + static_cast<std::ptrdiff_t>(row_begin);
        const bool first = std::find(begin, entry_key.end(), peer) == entry_key.end();
        copy_key.push_back(first ? peer : -1);
        entry_key.push_back(peer);
    }
    const Grouping copies = group_by(copy_key, num_peers), entries = group_by(entry_key, num_peers);
    DedupStage<S> stage{.copy_row = copies.order, .entry_choice = entries.order};
    for (std::int64_t& choice : stage.copy_row)
        choice = choices[static_cast<std::size_t>(choice)].row;
    for (std::int64_t peer = 0; peer < num_peers; ++peer) {
        stage.sent_copies.push_back(copies.size(peer));
        stage.sent_entries.push_back(entries.size(peer));
    }
    return stage;
}

template <class S>
void exchange_choices(Communicator& peers, std::span<const Choice<S>> choices,
                      DedupStage<S>& stage) {
    exchange_counts(peers, stage);
    const std::vector<EntryLabel> labels = labels_of(choices, stage);
    std::vector<S> gates;
    gates.reserve(stage.entry_choice.size());
    for (const std::int64_t choice : stage.entry_choice)
        gates.push_back(choices[static_cast<std::size_t>(choice)].gate);
    const auto label =
        exchange_items<EntryLabel>(peers, labels, stage.sent_entries, stage.received_entries);
    const auto gate = exchange_items<S>(peers, gates, stage.sent_entries, stage.received_entries);
    stage.arrived.reserve(gate.size());
    std::int64_t first_copy = 0;
    std::size_t entry = 0;
    for (std::size_t p = 0; p < stage.received_copies.size(); ++p) {
        for (std::int64_t i = 0; i < stage.received_entries[p]; ++i, ++entry) {
            stage.arrived.push_back({.row = first_copy + label[entry].copy,
                                     .expert = label[entry].expert,
                                     .gate = gate[entry]});
        }
        first_copy += stage.received_copies[p];
    }
}

template <class S>
void return_to_choices(Communicator& peers, const DedupStage<S>& stage, std::span<const S> by_entry,
                       std::span<S> result) {
    const auto back =
        exchange_items<S>(peers, by_entry, stage.received_entries, stage.sent_entries);
    for (std::size_t i = 0; i < back.size(); ++i)
        result[static_cast<std::size_t>(stage.entry_choice[i])] = back[i];
}

template <class S>
void add_copies(const DedupStage<S>& stage, ConstMatrixView<S> copies, MatrixView<S> to) {
    for (std::size_t copy = 0; copy < stage.copy_row.size(); ++copy)
        to.row(stage.copy_row[copy]) += copies.row(static_cast<Eigen::Index>(copy));
}

template struct DedupStage<float>;
template struct DedupStage<double>;
template DedupStage<float> plan_stage<float>(std::span<const Choice<float>>, int);
template DedupStage<double> plan_stage<double>(std::span<const Choice<double>>, int);
template void exchange_choices<float>(Communicator&, std::span<const Choice<float>>,
                                      DedupStage<float>&);
template void exchange_choices<double>(Communicator&, std::span<const Choice<double>>,
                                       DedupStage<double>&);
template void return_to_choices<float>(Communicator&, const DedupStage<float>&,
                                       std::span<const float>, std::span<float>);
template void return_to_choices<double>(Communicator&, const DedupStage<double>&,
                                        std::span<const double>, std::span<double>);
template void add_copies<float>(const DedupStage<float>&, ConstMatrixView<float>,
                                MatrixView<float>);
template void add_copies<double>(const DedupStage<double>&, ConstMatrixView<double>,
                                 MatrixView<double>);

}  // namespace headway::runtime
