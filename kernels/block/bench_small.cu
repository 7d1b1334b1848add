// The fp64 check, with the choices of experts that the block made: a rounding before the router may
// flip a choice, and the router has its own exact check.
#include <algorithm>

#include "kernels/bench/compare.hpp"
#include "kernels/block/bench_state.hpp"

namespace headway::kernels::bench {
namespace {

/// Masters where the block reads fp32, bf16 copies elsewhere.
std::vector<double> parameters_as_read(const BlockState& s) {
    std::vector<double> out = host_as<double>(s.rounded);
    const std::vector<double> master = host_as<double>(s.master);
    std::copy(master.begin(), master.begin() + s.layout.qkv, out.begin());
    return out;
}

struct BlockErrors {
    double y = 0;
    WorstError gradients;
};

BlockErrors compare(const BlockState& s, const HostBlockResult& expected) {
    BlockErrors out;
    std::vector<double> y = host_as<double>(s.h);
    const std::vector<double> m = host_as<double>(s.m);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += m[i];
    out.y = relative_error(y.data(), expected.y.data(), y.size());
    out.gradients.add("dx",
                      relative_error(host_as<double>(s.dx).data(), expected.dx.data(), s.elements));
    const std::vector<double> got = host_as<double>(s.gradients);
    const BlockLayout& at = s.layout;
    const auto part = [&](const char* name, std::int64_t begin, std::int64_t end) {
        out.gradients.add(name,
                          relative_error(got.data() + begin, expected.gradients.data() + begin,
                                         std::size_t(end - begin)));
    };
    part("norm1", at.norm1, at.norm2);
    part("norm2", at.norm2, at.router);
    part("router", at.router, at.qkv);
    part("Wqkv", at.qkv, at.output);
    part("Wo", at.output, at.project);
    part("project", at.project, at.merge);
    part("merge", at.merge, at.w1);
    part("W1", at.w1, at.w2);
    part("W2", at.w2, at.total);
    return out;
}

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
    const HostBlockResult expected = block_reference({.shape = s.shape,
                                                      .parameters = parameters_as_read(s),
                                                      .x = host_as<double>(s.x),
                                                      .delta = host_as<double>(s.delta),
                                                      .dy = host_as<double>(s.dy),
                                                      .index = index});
    const BlockErrors e = compare(s, expected);
    return {.passed = e.y < 6e-3 && e.gradients.value < 2e-2,
            .error = e.y,
            .detail = text_of("y to fp64, small; worst gradient %.1e (%s)", e.gradients.value,
                              e.gradients.name)};
}

}  // namespace headway::kernels::bench
