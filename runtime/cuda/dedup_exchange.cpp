#include "runtime/cuda/dedup_exchange.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/check.hpp"

namespace headway::runtime {
namespace {

using kernels::PermuteImpl;

NodeHops hops_of(const ExchangeShape& shape, int rank) {
    const bool staged = shape.dedup == Dedup::node && shape.ranks_per_node > 0 &&
                        shape.ranks_per_node < shape.num_ranks;
    return {.rank = rank,
            .ranks_per_node = staged ? shape.ranks_per_node : shape.num_ranks,
            .experts_per_rank = shape.num_local()};
}

// Distinct peers of the first stage: own node's ranks, and one on every other node.
int num_hops(const ExchangeShape& shape, const NodeHops& hops) {
    return hops.ranks_per_node + shape.num_ranks / hops.ranks_per_node - 1;
}

}  // namespace

DedupExchange::DedupExchange(DeviceContext& context, DeviceCommunicator& peers,
                             const ExchangeShape& shape)
    : context_(context),
      shape_(shape),
      hops_(hops_of(shape, peers.rank())),
      first_(context, peers, shape.width, shape.top_k) {
    if (hops_.ranks_per_node == shape.num_ranks) return;
    node_peers_.emplace(peers, hops_.ranks_per_node);
    second_.emplace(context, *node_peers_, shape.width, shape.top_k);
}

void DedupExchange::announce(const bf16* x, const RowChoices& choices) {
    permute(x, choices);
    {
        const DevicePhase phase(context_, {Phase::count_exchange, Pass::forward},
                                PhaseKind::exchange);
        first_.exchange_counts();
        is_staged() ? exchange_staged_records(choices.gate) : exchange_records(choices.gate);
    }
    if (shape_.experts_again)
        arrived_ = take_arrived();
    else
        rows_ = take_rows();
}

void DedupExchange::permute(const bf16* x, const RowChoices& choices) {
    DeviceArena& arena = context_.arena;
    const int most = std::min(shape_.top_k, num_hops(shape_, hops_));
    copies_ = arena.take<bf16>(std::int64_t{shape_.tokens} * most * shape_.width);
    const std::int32_t* index = choices.index;
    const DevicePhase phase(context_, {Phase::permute, Pass::forward});
    if (is_staged()) {
        auto* hop_index = arena.take<std::int32_t>(shape_.slots());
        first_hops(hops_, shape_.slots(), index, hop_index, context_.stream);
        index = hop_index;
    }
    first_.plan({.index = index,
                 .num_rows = shape_.tokens,
                 .experts_per_peer = is_staged() ? hops_.experts_per_node() : shape_.num_local(),
                 .ranges = {{0, shape_.tokens}}});
    first_.gather(x, copies_);
}

void DedupExchange::exchange_records(const float* gate) {
    const std::int64_t entries = num_first() * shape_.top_k;
    num_rows_ = std::accumulate(first_.received_rows().begin(), first_.received_rows().end(),
                                std::int64_t{0});
    record_gate_ = context_.arena.take<float>(entries);
    auto* expert = context_.arena.take<std::int32_t>(entries);
    first_.exchange_records(gate, expert, record_gate_);
    sort_rows(expert);
}

// Records of the first stage; what they say of rows from other nodes makes those of the second.
void DedupExchange::exchange_staged_records(const float* gate) {
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const std::int64_t entries = num_first() * shape_.top_k;
    auto* onward = arena.take<std::int32_t>(entries);
    auto* first_gate = arena.take<float>(entries);
    first_.exchange_records(gate, onward, first_gate);
    plan_second(onward);
    second_->exchange_counts();
    const auto& own = first_.received_rows();
    const auto& sent_on = second_->received_rows();
    const auto node = own.begin() + hops_.first_of_node();
    num_rows_ = std::accumulate(node, node + hops_.ranks_per_node, std::int64_t{0}) +
                std::accumulate(sent_on.begin(), sent_on.end(), std::int64_t{0});
    record_gate_ = arena.take<float>(num_arrived() * shape_.top_k);
    auto* expert = arena.take<std::int32_t>(num_arrived() * shape_.top_k);
    stay_keys(entries, onward, expert, stream);
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(record_gate_, first_gate,
                                       static_cast<std::size_t>(entries) * sizeof(float),
                                       cudaMemcpyDeviceToDevice, stream));
    second_->exchange_records(first_gate, expert + entries, record_gate_ + entries);
    sort_rows(expert);
}

// Rows from the own node have arrived; those before and behind them, by rank of the sender, go on.
void DedupExchange::plan_second(std::int32_t* onward) {
    const auto& received = first_.received();
    const auto node = received.begin() + hops_.first_of_node();
    const std::int64_t begin = std::accumulate(received.begin(), node, std::int64_t{0});
    const std::int64_t end = std::accumulate(node, node + hops_.ranks_per_node, begin);
    const int k = shape_.top_k;
    second_hops(hops_, {begin * k, end * k}, onward, context_.stream);
    second_->plan({.index = onward,
                   .num_rows = num_first(),
                   .experts_per_peer = shape_.num_local(),
                   .ranges = {{0, begin}, {end, num_first()}}});
}

void DedupExchange::sort_rows(const std::int32_t* keys) {
    DeviceArena& arena = context_.arena;
    const std::int64_t entries = num_arrived() * shape_.top_k;
    row_place_ = arena.take<std::int32_t>(entries);
    offsets_ = arena.take<std::int32_t>(shape_.num_local() + 1);
    const ArenaScope scope(arena);
    const kernels::KeySortShape sort{entries, shape_.num_local()};
    kernels::key_sort(sort, keys, row_place_, offsets_,
                      arena.take_bytes(kernels::key_sort_workspace_bytes(sort)), context_.stream);
}

void DedupExchange::to_experts(CallSite site, const bf16* copies, bf16* arrived) {
    const ArenaScope scope(context_.arena);
    bf16* onward =
        is_staged() ? context_.arena.take<bf16>(second_->num_sent() * shape_.width) : nullptr;
    const DevicePhase phase(context_, site, PhaseKind::exchange);
    first_.send(copies, arrived);
    if (!is_staged()) return;
    second_->gather(arrived, onward);
    second_->send(onward, arrived + num_first() * shape_.width);
}

void DedupExchange::from_experts(CallSite site, bf16* arrived, bf16* copies) {
    const ArenaScope scope(context_.arena);
    bf16* onward =
        is_staged() ? context_.arena.take<bf16>(second_->num_sent() * shape_.width) : nullptr;
    const DevicePhase phase(context_, site, PhaseKind::exchange);
    if (is_staged()) {
        second_->send_back(arrived + num_first() * shape_.width, onward);
        second_->sum(onward, arrived);
    }
    first_.send_back(arrived, copies);
}

void DedupExchange::dispatch() {
    if (shape_.experts_again)
        rows_ = take_rows();
    else
        arrived_ = take_arrived();
    to_experts({Phase::dispatch, Pass::forward}, copies_, arrived_);
    regroup();
}

void DedupExchange::regroup_again() {
    rows_ = take_rows();
    regroup();
}

void DedupExchange::regroup() {
    const DevicePhase phase(context_, {Phase::regroup, Pass::forward});
    kernels::spread_rows(PermuteImpl::vectorised, at_experts(), {.place = row_place_}, arrived_,
                         rows_, context_.stream);
}

void DedupExchange::combine(const bf16* y_rows, bf16* y) {
    bf16* sums = shape_.experts_again ? take_arrived() : arrived_;
    {
        const DevicePhase phase(context_, {Phase::ungroup, Pass::forward});
        kernels::collect_rows(PermuteImpl::vectorised, at_experts(),
                              {.place = row_place_, .weight = record_gate_}, y_rows, sums,
                              context_.stream);
    }
    from_experts({Phase::combine, Pass::forward}, sums, copies_);
    const DevicePhase phase(context_, {Phase::unpermute, Pass::forward});
    first_.sum(copies_, y);
}

const __nv_bfloat16* DedupExchange::gradients_to_experts(const bf16* dy, const bf16* y_rows,
                                                         float*) {
    DeviceArena& arena = context_.arena;
    dcopies_ = arena.take<bf16>(first_.num_sent() * shape_.width);
    {
        const DevicePhase phase(context_, {Phase::unpermute, Pass::backward});
        first_.gather(dy, dcopies_);
    }
    darrived_ = arena.take<bf16>(num_arrived() * shape_.width);
    to_experts({Phase::combine, Pass::backward}, dcopies_, darrived_);
    bf16* dy_rows = arena.take<bf16>(num_rows_ * shape_.width);
    record_gradient_ = arena.take<float>(num_arrived() * shape_.top_k);
    const DevicePhase phase(context_, {Phase::ungroup, Pass::backward});
    kernels::collect_rows_backward(PermuteImpl::vectorised, at_experts(),
                                   {.place = row_place_, .weight = record_gate_}, y_rows, darrived_,
                                   dy_rows, record_gradient_, context_.stream);
    return dy_rows;
}

void DedupExchange::gradients_from_experts(const bf16* dx_rows, bf16* dx, float* dgate) {
    {
        const DevicePhase phase(context_, {Phase::regroup, Pass::backward});
        kernels::collect_rows(PermuteImpl::vectorised, at_experts(), {.place = row_place_}, dx_rows,
                              darrived_, context_.stream);
    }
    from_experts({Phase::dispatch, Pass::backward}, darrived_, dcopies_);
    {
        // The gates' gradients, formed where the experts are, go back to the tokens.
        const DevicePhase phase(context_, {Phase::count_exchange, Pass::backward},
                                PhaseKind::exchange);
        if (is_staged()) {
            second_->return_gradients(record_gradient_ + num_first() * shape_.top_k,
                                      record_gradient_);
        }
        first_.return_gradients(record_gradient_, dgate);
    }
    const DevicePhase phase(context_, {Phase::permute, Pass::backward});
    first_.sum(dcopies_, dx);
}

}  // namespace headway::runtime
