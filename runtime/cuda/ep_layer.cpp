#include "runtime/cuda/ep_layer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "kernels/check.hpp"
#include "models/vocab/error.hpp"

namespace headway::runtime {
namespace {

using kernels::PermuteImpl;

kernels::GroupedActivation activation_of(Activation a) {
    if (a == Activation::swiglu) {
        throw InputError({.where = "EP on CUDA",
                          .found = "activation swiglu",
                          .accepted = "gelu or gelu_tanh",
                          .hint = "swiglu runs with --device cpu"});
    }
    return a == Activation::gelu ? kernels::GroupedActivation::gelu_erf
                                 : kernels::GroupedActivation::gelu_tanh;
}

void check(const LayerSetup& setup) {
    const auto refuse = [](const std::string& found, const std::string& accepted) {
        throw InputError({.where = "EP on CUDA", .found = found, .accepted = accepted});
    };
    const ModelDims& dims = setup.dims;
    if (dims.shared_width > 0 || dims.aux_free_bias || dims.latent_width > 0 ||
        setup.ep.routing.capacity_factor)
        refuse("shared experts, a router bias, a latent width or a capacity factor",
               "none of them; they run with --device cpu");
    if (setup.ep.sparse.dedup == Dedup::node)
        refuse("dedup: node", "none, rank; node runs with --device cpu");
    if (dims.hidden % 8 != 0 || dims.expert_width % 8 != 0)
        refuse(fmt::format("widths {} and {}", dims.hidden, dims.expert_width), "multiples of 8");
    if (setup.ep.sparse.num_experts > kernels::max_sort_keys || setup.ep.routing.top_k > 32)
        refuse(
            fmt::format("{} experts, k = {}", setup.ep.sparse.num_experts, setup.ep.routing.top_k),
            fmt::format("at most {} experts and k = 32", kernels::max_sort_keys));
}

std::vector<std::int64_t> in_bytes(const std::vector<std::int64_t>& rows, std::int64_t row_bytes) {
    std::vector<std::int64_t> bytes = rows;
    for (std::int64_t& b : bytes) b *= row_bytes;
    return bytes;
}

std::int64_t sum(const std::vector<std::int64_t>& values) {
    return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

}  // namespace

CudaEpLayer::CudaEpLayer(DeviceContext& context, const LayerSetup& setup, std::int64_t tokens,
                         DeviceCommunicator* peers)
    : context_(context),
      peers_(peers != nullptr ? *peers : context.communicator),
      num_ranks_((check(setup), setup.num_ranks)),
      tokens_(static_cast<int>(tokens)),
      width_(setup.dims.hidden),
      hidden_(setup.dims.expert_width),
      num_experts_(setup.ep.sparse.num_experts),
      num_local_(num_experts_ / num_ranks_),
      top_k_(setup.ep.routing.top_k),
      dedup_(setup.ep.sparse.dedup),
      activation_(activation_of(setup.ep.sparse.activation)),
      router_(context.blas, {tokens_, width_, num_experts_, top_k_}) {
    DeviceArena& arena = context.arena;
    const std::vector<std::int64_t> n = sizes();
    weights_ = {arena.take<bf16>(n[0]), arena.take<bf16>(n[1]), arena.take<bf16>(n[2])};
    gradients_ = {arena.take<float>(n[0]), arena.take<float>(n[1]), arena.take<float>(n[2])};
    const std::int64_t slots = std::int64_t{tokens_} * top_k_;
    index_ = arena.take<std::int32_t>(slots);
    gate_ = arena.take<float>(slots);
    HEADWAY_CUDA_CHECK(cudaMallocHost(
        &host_counts_,
        sizeof(std::int32_t) * 4 * static_cast<std::size_t>(num_experts_ + num_ranks_)));
}

CudaEpLayer::~CudaEpLayer() {
    cudaFreeHost(host_counts_);
}

std::vector<std::int64_t> CudaEpLayer::sizes() const {
    const std::int64_t expert = std::int64_t{num_local_} * hidden_ * width_;
    return {std::int64_t{num_experts_} * width_, expert, expert};
}

RowRouting CudaEpLayer::routing_shape() const {
    return {.num_rows = tokens_,
            .rows_per_router = tokens_,
            .width = width_,
            .num_experts = num_experts_,
            .top_k = top_k_};
}

kernels::EpExperts CudaEpLayer::experts() const {
    return {.num_experts = num_local_,
            .model_dim = width_,
            .expert_dim = hidden_,
            .capacity_rows = std::max<std::int64_t>(1, state_.num_rows),
            .offsets = state_.row_offsets,
            .w1 = weights_.w1,
            .w2 = weights_.w2,
            .activation = activation_};
}

kernels::DedupShape CudaEpLayer::dedup_shape() const {
    return {tokens_, top_k_, num_ranks_, num_local_};
}

// The token rows and their copies, at the rank whose tokens they are.
kernels::SpreadShape CudaEpLayer::copies_at_source() const {
    return {tokens_, top_k_, width_};
}
kernels::SpreadMap CudaEpLayer::source_map(bool weighted) const {
    return {.place = state_.place, .weight = weighted ? gate_ : nullptr};
}
// The copies that arrived and their rows at the experts.
kernels::SpreadShape CudaEpLayer::copies_at_experts() const {
    return {state_.num_received, deduplicated() ? top_k_ : 1, width_};
}
kernels::SpreadMap CudaEpLayer::expert_map(bool weighted) const {
    return {.place = state_.row_place, .weight = weighted ? state_.record_gate : nullptr};
}

void CudaEpLayer::route_forward(const bf16* x, const std::int32_t* forced) {
    {
        const DevicePhase phase(context_, {Phase::route, Pass::forward});
        const ArenaScope scope(context_.arena);
        router_.forward(x, weights_.router, index_, gate_,
                        context_.arena.take_bytes(router_.forward_workspace_bytes()),
                        context_.stream);
    }
    if (forced == nullptr) return;
    // The router has done its work, for whoever times it; now the choice is replaced.
    const std::size_t bytes = sizeof(std::int32_t) * static_cast<std::size_t>(tokens_) * top_k_;
    HEADWAY_CUDA_CHECK(
        cudaMemcpyAsync(index_, forced, bytes, cudaMemcpyDeviceToDevice, context_.stream));
    gates_of_choices(routing_shape(), x, weights_.router, index_, gate_, context_.stream);
}

// Copies in the order in which they are sent, into state_.returned.
void CudaEpLayer::permute_forward(const bf16* x) {
    DeviceArena& arena = context_.arena;
    const std::int64_t slots = std::int64_t{tokens_} * top_k_;
    const int num_keys = deduplicated() ? num_ranks_ : num_experts_;
    const std::int64_t most =
        deduplicated() ? std::int64_t{tokens_} * std::min(top_k_, num_ranks_) : slots;
    state_.place = arena.take<std::int32_t>(slots);
    state_.offsets = arena.take<std::int32_t>(num_keys + 1);
    // Alone, the copies are the experts' rows.
    (alone() ? state_.rows : state_.returned) = arena.take<bf16>(most * width_);
    const DevicePhase phase(context_, {Phase::permute, Pass::forward});
    const ArenaScope scope(arena);
    const std::int32_t* keys = index_;
    if (deduplicated()) {
        auto* rank_key = arena.take<std::int32_t>(slots);
        kernels::dedup_keys(dedup_shape(), index_, rank_key, context_.stream);
        keys = rank_key;
    }
    const kernels::KeySortShape sort{slots, num_keys};
    kernels::key_sort(sort, keys, state_.place, state_.offsets,
                      arena.take_bytes(kernels::key_sort_workspace_bytes(sort)), context_.stream);
    kernels::spread_rows(PermuteImpl::vectorised, copies_at_source(), source_map(false), x,
                         alone() ? state_.rows : state_.returned, context_.stream);
}

// Every rank learns how much it gets, per expert of its own (rank-dedup: copies and rows); the host
// waits for it.
void CudaEpLayer::exchange_counts() {
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const int per_pair = deduplicated() ? 2 : num_local_, total = per_pair * num_ranks_;
    auto* sent = arena.take<std::int32_t>(2 * total);
    std::int32_t* received = sent + total;
    if (deduplicated()) {
        counts_by_rank(routing_shape(), num_local_, num_ranks_, index_, state_.place, sent, stream);
    } else {
        counts_of_offsets(state_.offsets, total, sent, stream);
    }
    peers_.exchange_counts(sent, received, per_pair, stream);
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(host_counts_, sent,
                                       sizeof(std::int32_t) * static_cast<std::size_t>(2 * total),
                                       cudaMemcpyDeviceToHost, stream));
    peers_.wait(stream);
    state_.sent.assign(static_cast<std::size_t>(num_ranks_), 0);
    state_.received = state_.sent;
    state_.num_rows = 0;
    for (int i = 0; i < total; ++i) {
        const auto rank = static_cast<std::size_t>(i / per_pair);
        const bool rows_only = deduplicated() && i % 2 == 1;
        if (!rows_only) state_.sent[rank] += host_counts_[i];
        if (!rows_only) state_.received[rank] += host_counts_[total + i];
        if (rows_only || !deduplicated()) state_.num_rows += host_counts_[total + i];
    }
    state_.num_sent = sum(state_.sent);
    state_.num_received = sum(state_.received);
    if (deduplicated()) return exchange_records();
    state_.row_place = arena.take<std::int32_t>(state_.num_received);
    state_.row_offsets = arena.take<std::int32_t>(num_local_ + 1);
    kernels::regroup_map(num_ranks_, num_local_, state_.num_received, received, state_.row_place,
                         state_.row_offsets, stream);
}

void CudaEpLayer::exchange_records() {
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const std::int64_t arrived = state_.num_received * top_k_, leaving = state_.num_sent * top_k_;
    state_.row_place = arena.take<std::int32_t>(arrived);
    state_.row_offsets = arena.take<std::int32_t>(num_local_ + 1);
    state_.record_expert = arena.take<std::int32_t>(arrived);
    state_.record_gate = arena.take<float>(arrived);
    const ArenaScope scope(arena);
    auto* expert = arena.take<std::int32_t>(leaving);
    auto* gate = arena.take<float>(leaving);
    kernels::dedup_records(dedup_shape(), index_, gate_, state_.place, expert, gate, stream);
    const auto sent = in_bytes(state_.sent, 4 * std::int64_t{top_k_});
    const auto received = in_bytes(state_.received, 4 * std::int64_t{top_k_});
    peers_.all_to_all_v(expert, sent, state_.record_expert, received, stream);
    peers_.all_to_all_v(gate, sent, state_.record_gate, received, stream);
    const kernels::KeySortShape sort{arrived, num_local_};
    kernels::key_sort(sort, state_.record_expert, state_.row_place, state_.row_offsets,
                      arena.take_bytes(kernels::key_sort_workspace_bytes(sort)), stream);
}

void CudaEpLayer::exchange(CallSite site, const bf16* from, bf16* to, bool to_experts) {
    const DevicePhase phase(context_, site, PhaseKind::exchange);
    const std::int64_t row = std::int64_t{width_} * static_cast<std::int64_t>(sizeof(bf16));
    const auto sent = in_bytes(state_.sent, row), received = in_bytes(state_.received, row);
    peers_.all_to_all_v(from, to_experts ? sent : received, to, to_experts ? received : sent,
                        context_.stream);
}

void CudaEpLayer::forward(const bf16* x, bf16* y, const std::int32_t* forced) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    state_ = {.mark = arena.used()};
    route_forward(x, forced);
    permute_forward(x);
    if (alone()) {
        state_.num_rows = std::int64_t{tokens_} * top_k_;
        state_.row_offsets = state_.offsets;
    } else {
        {
            const DevicePhase phase(context_, in(Phase::count_exchange), PhaseKind::exchange);
            exchange_counts();
        }
        state_.rows = arena.take<bf16>(state_.num_rows * width_);
    }
    state_.pre = arena.take<bf16>(state_.num_rows * hidden_);
    state_.act = arena.take<bf16>(state_.num_rows * hidden_);
    // What the experts return: kept for the gates' gradient, here or at the source.
    if (alone() || deduplicated()) state_.y_rows = arena.take<bf16>(state_.num_rows * width_);
    const ArenaScope scope(arena);
    bf16* arrived = state_.rows;
    if (!alone()) {
        if (regroups()) arrived = arena.take<bf16>(state_.num_received * width_);
        exchange(in(Phase::dispatch), state_.returned, arrived, true);
        if (regroups()) {
            const DevicePhase phase(context_, in(Phase::regroup));
            kernels::spread_rows(PermuteImpl::vectorised, copies_at_experts(), expert_map(false),
                                 arrived, state_.rows, stream);
        }
    }
    bf16* y_rows =
        state_.y_rows != nullptr ? state_.y_rows : arena.take<bf16>(state_.num_rows * width_);
    {
        const DevicePhase phase(context_, in(Phase::expert));
        kernels::ep_experts_forward(kernels::GroupedImpl::hopper, experts(),
                                    {state_.rows, state_.pre, state_.act, y_rows}, stream);
    }
    const bf16* back = y_rows;
    if (!alone()) {
        if (regroups()) {
            const DevicePhase phase(context_, in(Phase::ungroup));
            kernels::collect_rows(PermuteImpl::vectorised, copies_at_experts(),
                                  expert_map(deduplicated()), y_rows, arrived, stream);
            back = arrived;
        }
        exchange(in(Phase::combine), back, state_.returned, false);
        back = state_.returned;
    }
    const DevicePhase phase(context_, in(Phase::unpermute));
    kernels::collect_rows(PermuteImpl::vectorised, copies_at_source(), source_map(!deduplicated()),
                          back, y, stream);
}

// The gates' gradients, formed where the experts are, go back to the tokens.
void CudaEpLayer::return_gate_gradients(const float* record_gradient, float* dgate) {
    const DevicePhase phase(context_, {Phase::count_exchange, Pass::backward}, PhaseKind::exchange);
    const ArenaScope scope(context_.arena);
    auto* returned = context_.arena.take<float>(state_.num_sent * top_k_);
    const std::int64_t row = 4 * std::int64_t{top_k_};
    peers_.all_to_all_v(record_gradient, in_bytes(state_.received, row), returned,
                        in_bytes(state_.sent, row), context_.stream);
    gather_gate_gradients(routing_shape(), num_local_, index_, state_.place, returned, dgate,
                          context_.stream);
}

void CudaEpLayer::backward(const bf16* x, const bf16* dy, bf16* dx) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const auto impl = PermuteImpl::vectorised;
    const std::int64_t rows = state_.num_rows * width_, arrived = state_.num_received * width_;
    const std::int64_t copies = alone() ? rows : state_.num_sent * width_;
    auto* dgate = arena.take<float>(std::int64_t{tokens_} * top_k_);
    bf16* dcopies = arena.take<bf16>(copies);  // at the source
    float* record_gradient = nullptr;
    {
        const DevicePhase phase(context_, in(Phase::unpermute));
        if (deduplicated()) {
            kernels::spread_rows(impl, copies_at_source(), source_map(false), dy, dcopies, stream);
        } else {
            kernels::collect_rows_backward(impl, copies_at_source(), source_map(true),
                                           alone() ? state_.y_rows : state_.returned, dy, dcopies,
                                           dgate, stream);
        }
    }
    bf16 *dy_rows = dcopies, *darrived = nullptr;
    if (!alone()) {
        darrived = arena.take<bf16>(arrived);
        exchange(in(Phase::combine), dcopies, darrived, true);
        dy_rows = darrived;
        if (regroups()) {
            dy_rows = arena.take<bf16>(rows);
            if (deduplicated()) record_gradient = arena.take<float>(state_.num_received * top_k_);
            const DevicePhase phase(context_, in(Phase::ungroup));
            if (deduplicated()) {
                kernels::collect_rows_backward(impl, copies_at_experts(), expert_map(true),
                                               state_.y_rows, darrived, dy_rows, record_gradient,
                                               stream);
            } else {
                kernels::spread_rows(impl, copies_at_experts(), expert_map(false), darrived,
                                     dy_rows, stream);
            }
        }
    }
    bf16* dpre = arena.take<bf16>(state_.num_rows * hidden_);
    // Not regrouped and not deduplicated: rows and arrivals are as many.
    bf16* dx_rows = arena.take<bf16>(rows);
    {
        const DevicePhase phase(context_, in(Phase::expert));
        kernels::ep_experts_backward(kernels::GroupedImpl::hopper, experts(),
                                     {.x = state_.rows,
                                      .pre = state_.pre,
                                      .act = state_.act,
                                      .dy = dy_rows,
                                      .dpre = dpre,
                                      .dx = dx_rows,
                                      .dw1 = gradients_.w1,
                                      .dw2 = gradients_.w2},
                                     stream);
    }
    const bf16* back = dx_rows;
    if (!alone()) {
        if (regroups()) {
            const DevicePhase phase(context_, in(Phase::regroup));
            kernels::collect_rows(impl, copies_at_experts(), expert_map(false), dx_rows, darrived,
                                  stream);
            back = darrived;
        }
        exchange(in(Phase::dispatch), back, dcopies, false);
        back = dcopies;
        if (deduplicated()) return_gate_gradients(record_gradient, dgate);
    }
    {
        const DevicePhase phase(context_, in(Phase::permute));
        kernels::collect_rows(impl, copies_at_source(), source_map(false), back, dx, stream);
    }
    {
        const DevicePhase phase(context_, in(Phase::route));
        const ArenaScope scope(arena);
        router_.backward(x, weights_.router, index_, gate_, dgate, dx, gradients_.router,
                         arena.take_bytes(router_.backward_workspace_bytes()), stream);
    }
    release();
}

void CudaEpLayer::release() {
    context_.arena.release(state_.mark);
}

}  // namespace headway::runtime
