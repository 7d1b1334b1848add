// Checks and timings of a whole transformer block with the EP layer of one rank.
#include "kernels/block/bench_ep.hpp"

#include <algorithm>
#include <memory>

#include "kernels/bench/compare.hpp"
#include "kernels/block/bench_state.hpp"
#include "kernels/block/ep_block.hpp"
#include "kernels/ep_layer/bench_shapes.hpp"

namespace headway::kernels::bench {
namespace {

struct EpBlockState : BlockBuffers<EpBlock> {
    EpBlockShape shape;
    EpBlockLayout layout;

    EpBlockState(AttentionImpl attention, const EpBlockShape& s, bool optimizer)
        : BlockBuffers(
              [&](cublasLtHandle_t handle) {
                  return EpBlock(handle, s, make_attention(attention, handle, s.attention));
              },
              std::int64_t(s.layer.num_tokens) * s.layer.width, ep_block_layout(s).total, optimizer,
              131),
          shape(s),
          layout(ep_block_layout(s)) {
        const float model = 1 / std::sqrt(float(shape.layer.width)),
                    hidden = 1 / std::sqrt(float(shape.layer.hidden));
        const auto draw_from = [this](std::int64_t begin, std::int64_t end, float sigma) {
            draw(begin, end, sigma, 134 + std::uint64_t(begin));
        };
        draw_from(layout.norm1, layout.qkv, 1.0f);
        draw_from(layout.qkv, layout.w2, model);
        draw_from(layout.w2, layout.total, hidden);
        round_parameters();
    }
};

EpBlockShape block_shape(const EpLayerShape& layer) {
    return {block_attention(layer.num_tokens, layer.width), layer};
}

CheckResult check_small(AttentionImpl attention, const EpLayerShape& timed) {
    EpBlockShape small = block_shape(small_ep_layer(timed));
    small.attention.num_sequences = 2;
    small.attention.sequence_length = small.layer.num_tokens / 2;
    const EpBlockState s(attention, small, false);
    s.run(BlockExtent::step, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    std::vector<std::int32_t> index(std::size_t(small.layer.num_rows()));
    HEADWAY_CUDA_CHECK(cudaMemcpy(index.data(), s.block.choices(s.saved.get()),
                                  index.size() * sizeof(std::int32_t), cudaMemcpyDeviceToHost));
    const HostBlockResult expected =
        ep_block_reference({.shape = small,
                            .parameters = s.parameters_as_read(s.layout.qkv),
                            .x = host_as<double>(s.x),
                            .delta = host_as<double>(s.delta),
                            .dy = host_as<double>(s.dy),
                            .index = index});
    const EpBlockLayout& at = s.layout;
    return compare_step(s, expected,
                        {{"norm1", at.norm1, at.norm2},
                         {"norm2", at.norm2, at.qkv},
                         {"Wqkv", at.qkv, at.output},
                         {"Wo", at.output, at.router},
                         {"router", at.router, at.w1},
                         {"W1", at.w1, at.w2},
                         {"W2", at.w2, at.total}});
}

CheckResult check(EpBlockState& s, AttentionImpl attention, BlockExtent extent) {
    CheckResult result{.passed = true, .error = 0, .detail = "fp64 by ep_block_step"};
    if (extent == BlockExtent::step) result = check_small(attention, s.shape.layer);
    if (extent == BlockExtent::step_and_adamw)
        result.detail = "rest by ep_block_step, optimizer by adamw and block_step_adamw";
    if (!repeats(s, extent)) {
        result.passed = false;
        result.detail += " NOT REPEATABLE";
    }
    return result;
}

Cost cost_of(const EpBlockState& s, BlockExtent extent) {
    const double tokens = s.shape.layer.num_tokens, d = s.shape.layer.width;
    const double forward = 2 * tokens * d * (3 * d + d) +
                           2 * tokens * d * s.shape.attention.sequence_length +
                           ep_layer_flops(s.shape.layer);
    return block_cost(forward, tokens, d, double(s.parameters), extent);
}

std::optional<Case> make(const Shape& shape, AttentionImpl attention, BlockExtent extent) {
    if (shape.num_heads != 1 || !attention_available(attention) || shape.head_dim > 4096)
        return std::nullopt;
    const auto state = std::make_shared<EpBlockState>(attention, block_shape(ep_layer_shape(shape)),
                                                      extent == BlockExtent::step_and_adamw);
    Case made;
    made.check = [state, attention, extent](cudaStream_t) {
        return check(*state, attention, extent);
    };
    made.run = [state, extent](cudaStream_t stream) { state->run(extent, stream); };
    made.cost = cost_of(*state, extent);
    made.workspace_bytes = state->bytes();
    return made;
}

}  // namespace

void register_ep_block_cases(Registry& registry) {
    struct Named {
        const char* name;
        AttentionImpl attention;
    };
    constexpr Named impls[] = {{"hopper+cudnn", AttentionImpl::cudnn},
                               {"hopper+cublaslt", AttentionImpl::cublaslt}};
    constexpr std::pair<BlockExtent, const char*> extents[] = {
        {BlockExtent::forward, "ep_block_forward"},
        {BlockExtent::step, "ep_block_step"},
        {BlockExtent::step_and_adamw, "ep_block_step_adamw"}};
    for (const auto& [extent, op] : extents)
        for (const Named& named : impls) {
            // The optimizer costs the same after each of them.
            if (extent == BlockExtent::step_and_adamw && named.attention != AttentionImpl::cudnn &&
                attention_available(AttentionImpl::cudnn))
                continue;
            registry.push_back({.suite = "block",
                                .op = op,
                                .impl = named.name,
                                .make = [attention = named.attention, which = extent](
                                            const Shape& s) { return make(s, attention, which); },
                                .shapes = ep_layer_shapes()});
        }
}

}  // namespace headway::kernels::bench
