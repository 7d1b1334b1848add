// The fp64 check, with the choices of experts that the block made: a rounding before the router may
// flip a choice, and the router has its own exact check.
#include <algorithm>

#include "kernels/bench/compare.hpp"
#include "kernels/block/bench_state.hpp"

namespace headway::kernels::bench {
namespace {

BlockShape small_shape(const BlockShape& timed) {
    BlockShape out = timed;
    out.layer.num_heads = std::min(timed.layer.num_heads, 2);
    out.layer.num_tokens = 96;
    out.layer.num_experts = std::max(std::min(timed.layer.num_experts, 12), timed.layer.top_k);
    out.layer.hidden = std::min(timed.layer.hidden, 128);
    const AttentionShape heads = block_attention(96, out.width());
    out.attention = {2, 48, heads.num_heads, heads.head_dim};
    return out;
}

}  // namespace

CheckResult check_block_against_host(const BlockBenchImpl& impl, const BlockShape& timed) {
    const BlockState s(impl, small_shape(timed), false);
    s.run(BlockExtent::step, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const std::size_t pairs = std::size_t(s.shape.layer.router().grouping().num_rows());
    std::vector<std::int32_t> index(pairs);
    HEADWAY_CUDA_CHECK(cudaMemcpy(index.data(), s.block.routing(s.saved.get()).index,
                                  pairs * sizeof(std::int32_t), cudaMemcpyDeviceToHost));
    const HostBlockResult expected =
        block_reference({.shape = s.shape,
                         .parameters = s.parameters_as_read(s.layout.qkv),
                         .x = host_as<double>(s.x),
                         .delta = host_as<double>(s.delta),
                         .dy = host_as<double>(s.dy),
                         .index = index});
    const BlockLayout& at = s.layout;
    return compare_step(s, expected,
                        {{"norm1", at.norm1, at.norm2},
                         {"norm2", at.norm2, at.router},
                         {"router", at.router, at.qkv},
                         {"Wqkv", at.qkv, at.output},
                         {"Wo", at.output, at.project},
                         {"project", at.project, at.merge},
                         {"merge", at.merge, at.w1},
                         {"W1", at.w1, at.w2},
                         {"W2", at.w2, at.total}});
}

}  // namespace headway::kernels::bench
