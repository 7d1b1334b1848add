#include "runtime/cuda/hp_layer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/combine/combine.hpp"
#include "models/vocab/error.hpp"
#include "runtime/cuda/plane_kernels.hpp"
#include "runtime/cuda/row_kernels.hpp"

namespace headway::runtime {
namespace {

kernels::Activation activation_of(Activation a) {
    switch (a) {
        case Activation::gelu:
            return kernels::Activation::gelu_erf;
        case Activation::gelu_tanh:
            return kernels::Activation::gelu_tanh;
        case Activation::quick_geglu:
            throw InputError({.where = "HP on CUDA",
                              .found = "activation quick_geglu",
                              .accepted = "gelu, gelu_tanh or swiglu",
                              .hint = "quick_geglu runs with --device cpu"});
        case Activation::swiglu:
            break;
    }
    return kernels::Activation::swiglu;
}

[[noreturn]] void refuse(const std::string& found, const std::string& accepted) {
    throw InputError({.where = "HP on CUDA", .found = found, .accepted = accepted});
}

kernels::HpLayerShape shape_of(const LayerSetup& setup) {
    const HpShape& hp = setup.hp;
    if (setup.num_ranks > hp.num_heads)
        refuse(fmt::format("{} ranks for {} heads", setup.num_ranks, hp.num_heads),
               "at most as many ranks as heads (CudaHpEpLayer runs the others)");
    if (setup.dims.shared_width > 0 || setup.dims.aux_free_bias || hp.routing.capacity_factor)
        refuse("shared experts, a router bias or a capacity factor",
               "none of them; they run with --device cpu");
    return {.num_heads = hp.heads_per_rank(),
            .num_tokens = static_cast<int>(hp.tokens.front() * setup.num_ranks),
            .width = hp.head_width,
            .num_experts = hp.sparse.num_experts,
            .hidden = setup.dims.expert_width,
            .top_k = hp.routing.top_k,
            .activation = activation_of(hp.sparse.activation)};
}

kernels::HpLayerImpl impl_of(const kernels::HpLayerShape& shape) {
    if (!kernels::router_supported(kernels::RouterImpl::fused, shape.router()))
        refuse(fmt::format("head width {} with k = {} of {} experts", shape.width, shape.top_k,
                           shape.num_experts),
               "head widths 64, 128 and 256, k at most 32");
    for (const auto impl : {kernels::ExpertImpl::hopper, kernels::ExpertImpl::portable}) {
        if (kernels::experts_forward_supported(impl, shape.experts()) &&
            kernels::experts_backward_supported(impl, shape.experts()))
            return {.router = kernels::RouterImpl::fused, .experts = impl};
    }
    refuse(fmt::format("head width {} and expert width {}", shape.width, shape.hidden),
           "expert widths that are multiples of 64");
}

kernels::HpLayerRouting take_routing(const kernels::GroupingShape& rows, DeviceArena& arena) {
    kernels::HpLayerRouting r;
    r.index = arena.take<std::int32_t>(rows.num_rows());
    r.gate = arena.take<float>(rows.num_rows());
    r.rows = {.row_token = arena.take<std::int32_t>(rows.num_rows()),
              .row_gate = arena.take<float>(rows.num_rows()),
              .token_row = arena.take<std::int32_t>(rows.num_rows()),
              .expert_offset = arena.take<std::int32_t>(rows.num_groups() + 1),
              .tile_offset = arena.take<std::int32_t>(rows.num_groups() + 1),
              .tiles = arena.take<kernels::TileDescriptor>(rows.max_tiles()),
              .num_tiles = arena.take<std::int32_t>(1)};
    return r;
}

}  // namespace

CudaHpLayer::CudaHpLayer(DeviceContext& context, const LayerSetup& setup, const Parameters* given)
    : context_(context),
      num_ranks_(setup.num_ranks),
      tokens_(static_cast<int>(setup.hp.tokens.front())),
      shape_(shape_of(setup)),
      impl_(impl_of(shape_)),
      head_shape_{.num_tokens = tokens_,
                  .model_dim = setup.dims.hidden,
                  .num_heads = setup.hp.num_heads,
                  .head_dim = setup.hp.head_width},
      head_gemms_(kernels::HeadImpl::hopper, nullptr, head_shape_) {
    DeviceArena& arena = context.arena;
    const std::vector<std::int64_t> n = sizes();
    if (given != nullptr) {
        weights_ = given->weights;
        gradients_ = given->gradients;
    } else {
        weights_ = {arena.take<bf16>(n[0]), arena.take<bf16>(n[1]), arena.take<bf16>(n[2]),
                    arena.take<bf16>(n[3]), arena.take<float>(n[4])};
        gradients_ = {arena.take<float>(n[0]), arena.take<float>(n[1]), arena.take<float>(n[2]),
                      arena.take<float>(n[3]), arena.take<float>(n[4])};
    }
    if (given != nullptr && given->takes_turns_with != nullptr) {
        const CudaHpLayer& other = *given->takes_turns_with;
        sub_tokens_ = other.sub_tokens_;
        gathered_ = other.gathered_;
        routing_ = other.routing_;
        counts_ = other.counts_;
        return;
    }
    const kernels::GroupingShape rows = shape_.router().grouping();
    const std::int64_t elements = rows.num_subtokens() * shape_.width;
    sub_tokens_ = arena.take<bf16>(elements);
    gathered_ = arena.take<bf16>(elements);
    routing_ = take_routing(rows, arena);
    counts_ = arena.take<std::int32_t>(rows.num_counts());
}

std::vector<std::int64_t> CudaHpLayer::sizes() const {
    const kernels::ExpertShape e = shape_.experts();
    const std::int64_t groups = e.num_groups, width = shape_.width;
    const std::int64_t projection = std::int64_t{head_shape_.model_dim} * head_shape_.columns();
    return {projection, projection, groups * e.hidden_rows() * width, groups * e.hidden * width,
            groups * width};
}

kernels::RowGrouping CudaHpLayer::expert_rows() const {
    const kernels::GroupingOutput& r = routing_.rows;
    return {r.row_token, r.row_gate, r.expert_offset, r.tiles, r.num_tiles};
}

// A rank leaves [owner][head of the owner] planes and its kernels want [own head][source] ones.
// Stores go where they should; NCCL is fast on one block a rank only, so that a kernel moves the
// planes in the owner's memory.
void CudaHpLayer::to_owners(CallSite site, const bf16* own, bf16* held) {
    const DevicePhase phase(context_, site, PhaseKind::exchange);
    DeviceCommunicator& communicator = context_.communicator;
    if (communicator.stores_directly())
        return communicator.store_planes(own, by_owner(), held, by_head(), shape_.num_heads,
                                         plane_bytes(), context_.stream);
    const ArenaScope scope(context_.arena);
    void* arrived = held;
    if (by_owner() != by_head()) arrived = context_.arena.take_bytes(num_ranks_ * by_owner().rank);
    communicator.all_to_all(own, arrived, by_owner().rank, context_.stream);
    if (arrived != held)
        move_planes(arrived, by_owner(), held, by_head(), num_ranks_, shape_.num_heads,
                    plane_bytes(), context_.stream);
}

void CudaHpLayer::from_owners(CallSite site, const bf16* held, bf16* own) {
    const DevicePhase phase(context_, site, PhaseKind::exchange);
    DeviceCommunicator& communicator = context_.communicator;
    if (communicator.stores_directly())
        return communicator.store_planes(held, by_head(), own, by_owner(), shape_.num_heads,
                                         plane_bytes(), context_.stream);
    const ArenaScope scope(context_.arena);
    const void* leaving = held;
    if (by_owner() != by_head()) {
        void* by_source = context_.arena.take_bytes(num_ranks_ * by_owner().rank);
        move_planes(held, by_head(), by_source, by_owner(), num_ranks_, shape_.num_heads,
                    plane_bytes(), context_.stream);
        leaving = by_source;
    }
    communicator.all_to_all(leaving, own, by_owner().rank, context_.stream);
}

std::int64_t CudaHpLayer::plane_bytes() const {
    return static_cast<std::int64_t>(sizeof(bf16)) * tokens_ * shape_.width;
}

PlaneStrides CudaHpLayer::by_owner() const {
    return {.rank = shape_.num_heads * plane_bytes(), .plane = plane_bytes()};
}

PlaneStrides CudaHpLayer::by_head() const {
    return {.rank = plane_bytes(), .plane = num_ranks_ * plane_bytes()};
}

void CudaHpLayer::route_forward(const std::int32_t* forced) {
    DeviceArena& arena = context_.arena;
    const kernels::RouterShape router = shape_.router();
    {
        const DevicePhase phase(context_, {Phase::route, Pass::forward});
        const ArenaScope scope(arena);
        kernels::router_forward(
            impl_.router, router, {sub_tokens_, weights_.router, nullptr},
            {routing_.index, routing_.gate, counts_},
            arena.take_bytes(kernels::router_workspace_bytes(impl_.router, router)),
            context_.stream);
    }
    if (forced == nullptr) return;
    // The router has done its work, for whoever times it; now the choice is replaced.
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(
        routing_.index, forced,
        sizeof(std::int32_t) * static_cast<std::size_t>(router.grouping().num_rows()),
        cudaMemcpyDeviceToDevice, context_.stream));
    gates_of_choices({.num_rows = router.num_subtokens(),
                      .rows_per_router = router.num_tokens,
                      .width = router.width,
                      .num_experts = router.num_experts,
                      .top_k = router.top_k},
                     sub_tokens_, weights_.router, routing_.index, routing_.gate, context_.stream);
    kernels::count_choices(router.grouping(), routing_.index, counts_, context_.stream);
}

void CudaHpLayer::forward(const bf16* x, bf16* y, const std::int32_t* forced) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const kernels::GroupingShape rows = shape_.router().grouping();
    const std::int64_t elements = rows.num_subtokens() * shape_.width;
    const ArenaScope scope(arena);
    const bool alone = num_ranks_ == 1;
    bf16* own = alone ? sub_tokens_ : arena.take<bf16>(elements);
    void* workspace = arena.take_bytes(head_gemms_.workspace_bytes());
    {
        const DevicePhase phase(context_, in(Phase::head_project));
        head_gemms_.project(x, weights_.project, own, workspace, stream);
    }
    if (!alone) to_owners(in(Phase::head_scatter), own, sub_tokens_);
    route_forward(forced);
    {
        const DevicePhase phase(context_, in(Phase::permute));
        kernels::group_rows(rows, routing_.index, routing_.gate, counts_, routing_.rows, stream);
    }
    bf16* y_row = arena.take<bf16>(rows.num_rows() * shape_.width);
    {
        const DevicePhase phase(context_, in(Phase::expert));
        kernels::experts_forward(impl_.experts, shape_.experts(), expert_rows(),
                                 {weights_.w1, weights_.w2}, sub_tokens_, y_row, stream);
    }
    bf16* combined = alone ? gathered_ : own;
    {
        const DevicePhase phase(context_, in(Phase::unpermute));
        kernels::combine_forward({shape_.num_heads, shape_.num_tokens, shape_.width, shape_.top_k},
                                 y_row, routing_.gate, routing_.rows.token_row, combined, stream);
    }
    if (!alone) from_owners(in(Phase::head_gather), combined, gathered_);
    const DevicePhase phase(context_, in(Phase::head_merge));
    head_gemms_.merge(gathered_, weights_.merge, y, workspace, stream);
}

void CudaHpLayer::backward(const bf16* x, const bf16* dy, bf16* dx, bool accumulate) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const kernels::RouterShape router = shape_.router();
    const kernels::GroupingShape rows = router.grouping();
    const std::int64_t elements = rows.num_subtokens() * shape_.width;
    const ArenaScope scope(arena);
    const bool alone = num_ranks_ == 1;
    bf16* own = arena.take<bf16>(elements);
    bf16* held = alone ? own : arena.take<bf16>(elements);
    void* workspace = arena.take_bytes(
        std::max({head_gemms_.workspace_bytes(),
                  kernels::experts_backward_workspace_bytes(impl_.experts, shape_.experts()),
                  kernels::router_weight_gradient_workspace_bytes(router)}));
    {
        const DevicePhase phase(context_, in(Phase::head_merge));
        head_gemms_.merge_dgrad(dy, weights_.merge, own, workspace, stream);
        head_gemms_.merge_wgrad(dy, gathered_, gradients_.merge, workspace, stream, accumulate);
    }
    if (!alone) to_owners(in(Phase::head_gather), own, held);
    bf16* dx_row = arena.take<bf16>(rows.num_rows() * shape_.width);
    float* dgate = arena.take<float>(rows.num_rows());
    float* mean_dgate = arena.take<float>(rows.num_subtokens());
    {
        const DevicePhase phase(context_, in(Phase::expert));
        kernels::experts_backward(
            impl_.experts, shape_.experts(), expert_rows(), {weights_.w1, weights_.w2}, sub_tokens_,
            held, {dx_row, dgate, gradients_.w1, gradients_.w2, accumulate}, workspace, stream);
    }
    {
        const DevicePhase phase(context_, in(Phase::permute));
        kernels::combine_backward(
            {shape_.num_heads, shape_.num_tokens, shape_.width, shape_.top_k}, dx_row,
            routing_.rows.token_row,
            {weights_.router, shape_.num_experts, routing_.index, routing_.gate, dgate, mean_dgate},
            held, stream);
    }
    {
        const DevicePhase phase(context_, in(Phase::route));
        kernels::router_weight_gradient(
            router, {sub_tokens_, dgate, mean_dgate, routing_.rows, gradients_.router, accumulate},
            workspace, stream);
    }
    if (!alone) from_owners(in(Phase::head_scatter), held, own);
    const DevicePhase phase(context_, in(Phase::head_project));
    head_gemms_.project_dgrad(own, weights_.project, dx, workspace, stream);
    head_gemms_.project_wgrad(own, x, gradients_.project, workspace, stream, accumulate);
}

}  // namespace headway::runtime
