// Checks and timings of a whole transformer block of one rank: forward, forward and backward, and
// both with the optimizer.
#include <algorithm>
#include <memory>

#include "kernels/bench/compare.hpp"
#include "kernels/block/bench_ep.hpp"
#include "kernels/block/bench_state.hpp"

namespace headway::kernels::bench {
namespace {

/// The masters after a step against the reference optimizer's, given the same gradients.
double optimizer_error(BlockState& s) {
    DeviceBuffer<float> master(s.parameters), m(s.parameters), v(s.parameters);
    DeviceBuffer<bf16> rounded(s.parameters);
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(master.get(), s.master.get(), master.bytes(), cudaMemcpyDeviceToDevice));
    m.zero();
    v.zero();
    s.run(BlockExtent::step_and_adamw, nullptr);
    adamw_step(AdamWImpl::reference, block_adamw_step,
               {std::int64_t(s.parameters), master.get(), m.get(), v.get(), rounded.get()},
               s.gradients.get(), 1.0f, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    return relative_l2(s.master.get(), master.get(), s.parameters) +
           relative_l2(s.first.get(), m.get(), s.parameters) +
           relative_l2(s.second.get(), v.get(), s.parameters);
}

CheckResult check(BlockState& s, const BlockBenchImpl& impl, BlockExtent extent) {
    CheckResult result{.passed = true, .error = 0, .detail = "fp64 by block_step"};
    if (extent == BlockExtent::step) result = check_block_against_host(impl, s.shape);
    if (!repeats(s, extent)) {
        result.passed = false;
        result.detail += " NOT REPEATABLE";
    }
    if (extent == BlockExtent::step_and_adamw) {
        result.error = optimizer_error(s);
        result.passed = result.passed && result.error < 1e-6;
        result.detail = "p + m + v vs fp64 AdamW; rest by block_step";
    }
    return result;
}

Cost cost_of(const BlockState& s, BlockExtent extent) {
    const double tokens = double(s.shape.num_tokens()), d = s.shape.width();
    const HpLayerShape& layer = s.shape.layer;
    const double rows = double(layer.experts().num_rows);
    const double products = 2 * tokens * d * (3 * d + d + 2 * d);
    const double attention = 2 * tokens * d * s.shape.attention.sequence_length;
    const double experts =
        4 * rows * layer.width * layer.hidden + 2 * tokens * d * layer.num_experts;
    const double forward = products + attention + experts;
    return block_cost(forward, tokens, d, double(s.parameters), extent);
}

std::optional<Case> make(const Shape& s, const BlockBenchImpl& impl, BlockExtent extent) {
    BlockShape shape;
    shape.layer = {s.num_heads, s.num_tokens, s.head_dim, s.num_experts, s.expert_dim, s.top_k};
    shape.attention = block_attention(shape.num_tokens(), shape.width());
    if (!attention_available(impl.attention) || shape.width() > 4096 ||
        !router_supported(impl.block.layer.router, shape.layer.router()) ||
        !experts_backward_supported(impl.block.layer.experts, shape.layer.experts()))
        return std::nullopt;
    const auto state =
        std::make_shared<BlockState>(impl, shape, extent == BlockExtent::step_and_adamw);
    Case made;
    made.check = [state, impl, extent](cudaStream_t) { return check(*state, impl, extent); };
    made.run = [state, extent](cudaStream_t stream) { state->run(extent, stream); };
    made.cost = cost_of(*state, extent);
    made.workspace_bytes = state->bytes();
    return made;
}

}  // namespace

void register_block_cases(Registry& registry) {
    struct Named {
        const char* name;
        BlockBenchImpl impl;
    };
    const HpLayerImpl hopper{RouterImpl::fused, ExpertImpl::hopper};
    const HpLayerImpl portable{RouterImpl::fused, ExpertImpl::portable};
    const Named impls[] = {
        {"hopper+cudnn", {{HeadImpl::hopper, hopper}, AttentionImpl::cudnn}},
        {"hopper+cublaslt", {{HeadImpl::hopper, hopper}, AttentionImpl::cublaslt}},
        {"portable+cublaslt", {{HeadImpl::library, portable}, AttentionImpl::cublaslt}}};
    constexpr std::pair<BlockExtent, const char*> extents[] = {
        {BlockExtent::forward, "block_forward"},
        {BlockExtent::step, "block_step"},
        {BlockExtent::step_and_adamw, "block_step_adamw"}};
    for (const auto& [extent, op] : extents)
        for (const Named& named : impls) {
            // The optimizer costs the same after each of them.
            if (extent == BlockExtent::step_and_adamw &&
                named.impl.attention != AttentionImpl::cudnn &&
                attention_available(AttentionImpl::cudnn))
                continue;
            registry.push_back({.suite = "block",
                                .op = op,
                                .impl = named.name,
                                .make = [impl = named.impl, which = extent](const Shape& s) {
                                    return make(s, impl, which);
                                }});
        }
    register_ep_block_cases(registry);
}

}  // namespace headway::kernels::bench
