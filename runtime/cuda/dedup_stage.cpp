#include "runtime/cuda/dedup_stage.hpp"

#include <numeric>
#include <utility>

namespace headway::runtime {

using kernels::PermuteImpl;

kernels::DedupShape CudaDedupStage::dedup_shape() const {
    return {input_.num_rows, top_k_, peers_.size(), input_.experts_per_peer};
}

void CudaDedupStage::plan(Input input) {
    input_ = std::move(input);
    DeviceArena& arena = context_.arena;
    const std::int64_t slots = input_.num_rows * top_k_;
    place_ = arena.take<std::int32_t>(slots);
    auto* offsets = arena.take<std::int32_t>(peers_.size() + 1);
    const ArenaScope scope(arena);
    auto* key = arena.take<std::int32_t>(slots);
    kernels::dedup_keys(dedup_shape(), input_.index, key, context_.stream);
    const kernels::KeySortShape sort{slots, peers_.size()};
    kernels::key_sort(sort, key, place_, offsets,
                      arena.take_bytes(kernels::key_sort_workspace_bytes(sort)), context_.stream);
}

void CudaDedupStage::exchange_counts() {
    if (context_.again) return;
    const ArenaScope scope(context_.arena);
    const int n = peers_.size();
    auto* sent = context_.arena.take<std::int32_t>(4 * n);  // copies and choices, by peer
    counts_by_rank(routing_shape(), input_.experts_per_peer, n, input_.index, place_, sent,
                   context_.stream);
    peers_.exchange_counts(sent, sent + 2 * n, 2, context_.stream);
    const std::int32_t* host = host_.fetch(sent, 4 * n, peers_, context_.stream);
    sent_.clear();
    received_.clear();
    received_rows_.clear();
    for (int p = 0; p < n; ++p) {
        sent_.push_back(host[2 * p]);
        received_.push_back(host[2 * (n + p)]);
        received_rows_.push_back(host[2 * (n + p) + 1]);
    }
    num_sent_ = std::accumulate(sent_.begin(), sent_.end(), std::int64_t{0});
    num_received_ = std::accumulate(received_.begin(), received_.end(), std::int64_t{0});
}

void CudaDedupStage::exchange_records(const float* gate, std::int32_t* record_expert,
                                      float* record_gate) {
    const ArenaScope scope(context_.arena);
    auto* expert_out = context_.arena.take<std::int32_t>(num_sent_ * top_k_);
    auto* gate_out = context_.arena.take<float>(num_sent_ * top_k_);
    kernels::dedup_records(dedup_shape(), input_.index, gate, place_, expert_out, gate_out,
                           context_.stream);
    const std::int64_t record = 4 * std::int64_t{top_k_};
    const auto sent = in_bytes(sent_, record), received = in_bytes(received_, record);
    peers_.all_to_all_v(expert_out, sent, record_expert, received, context_.stream);
    peers_.all_to_all_v(gate_out, sent, record_gate, received, context_.stream);
}

template <class Move>
void CudaDedupStage::for_ranges(Move&& move) const {
    for (const auto& [begin, end] : input_.ranges) {
        move(kernels::SpreadShape{end - begin, top_k_, width_},
             kernels::SpreadMap{.place = place_ + begin * top_k_}, begin * width_);
    }
}

void CudaDedupStage::gather(const bf16* rows, bf16* copies) {
    for_ranges([&](const auto& shape, const auto& map, std::int64_t first) {
        kernels::spread_rows(PermuteImpl::vectorised, shape, map, rows + first, copies,
                             context_.stream);
    });
}

void CudaDedupStage::sum(const bf16* copies, bf16* rows) {
    for_ranges([&](const auto& shape, const auto& map, std::int64_t first) {
        kernels::collect_rows(PermuteImpl::vectorised, shape, map, copies, rows + first,
                              context_.stream);
    });
}

void CudaDedupStage::send(const bf16* copies, bf16* arrived) {
    const std::int64_t row = std::int64_t{width_} * static_cast<std::int64_t>(sizeof(bf16));
    peers_.all_to_all_v(copies, in_bytes(sent_, row), arrived, in_bytes(received_, row),
                        context_.stream);
}

void CudaDedupStage::send_back(const bf16* arrived, bf16* copies) {
    const std::int64_t row = std::int64_t{width_} * static_cast<std::int64_t>(sizeof(bf16));
    peers_.all_to_all_v(arrived, in_bytes(received_, row), copies, in_bytes(sent_, row),
                        context_.stream);
}

void CudaDedupStage::return_gradients(const float* record_gradient, float* dgate) {
    const ArenaScope scope(context_.arena);
    auto* returned = context_.arena.take<float>(num_sent_ * top_k_);
    const std::int64_t record = 4 * std::int64_t{top_k_};
    peers_.all_to_all_v(record_gradient, in_bytes(received_, record), returned,
                        in_bytes(sent_, record), context_.stream);
    gather_gate_gradients(routing_shape(), input_.experts_per_peer, input_.index, place_, returned,
                          dgate, context_.stream);
}

}  // namespace headway::runtime
