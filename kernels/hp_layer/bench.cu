#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/hp_layer/bench_projected.hpp"
#include "kernels/hp_layer/hp_layer.hpp"

namespace headway::kernels::bench {

namespace {

HpLayerShape layer_shape(const Shape& s) {
    return {s.num_heads, s.num_tokens, s.head_dim, s.num_experts, s.expert_dim, s.top_k};
}

struct Outputs {
    DeviceBuffer<bf16> y, dx;
    DeviceBuffer<float> dw1, dw2, drouter;

    explicit Outputs(const HpLayerShape& shape)
        : y(std::size_t(shape.router().num_subtokens()) * shape.width),
          dx(y.size()),
          dw1(std::size_t(shape.experts().num_groups) * shape.experts().hidden_rows() *
              shape.width),
          dw2(std::size_t(shape.experts().num_groups) * shape.hidden * shape.width),
          drouter(std::size_t(shape.experts().num_groups) * shape.width) {
        poison();
    }
    void poison() {
        y.poison();
        dx.poison();
        dw1.poison();
        dw2.poison();
        drouter.poison();
    }
    [[nodiscard]] std::size_t bytes() const {
        return y.bytes() + dx.bytes() + dw1.bytes() + dw2.bytes() + drouter.bytes();
    }
};

struct State {
    HpLayerShape shape;
    HpLayerImpl impl;
    HpLayerMemory memory;
    Outputs out;
    DeviceBuffer<bf16> x, dy, w1, w2;
    DeviceBuffer<float> router;
    DeviceBuffer<unsigned char> saved, workspace;

    State(const HpLayerShape& s, const HpLayerImpl& which)
        : shape(s),
          impl(which),
          memory(hp_layer_memory(which, s)),
          out(s),
          x(random_normal<bf16>(out.y.size(), 1.0f, 41)),
          dy(random_normal<bf16>(out.y.size(), 1.0f, 42)),
          w1(random_normal<bf16>(out.dw1.size(), 1 / std::sqrt(float(s.width)), 43)),
          w2(random_normal<bf16>(out.dw2.size(), 1 / std::sqrt(float(s.hidden)), 44)),
          router(random_normal<float>(out.drouter.size(), 1 / std::sqrt(float(s.width)), 45)),
          saved(memory.saved),
          workspace(std::max(memory.forward_workspace, memory.backward_workspace)) {}

    [[nodiscard]] HpLayerParameters parameters() const {
        return {{w1.get(), w2.get()}, router.get(), nullptr};
    }
    void run(const Outputs& to, bool backward, cudaStream_t stream) const {
        hp_layer_forward(impl, shape, parameters(), x.get(), to.y.get(), saved.get(),
                         workspace.get(), stream);
        if (backward)
            hp_layer_backward(impl, shape, parameters(), x.get(), dy.get(),
                              {to.dx.get(), to.dw1.get(), to.dw2.get(), to.drouter.get()},
                              saved.get(), workspace.get(), stream);
    }
    /// Everything the layer needs at its peak: inputs, outputs, weights, gradients, saved,
    /// workspace.
    [[nodiscard]] std::size_t bytes() const {
        return out.bytes() + x.bytes() + dy.bytes() + w1.bytes() + w2.bytes() + router.bytes() +
               saved.bytes() + workspace.bytes();
    }
};

std::vector<float> widened(const DeviceBuffer<bf16>& buffer) {
    const std::vector<bf16> narrow = buffer.to_host();
    std::vector<float> wide(narrow.size());
    for (std::size_t i = 0; i < wide.size(); ++i) wide[i] = __bfloat162float(narrow[i]);
    return wide;
}

DeviceBuffer<double> on_device(const std::vector<double>& host) {
    DeviceBuffer<double> buffer(host.size());
    buffer.from_host(host);
    return buffer;
}

double largest_error(const Outputs& got, const HostHpResult& expected, bool backward) {
    double worst = relative_l2(got.y.get(), on_device(expected.y).get(), got.y.size());
    if (!backward) return worst;
    const double others[] = {
        relative_l2(got.dx.get(), on_device(expected.dx).get(), got.dx.size()),
        relative_l2(got.dw1.get(), on_device(expected.dw1).get(), got.dw1.size()),
        relative_l2(got.dw2.get(), on_device(expected.dw2).get(), got.dw2.size()),
        relative_l2(got.drouter.get(), on_device(expected.drouter).get(), got.drouter.size())};
    for (const double error : others)
        if (!(error <= worst)) worst = error;  // NaN stays
    return worst;
}

double largest_difference(const Outputs& a, const Outputs& b, bool backward) {
    double worst = relative_l2(a.y.get(), b.y.get(), a.y.size());
    if (!backward) return worst;
    for (const double error : {relative_l2(a.dx.get(), b.dx.get(), a.dx.size()),
                               relative_l2(a.dw1.get(), b.dw1.get(), a.dw1.size()),
                               relative_l2(a.dw2.get(), b.dw2.get(), a.dw2.size()),
                               relative_l2(a.drouter.get(), b.drouter.get(), a.drouter.size())})
        if (!(error <= worst)) worst = error;
    return worst;
}

bool equal_bits(const Outputs& a, const Outputs& b, bool backward) {
    return bitwise_equal(a.y.get(), b.y.get(), a.y.bytes()) &&
           (!backward || (bitwise_equal(a.dx.get(), b.dx.get(), a.dx.bytes()) &&
                          bitwise_equal(a.dw1.get(), b.dw1.get(), a.dw1.bytes()) &&
                          bitwise_equal(a.dw2.get(), b.dw2.get(), a.dw2.bytes()) &&
                          bitwise_equal(a.drouter.get(), b.drouter.get(), a.drouter.bytes())));
}

/// Same heads, width, k and activation as `shape`, few enough tokens and experts for fp64 on the
/// host.
CheckResult check_against_host(const HpLayerShape& timed, const HpLayerImpl& impl, bool backward) {
    HpLayerShape shape = timed;
    shape.num_heads = std::min(timed.num_heads, 2);
    shape.num_tokens = std::min(timed.num_tokens, 333);
    shape.num_experts = std::max(std::min(timed.num_experts, 12), timed.top_k);
    shape.hidden = std::min(timed.hidden, 128);
    State state(shape, impl);
    state.run(state.out, backward, nullptr);
    const HostHpResult expected = hp_layer_reference({.shape = shape,
                                                      .x = widened(state.x),
                                                      .dy = widened(state.dy),
                                                      .w1 = widened(state.w1),
                                                      .w2 = widened(state.w2),
                                                      .router = state.router.to_host(),
                                                      .bias = {}});
    const double error = largest_error(state.out, expected, backward);
    return {.passed = error < 6e-3, .error = error, .detail = "worst rel L2 to host fp64, small"};
}

/// Captures the layer in a graph (which fails on any host synchronisation or allocation) and
/// replays it.
void replay_graph(const State& state, const Outputs& to, bool backward) {
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    HEADWAY_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    HEADWAY_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    state.run(to, backward, stream);
    HEADWAY_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    HEADWAY_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
    HEADWAY_CUDA_CHECK(cudaGraphLaunch(executable, stream));
    HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
    HEADWAY_CUDA_CHECK(cudaGraphExecDestroy(executable));
    HEADWAY_CUDA_CHECK(cudaGraphDestroy(graph));
    HEADWAY_CUDA_CHECK(cudaStreamDestroy(stream));
}

CheckResult check(State& state, bool backward) {
    CheckResult small = check_against_host(state.shape, state.impl, backward);
    if (!small.passed) return small;
    // At full size: the naive fp32 kernels on a slice would need their own routing, so the portable
    // or reference experts judge through the whole layer, and two runs must agree bit for bit.
    Outputs again(state.shape);
    state.run(state.out, backward, nullptr);
    state.run(again, backward, nullptr);
    if (!equal_bits(state.out, again, backward))
        return {.passed = false, .error = 0, .detail = "NOT REPEATABLE"};
    again.poison();
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    replay_graph(state, again, backward);
    if (!equal_bits(state.out, again, backward))
        return {.passed = false, .error = 0, .detail = "GRAPH REPLAY DIFFERS"};
    HpLayerImpl other = state.impl;
    other.experts = ExpertImpl::portable;
    if (state.impl.experts != ExpertImpl::portable &&
        experts_forward_supported(other.experts, state.shape.experts()) &&
        experts_backward_supported(other.experts, state.shape.experts())) {
        const State judge(state.shape, other);
        again.poison();
        judge.run(again, backward, nullptr);
        const double difference = largest_difference(state.out, again, backward);
        small.passed = difference < 6e-3;
        small.detail += text_of("; %.1e to portable at full size", difference);
    }
    return small;
}

std::optional<Case> make(const Shape& s, ExpertImpl experts, bool backward) {
    const HpLayerShape shape = layer_shape(s);
    const HpLayerImpl impl{RouterImpl::fused, experts};
    if (!router_supported(impl.router, shape.router()) ||
        !experts_forward_supported(experts, shape.experts()) ||
        (backward && !experts_backward_supported(experts, shape.experts())))
        return std::nullopt;
    const auto state = std::make_shared<State>(shape, impl);
    Case made;
    made.check = [state, backward](cudaStream_t) { return check(*state, backward); };
    made.run = [state, backward](cudaStream_t stream) { state->run(state->out, backward, stream); };
    const double rows = double(s.num_rows()), tokens = double(s.num_subtokens());
    const double weights = double(state->w1.bytes() + state->w2.bytes());
    const double forward_flops =
        4 * rows * s.head_dim * s.expert_dim + 2 * tokens * s.head_dim * s.num_experts;
    made.cost.flops = backward ? 3 * forward_flops : forward_flops;
    made.cost.bytes = 4 * tokens * s.head_dim + weights;
    if (backward)
        made.cost.bytes += 6 * tokens * s.head_dim + 3 * weights;  // x, dy, dx; W, dW fp32
    made.workspace_bytes = state->bytes();
    return made;
}

}  // namespace

void register_hp_layer_cases(Registry& registry) {
    const auto add = [&](const char* op, const char* impl, ExpertImpl experts, bool backward) {
        registry.push_back({.suite = "moe", .op = op, .impl = impl, .make = [=](const Shape& s) {
                                return make(s, experts, backward);
                            }});
    };
    add("hp_layer_forward", "hopper", ExpertImpl::hopper, false);
    add("hp_layer_forward", "portable", ExpertImpl::portable, false);
    add("hp_layer_step", "hopper", ExpertImpl::hopper, true);
    add("hp_layer_step", "portable", ExpertImpl::portable, true);
    for (const bool backward : {false, true})
        registry.push_back({.suite = "moe",
                            .op = backward ? "hp_projected_step" : "hp_projected_forward",
                            .impl = "hopper",
                            .make = [=](const Shape& s) { return make_projected(s, backward); }});
}

}  // namespace headway::kernels::bench
