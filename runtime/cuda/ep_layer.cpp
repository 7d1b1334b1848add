#include "runtime/cuda/ep_layer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/permute/maps.hpp"
#include "models/vocab/error.hpp"

namespace headway::runtime {
namespace {

kernels::GroupedActivation activation_of(Activation a) {
    if (is_gated(a)) {
        const std::string found(kActivationNames[static_cast<std::size_t>(a)]);
        throw InputError({.where = "EP on CUDA",
                          .found = "activation " + found,
                          .accepted = "gelu or gelu_tanh",
                          .hint = found + " runs with --device cpu"});
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
    if (dims.hidden % 8 != 0 || dims.expert_width % 8 != 0)
        refuse(fmt::format("widths {} and {}", dims.hidden, dims.expert_width), "multiples of 8");
    if (setup.ep.sparse.num_experts > kernels::max_sort_keys || setup.ep.routing.top_k > 32)
        refuse(
            fmt::format("{} experts, k = {}", setup.ep.sparse.num_experts, setup.ep.routing.top_k),
            fmt::format("at most {} experts and k = 32", kernels::max_sort_keys));
}

ExchangeShape exchange_shape(const LayerSetup& setup, std::int64_t tokens) {
    check(setup);
    return {.tokens = static_cast<int>(tokens),
            .width = setup.dims.hidden,
            .num_experts = setup.ep.sparse.num_experts,
            .num_ranks = setup.num_ranks,
            .top_k = setup.ep.routing.top_k,
            .dedup = setup.ep.sparse.dedup,
            .ranks_per_node = setup.ep.sparse.ranks_per_node,
            .experts_again = setup.ep.sparse.experts_again};
}

}  // namespace

CudaEpLayer::CudaEpLayer(DeviceContext& context, const LayerSetup& setup, std::int64_t tokens,
                         DeviceCommunicator* peers, const Parameters* given)
    : context_(context),
      shape_(exchange_shape(setup, tokens)),
      hidden_(setup.dims.expert_width),
      activation_(activation_of(setup.ep.sparse.activation)),
      router_(context.blas, {shape_.tokens, shape_.width, shape_.num_experts, shape_.top_k}),
      exchange_(
          make_expert_exchange(context, peers != nullptr ? *peers : context.communicator, shape_)) {
    DeviceArena& arena = context.arena;
    const std::vector<std::int64_t> n = sizes();
    if (given != nullptr) {
        weights_ = given->weights;
        gradients_ = given->gradients;
    } else {
        weights_ = {arena.take<bf16>(n[0]), arena.take<bf16>(n[1]), arena.take<bf16>(n[2])};
        gradients_ = {arena.take<float>(n[0]), arena.take<float>(n[1]), arena.take<float>(n[2])};
    }
    index_ = arena.take<std::int32_t>(shape_.slots());
    gate_ = arena.take<float>(shape_.slots());
}

std::vector<std::int64_t> CudaEpLayer::sizes() const {
    const std::int64_t expert = std::int64_t{shape_.num_local()} * hidden_ * shape_.width;
    return {std::int64_t{shape_.num_experts} * shape_.width, expert, expert};
}

kernels::EpExperts CudaEpLayer::experts() const {
    return {.num_experts = shape_.num_local(),
            .model_dim = shape_.width,
            .expert_dim = hidden_,
            .capacity_rows = std::max<std::int64_t>(1, exchange_->num_rows()),
            .offsets = exchange_->offsets(),
            .w1 = weights_.w1,
            .w2 = weights_.w2,
            .activation = activation_};
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
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(
        index_, forced, sizeof(std::int32_t) * static_cast<std::size_t>(shape_.slots()),
        cudaMemcpyDeviceToDevice, context_.stream));
    const RowRouting routing{.num_rows = shape_.tokens,
                             .rows_per_router = shape_.tokens,
                             .width = shape_.width,
                             .num_experts = shape_.num_experts,
                             .top_k = shape_.top_k};
    gates_of_choices(routing, x, weights_.router, index_, gate_, context_.stream);
}

void CudaEpLayer::forward(const bf16* x, bf16* y, const std::int32_t* forced) {
    DeviceArena& arena = context_.arena;
    mark_ = arena.used();
    route_forward(x, forced);
    exchange_->announce(x, {index_, gate_});
    if (!shape_.experts_again) take_outputs();
    const ArenaScope scope(arena);
    if (shape_.experts_again) take_outputs();
    exchange_->dispatch();
    bf16* y_rows = output_rows();
    run_experts(y_rows);
    exchange_->combine(y_rows, y);
}

// What the experts return is kept where the gates' gradient needs it here.
void CudaEpLayer::take_outputs() {
    DeviceArena& arena = context_.arena;
    const std::int64_t rows = exchange_->num_rows();
    pre_ = arena.take<bf16>(rows * hidden_);
    act_ = arena.take<bf16>(rows * hidden_);
    y_rows_ = exchange_->needs_outputs() ? arena.take<bf16>(rows * shape_.width) : nullptr;
}

CudaEpLayer::bf16* CudaEpLayer::output_rows() {
    return y_rows_ != nullptr ? y_rows_
                              : context_.arena.take<bf16>(exchange_->num_rows() * shape_.width);
}

void CudaEpLayer::run_experts(bf16* y_rows) {
    const DevicePhase phase(context_, {Phase::expert, Pass::forward});
    kernels::ep_experts_forward(kernels::GroupedImpl::hopper, experts(),
                                {exchange_->rows(), pre_, act_, y_rows}, context_.stream);
}

void CudaEpLayer::experts_again() {
    const RepeatedForward repeated(context_);
    exchange_->regroup_again();
    take_outputs();
    const ArenaScope scope(context_.arena);
    run_experts(output_rows());
}

void CudaEpLayer::backward(const bf16* x, const bf16* dy, bf16* dx, bool accumulate) {
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const std::int64_t rows = exchange_->num_rows();
    if (shape_.experts_again) experts_again();
    auto* dgate = arena.take<float>(shape_.slots());
    const bf16* dy_rows = exchange_->gradients_to_experts(dy, y_rows_, dgate);
    bf16* dpre = arena.take<bf16>(rows * hidden_);
    bf16* dx_rows = arena.take<bf16>(rows * shape_.width);
    {
        const DevicePhase phase(context_, {Phase::expert, Pass::backward});
        kernels::ep_experts_backward(kernels::GroupedImpl::hopper, experts(),
                                     {.x = exchange_->rows(),
                                      .pre = pre_,
                                      .act = act_,
                                      .dy = dy_rows,
                                      .dpre = dpre,
                                      .dx = dx_rows,
                                      .dw1 = gradients_.w1,
                                      .dw2 = gradients_.w2,
                                      .accumulate = accumulate},
                                     stream);
    }
    exchange_->gradients_from_experts(dx_rows, dx, dgate);
    {
        const DevicePhase phase(context_, {Phase::route, Pass::backward});
        const ArenaScope scope(arena);
        router_.backward(x, weights_.router, index_, gate_, dgate, dx, gradients_.router,
                         arena.take_bytes(router_.backward_workspace_bytes()), stream, accumulate);
    }
    release();
}

void CudaEpLayer::release() {
    context_.arena.release(mark_);
}

}  // namespace headway::runtime
