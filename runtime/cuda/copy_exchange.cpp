#include "runtime/cuda/copy_exchange.hpp"

#include <numeric>

#include "kernels/permute/maps.hpp"

namespace headway::runtime {

using kernels::PermuteImpl;

void CopyExchange::announce(const bf16* x, const RowChoices& choices) {
    choices_ = choices;
    permute(x);
    if (context_.again) {
        const DevicePhase phase(context_, {Phase::permute, Pass::forward});
        place_rows();
    } else {
        const DevicePhase phase(context_, {Phase::count_exchange, Pass::forward},
                                PhaseKind::exchange);
        exchange_counts();
        place_rows();
    }
    (keeps_arrived() ? arrived_ : rows_) = take_rows();
}

void CopyExchange::permute(const bf16* x) {
    DeviceArena& arena = context_.arena;
    place_ = arena.take<std::int32_t>(shape_.slots());
    copy_offsets_ = arena.take<std::int32_t>(shape_.num_experts + 1);
    copies_ = arena.take<bf16>(shape_.slots() * shape_.width);
    const DevicePhase phase(context_, {Phase::permute, Pass::forward});
    const ArenaScope scope(arena);
    const kernels::KeySortShape sort{shape_.slots(), shape_.num_experts};
    kernels::key_sort(sort, choices_.index, place_, copy_offsets_,
                      arena.take_bytes(kernels::key_sort_workspace_bytes(sort)), context_.stream);
    kernels::spread_rows(PermuteImpl::vectorised, at_source(), source_map(nullptr), x, copies_,
                         context_.stream);
}

// Every rank learns how much it gets, per expert of its own; the host waits for it.
void CopyExchange::exchange_counts() {
    const cudaStream_t stream = context_.stream;
    const int local = shape_.num_local(), total = shape_.num_experts;
    counts_of_offsets(copy_offsets_, total, counts_, stream);
    peers_.exchange_counts(counts_, counts_ + total, local, stream);
    const std::int32_t* host = host_.fetch(counts_, 2 * total, peers_, stream);
    sent_.assign(static_cast<std::size_t>(shape_.num_ranks), 0);
    received_ = sent_;
    for (int i = 0; i < total; ++i) {
        sent_[static_cast<std::size_t>(i / local)] += host[i];
        received_[static_cast<std::size_t>(i / local)] += host[total + i];
    }
    num_sent_ = std::accumulate(sent_.begin(), sent_.end(), std::int64_t{0});
    num_rows_ = std::accumulate(received_.begin(), received_.end(), std::int64_t{0});
}

void CopyExchange::place_rows() {
    const int local = shape_.num_local();
    row_place_ = context_.arena.take<std::int32_t>(num_rows_);
    offsets_ = context_.arena.take<std::int32_t>(local + 1);
    kernels::regroup_map(shape_.num_ranks, local, num_rows_, counts_ + shape_.num_experts,
                         row_place_, offsets_, context_.stream);
}

void CopyExchange::exchange(CallSite site, const bf16* from, bf16* to, bool to_experts) {
    const DevicePhase phase(context_, site, PhaseKind::exchange);
    const std::int64_t row = std::int64_t{shape_.width} * static_cast<std::int64_t>(sizeof(bf16));
    const auto sent = in_bytes(sent_, row), received = in_bytes(received_, row);
    peers_.all_to_all_v(from, to_experts ? sent : received, to, to_experts ? received : sent,
                        context_.stream);
}

void CopyExchange::dispatch() {
    if (keeps_arrived())
        rows_ = take_rows();
    else
        arrived_ = regroups() ? take_rows() : rows_;
    exchange({Phase::dispatch, Pass::forward}, copies_, arrived_, true);
    regroup();
}

void CopyExchange::regroup_again() {
    if (keeps_arrived()) rows_ = take_rows();
    regroup();
}

void CopyExchange::regroup() {
    if (!regroups()) return;
    const DevicePhase phase(context_, {Phase::regroup, Pass::forward});
    kernels::spread_rows(PermuteImpl::vectorised, at_experts(), {.place = row_place_}, arrived_,
                         rows_, context_.stream);
}

void CopyExchange::combine(const bf16* y_rows, bf16* y) {
    const bf16* back = y_rows;
    if (regroups()) {
        bf16* ungrouped = keeps_arrived() ? take_rows() : arrived_;
        const DevicePhase phase(context_, {Phase::ungroup, Pass::forward});
        kernels::collect_rows(PermuteImpl::vectorised, at_experts(), {.place = row_place_}, y_rows,
                              ungrouped, context_.stream);
        back = ungrouped;
    }
    exchange({Phase::combine, Pass::forward}, back, copies_, false);
    const DevicePhase phase(context_, {Phase::unpermute, Pass::forward});
    kernels::collect_rows(PermuteImpl::vectorised, at_source(), source_map(choices_.gate), copies_,
                          y, context_.stream);
}

// The copies that came back in forward are what the gates' gradient needs.
const __nv_bfloat16* CopyExchange::gradients_to_experts(const bf16* dy, const bf16*, float* dgate) {
    DeviceArena& arena = context_.arena;
    dcopies_ = arena.take<bf16>(num_sent_ * shape_.width);
    {
        const DevicePhase phase(context_, {Phase::unpermute, Pass::backward});
        kernels::collect_rows_backward(PermuteImpl::vectorised, at_source(),
                                       source_map(choices_.gate), copies_, dy, dcopies_, dgate,
                                       context_.stream);
    }
    darrived_ = arena.take<bf16>(num_rows_ * shape_.width);
    exchange({Phase::combine, Pass::backward}, dcopies_, darrived_, true);
    if (!regroups()) return darrived_;
    bf16* dy_rows = arena.take<bf16>(num_rows_ * shape_.width);
    const DevicePhase phase(context_, {Phase::ungroup, Pass::backward});
    kernels::spread_rows(PermuteImpl::vectorised, at_experts(), {.place = row_place_}, darrived_,
                         dy_rows, context_.stream);
    return dy_rows;
}

void CopyExchange::gradients_from_experts(const bf16* dx_rows, bf16* dx, float*) {
    const bf16* back = dx_rows;
    if (regroups()) {
        const DevicePhase phase(context_, {Phase::regroup, Pass::backward});
        kernels::collect_rows(PermuteImpl::vectorised, at_experts(), {.place = row_place_}, dx_rows,
                              darrived_, context_.stream);
        back = darrived_;
    }
    exchange({Phase::dispatch, Pass::backward}, back, dcopies_, false);
    const DevicePhase phase(context_, {Phase::permute, Pass::backward});
    kernels::collect_rows(PermuteImpl::vectorised, at_source(), source_map(nullptr), dcopies_, dx,
                          context_.stream);
}

}  // namespace headway::runtime
