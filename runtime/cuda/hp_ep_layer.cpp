#include "runtime/cuda/hp_ep_layer.hpp"

#include "models/vocab/error.hpp"

namespace headway::runtime {
namespace {

// The EP layer of one head among the ranks that share it.
LayerSetup head_setup(const LayerSetup& setup) {
    if (setup.dims.shared_width > 0 || setup.dims.aux_free_bias) {
        throw InputError({.where = "HP x EP on CUDA",
                          .found = "shared experts or a router bias",
                          .accepted = "none of them; they run with --device cpu"});
    }
    LayerSetup head{.num_ranks = setup.hp.sharers(), .num_routers = 1};
    head.dims = {.hidden = setup.hp.head_width, .expert_width = setup.dims.expert_width};
    head.ep = {.sparse = setup.hp.sparse, .routing = setup.hp.routing};
    head.router = setup.router;
    return head;
}

}  // namespace

CudaHpEpLayer::CudaHpEpLayer(DeviceContext& context, const LayerSetup& setup)
    : context_(context),
      num_ranks_(setup.num_ranks),
      sharers_(setup.hp.sharers()),
      head_shape_{.num_tokens = static_cast<int>(setup.hp.tokens.front()),
                  .model_dim = setup.dims.hidden,
                  .num_heads = setup.hp.num_heads,
                  .head_dim = setup.hp.head_width},
      head_gemms_(kernels::HeadImpl::hopper, nullptr, head_shape_),
      peers_(context.communicator, sharers_),
      head_(context, head_setup(setup), setup.hp.tokens.front() * setup.hp.num_heads, &peers_) {
    DeviceArena& arena = context.arena;
    const std::int64_t n = projection_size();
    projections_ = {arena.take<bf16>(n), arena.take<bf16>(n)};
    gradients_ = {arena.take<float>(n), arena.take<float>(n)};
    const std::int64_t elements = std::int64_t{head_shape_.num_tokens} * head_shape_.columns();
    for (bf16** p : {&own_, &gathered_, &sub_tokens_, &held_, &returned_})
        *p = arena.take<bf16>(elements);
}

std::int64_t CudaHpEpLayer::projection_size() const {
    return std::int64_t{head_shape_.model_dim} * head_shape_.columns();
}

void CudaHpEpLayer::scatter(CallSite site, const bf16* from, bf16* to) {
    const DevicePhase phase(context_, site, PhaseKind::exchange);
    const std::int64_t plane = std::int64_t{head_shape_.num_tokens} * head_shape_.head_dim *
                               static_cast<std::int64_t>(sizeof(bf16));
    const int member = context_.communicator.rank() % sharers_;
    std::vector<std::int64_t> bytes;
    for (int r = 0; r < num_ranks_; ++r) bytes.push_back(r % sharers_ == member ? plane : 0);
    context_.communicator.all_to_all_v(from, bytes, to, bytes, context_.stream);
}

void CudaHpEpLayer::forward(const bf16* x, bf16* y, const std::int32_t* forced) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    const cudaStream_t stream = context_.stream;
    {
        const ArenaScope scope(context_.arena);
        void* workspace = context_.arena.take_bytes(head_gemms_.workspace_bytes());
        const DevicePhase phase(context_, in(Phase::head_project));
        head_gemms_.project(x, projections_.project, own_, workspace, stream);
    }
    scatter(in(Phase::head_scatter), own_, sub_tokens_);
    head_.forward(sub_tokens_, held_, forced);  // keeps what it takes from the arena
    scatter(in(Phase::head_gather), held_, gathered_);
    const ArenaScope scope(context_.arena);
    void* workspace = context_.arena.take_bytes(head_gemms_.workspace_bytes());
    const DevicePhase phase(context_, in(Phase::head_merge));
    head_gemms_.merge(gathered_, projections_.merge, y, workspace, stream);
}

void CudaHpEpLayer::backward(const bf16* x, const bf16* dy, bf16* dx) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    const cudaStream_t stream = context_.stream;
    {
        const ArenaScope scope(context_.arena);
        void* workspace = context_.arena.take_bytes(head_gemms_.workspace_bytes());
        const DevicePhase phase(context_, in(Phase::head_merge));
        head_gemms_.merge_dgrad(dy, projections_.merge, own_, workspace, stream);
        head_gemms_.merge_wgrad(dy, gathered_, gradients_.merge, workspace, stream);
    }
    scatter(in(Phase::head_gather), own_, held_);
    head_.backward(sub_tokens_, held_, returned_);
    scatter(in(Phase::head_scatter), returned_, own_);
    const ArenaScope scope(context_.arena);
    void* workspace = context_.arena.take_bytes(head_gemms_.workspace_bytes());
    const DevicePhase phase(context_, in(Phase::head_project));
    head_gemms_.project_dgrad(own_, projections_.project, dx, workspace, stream);
    head_gemms_.project_wgrad(own_, x, gradients_.project, workspace, stream);
}

}  // namespace headway::runtime
