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

struct EpBlockState {
    EpBlockShape shape;
    EpBlockLayout layout;
    BlockLibrary library;
    EpBlock block;
    std::size_t elements, parameters;
    DeviceBuffer<bf16> x, delta, dy, h, m, dx, rounded;
    DeviceBuffer<float> master, gradients, first, second;
    DeviceBuffer<unsigned char> saved, workspace;

    EpBlockState(AttentionImpl attention, const EpBlockShape& s)
        : shape(s),
          layout(ep_block_layout(s)),
          block(library.get(), s, make_attention(attention, library.get(), s.attention)),
          elements(std::size_t(s.layer.num_tokens) * std::size_t(s.layer.width)),
          parameters(std::size_t(layout.total)),
          x(random_normal<bf16>(elements, 1.0f, 131)),
          delta(random_normal<bf16>(elements, 0.5f, 132)),
          dy(random_normal<bf16>(elements, 1.0f, 133)),
          h(elements),
          m(elements),
          dx(elements),
          rounded(parameters),
          master(parameters),
          gradients(parameters),
          first(parameters),
          second(parameters),
          saved(block.saved_bytes()),
          workspace(block.workspace_bytes()) {
        draw_parameters();
        gradients.zero();
        poison();
    }
    void draw_parameters() {
        const auto draw = [&](std::int64_t begin, std::int64_t end, float sigma) {
            fill_normal(master.get() + begin, std::size_t(end - begin), sigma,
                        134 + std::uint64_t(begin));
        };
        const float model = 1 / std::sqrt(float(shape.layer.width));
        draw(layout.norm1, layout.qkv, 1.0f);
        draw(layout.qkv, layout.w2, model);
        draw(layout.w2, layout.total, 1 / std::sqrt(float(shape.layer.hidden)));
        // A step at rate 0 on zero states writes the bf16 copies and changes nothing else.
        for (DeviceBuffer<float>* one : {&gradients, &first, &second}) one->zero();
        adamw_step(AdamWImpl::fused, {.learning_rate = 0}, optimizer(), gradients.get(), 1.0f,
                   nullptr);
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
    [[nodiscard]] AdamWState optimizer() const {
        return {std::int64_t(parameters), master.get(), first.get(), second.get(), rounded.get()};
    }
    void poison() {
        for (DeviceBuffer<bf16>* one : {&h, &m, &dx}) one->poison();
        saved.poison();
        workspace.poison();
    }
    void run(BlockExtent extent, cudaStream_t stream) const {
        const BlockParameters weights{master.get(), rounded.get()};
        block.forward(weights, x.get(), delta.get(), h.get(), m.get(), saved.get(), workspace.get(),
                      stream);
        if (extent == BlockExtent::forward) return;
        block.backward(weights, h.get(), dy.get(), dx.get(), gradients.get(), saved.get(),
                       workspace.get(), stream);
        if (extent == BlockExtent::step_and_adamw)
            adamw_step(AdamWImpl::fused, block_adamw_step, optimizer(), gradients.get(), 1.0f,
                       stream);
    }
    [[nodiscard]] std::size_t bytes(BlockExtent extent) const {
        std::size_t sum = saved.bytes() + workspace.bytes();
        for (const DeviceBuffer<bf16>* one : {&x, &delta, &dy, &h, &m, &dx, &rounded})
            sum += one->bytes();
        sum += master.bytes() + gradients.bytes();
        if (extent == BlockExtent::step_and_adamw) sum += first.bytes() + second.bytes();
        return sum;
    }
};

EpBlockShape block_shape(const EpLayerShape& layer) {
    return {block_attention(layer.num_tokens, layer.width), layer};
}

void add_gradients(WorstError& worst, const EpBlockState& s, const HostBlockResult& expected) {
    worst.add("dx", relative_error(host_as<double>(s.dx).data(), expected.dx.data(), s.elements));
    const std::vector<double> got = host_as<double>(s.gradients);
    const EpBlockLayout& at = s.layout;
    const auto part = [&](const char* name, std::int64_t begin, std::int64_t end) {
        worst.add(name, relative_error(got.data() + begin, expected.gradients.data() + begin,
                                       std::size_t(end - begin)));
    };
    part("norm1", at.norm1, at.norm2);
    part("norm2", at.norm2, at.qkv);
    part("Wqkv", at.qkv, at.output);
    part("Wo", at.output, at.router);
    part("router", at.router, at.w1);
    part("W1", at.w1, at.w2);
    part("W2", at.w2, at.total);
}

CheckResult check_small(AttentionImpl attention, const EpLayerShape& timed) {
    EpBlockShape small = block_shape(small_ep_layer(timed));
    small.attention.num_sequences = 2;
    small.attention.sequence_length = small.layer.num_tokens / 2;
    const EpBlockState s(attention, small);
    s.run(BlockExtent::step, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    std::vector<std::int32_t> index(std::size_t(small.layer.num_rows()));
    HEADWAY_CUDA_CHECK(cudaMemcpy(index.data(), s.block.choices(s.saved.get()),
                                  index.size() * sizeof(std::int32_t), cudaMemcpyDeviceToHost));
    // Masters where the block reads fp32, bf16 copies elsewhere.
    std::vector<double> read = host_as<double>(s.rounded);
    const std::vector<double> master = host_as<double>(s.master);
    std::copy(master.begin(), master.begin() + s.layout.qkv, read.begin());
    const HostBlockResult expected = ep_block_reference({.shape = small,
                                                         .parameters = read,
                                                         .x = host_as<double>(s.x),
                                                         .delta = host_as<double>(s.delta),
                                                         .dy = host_as<double>(s.dy),
                                                         .index = index});
    std::vector<double> y = host_as<double>(s.h);
    const std::vector<double> m = host_as<double>(s.m);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += m[i];
    const double error = relative_error(y.data(), expected.y.data(), y.size());
    WorstError worst;
    add_gradients(worst, s, expected);
    return {
        .passed = error < 6e-3 && worst.value < 2e-2,
        .error = error,
        .detail = text_of("y to fp64, small; worst gradient %.1e (%s)", worst.value, worst.name)};
}

CheckResult check(EpBlockState& s, AttentionImpl attention, BlockExtent extent) {
    CheckResult result{.passed = true, .error = 0, .detail = "fp64 by ep_block_step"};
    if (extent == BlockExtent::step) result = check_small(attention, s.shape.layer);
    if (extent == BlockExtent::step_and_adamw)
        result.detail = "rest by ep_block_step, optimizer by adamw and block_step_adamw";
    const BlockExtent repeated =
        extent == BlockExtent::forward ? BlockExtent::forward : BlockExtent::step;
    s.run(repeated, nullptr);
    std::vector<DeviceRange> outputs = {range_of(s.h), range_of(s.m)};
    if (repeated == BlockExtent::step)
        outputs.insert(outputs.end(), {range_of(s.dx), range_of(s.gradients)});
    const bool same = same_bits_again(outputs, [&] {
        s.poison();
        s.run(repeated, nullptr);
    });
    if (!same) {
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
    const double weights = double(s.parameters);
    Cost cost{forward, 8 * tokens * d + 2 * weights};
    if (extent != BlockExtent::forward) cost = {3 * forward, 14 * tokens * d + 8 * weights};
    if (extent == BlockExtent::step_and_adamw) cost.bytes += 30 * weights;
    return cost;
}

std::optional<Case> make(const Shape& shape, AttentionImpl attention, BlockExtent extent) {
    if (shape.num_heads != 1 || !attention_available(attention) || shape.head_dim > 4096)
        return std::nullopt;
    const auto state =
        std::make_shared<EpBlockState>(attention, block_shape(ep_layer_shape(shape)));
    Case made;
    made.check = [state, attention, extent](cudaStream_t) {
        return check(*state, attention, extent);
    };
    made.run = [state, extent](cudaStream_t stream) { state->run(extent, stream); };
    made.cost = cost_of(*state, extent);
    made.workspace_bytes = state->bytes(extent);
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
