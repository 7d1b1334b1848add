#include <memory>

#include "kernels/bench/registry.hpp"
#include "kernels/bench/routing.hpp"
#include "kernels/combine/combine.hpp"
#include "kernels/grouping/bench_buffers.hpp"
#include "kernels/router/router_library.hpp"
#include "kernels/router/routing_check.hpp"

namespace headway::kernels::bench {

namespace {

enum class Forward { reference, library, fused };

RouterShape router_shape(const Shape& s) {
    return {s.num_heads, s.num_tokens, s.head_dim, s.num_experts, s.top_k};
}

struct ForwardState {
    RouterShape shape;
    Forward impl;
    bool biased;
    DeviceBuffer<bf16> x;
    DeviceBuffer<float> weights, bias, gate, gate_again;
    DeviceBuffer<int32_t> index, index_again, counts;
    DeviceBuffer<unsigned char> workspace;
    cublasHandle_t handle = nullptr;

    ForwardState(const Shape& s, Forward which, bool with_bias, std::uint64_t seed)
        : shape(router_shape(s)),
          impl(which),
          biased(with_bias),
          x(random_normal<bf16>(std::size_t(s.num_subtokens()) * s.head_dim, 1.0f, seed)),
          weights(random_normal<float>(std::size_t(s.num_groups()) * s.head_dim,
                                       1.0f / std::sqrt(float(s.head_dim)), seed + 1)),
          bias(random_normal<float>(std::size_t(s.num_groups()), 0.5f, seed + 2)),
          gate(std::size_t(s.num_rows())),
          gate_again(std::size_t(s.num_rows())),
          index(std::size_t(s.num_rows())),
          index_again(std::size_t(s.num_rows())),
          counts(std::size_t(shape.grouping().num_counts())),
          workspace(workspace_bytes()) {
        if (impl == Forward::library && cublasCreate(&handle) != CUBLAS_STATUS_SUCCESS)
            throw CudaError("cublasCreate failed");
    }
    ForwardState(const ForwardState&) = delete;
    ForwardState& operator=(const ForwardState&) = delete;
    ~ForwardState() {
        if (handle != nullptr) cublasDestroy(handle);
    }
    [[nodiscard]] std::size_t workspace_bytes() const {
        if (impl == Forward::library) return router_library_workspace_bytes(shape);
        return router_workspace_bytes(
            impl == Forward::fused ? RouterImpl::fused : RouterImpl::reference, shape);
    }
    [[nodiscard]] RouterInput input() const {
        return {x.get(), weights.get(), biased ? bias.get() : nullptr};
    }
    [[nodiscard]] RouterOutput output() const { return {index.get(), gate.get(), counts.get()}; }
    void run(const RouterOutput& out, cudaStream_t stream) const {
        if (impl == Forward::library)
            router_forward_library(handle, shape, input(), out, workspace.get(), stream);
        else
            router_forward(impl == Forward::fused ? RouterImpl::fused : RouterImpl::reference,
                           shape, input(), out, workspace.get(), stream);
    }
};

CheckResult check_forward(ForwardState& state, cudaStream_t stream) {
    state.index.poison();
    state.gate.poison();
    state.counts.poison();
    state.run(state.output(), stream);
    state.run({state.index_again.get(), state.gate_again.get(), nullptr}, stream);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const RoutingVerdict v = judge_routing(state.shape, state.input(), state.output());
    const bool repeats =
        bitwise_equal(state.index.get(), state.index_again.get(), state.index.bytes()) &&
        bitwise_equal(state.gate.get(), state.gate_again.get(), state.gate.bytes());
    // fp32 accumulation of d terms: a wrong set is accepted only where the exact scores are this
    // close.
    const bool passed = v.num_invalid == 0 && v.worst_regret < 4e-7 && v.gate_error < 2e-6 &&
                        v.counts_match && repeats;
    return {.passed = passed,
            .error = v.gate_error,
            .detail = text_of("gates; %ld of %ld sets not fp64's, regret %.1e%s%s%s",
                              v.num_different_sets, v.num_subtokens, v.worst_regret,
                              v.num_invalid > 0 ? " INVALID" : "", v.counts_match ? "" : " COUNTS",
                              repeats ? "" : " NOT REPEATABLE")};
}

std::optional<Case> make_forward(const Shape& shape, Forward impl) {
    const bool supported =
        impl == Forward::library
            ? shape.num_experts <= 1024 && shape.head_dim % 2 == 0
            : router_supported(impl == Forward::fused ? RouterImpl::fused : RouterImpl::reference,
                               router_shape(shape));
    if (!supported || shape.top_k > std::min(32, shape.num_experts)) return std::nullopt;
    const auto state = std::make_shared<ForwardState>(shape, impl, false, 21);
    Case made;
    made.check = [state](cudaStream_t stream) { return check_forward(*state, stream); };
    made.run = [state](cudaStream_t stream) { state->run(state->output(), stream); };
    const double tokens = double(shape.num_subtokens()), d = shape.head_dim;
    made.cost = {
        .flops = 2 * tokens * d * shape.num_experts,
        .bytes = 2 * tokens * d + 4.0 * shape.num_groups() * d + 8.0 * double(shape.num_rows())};
    made.workspace_bytes = state->workspace.bytes();
    made.capturable = impl != Forward::library;
    return made;
}

// ---- every list length, ragged tokens and experts, bias, ties and NaN
// --------------------------------------

/// Experts 1 and 3 equal 0 and 2, sub-token 5 is NaN: host and device must choose the same experts.
std::string check_ties(ForwardState& state) {
    auto weights = state.weights.to_host();
    auto x = state.x.to_host();
    const int d = state.shape.width;
    if (state.shape.num_experts < 4 || state.shape.num_tokens < 6) return "";
    for (int i = 0; i < d; ++i) {
        weights[d + i] = weights[i];
        weights[3 * d + i] = weights[2 * d + i];
        x[5 * d + i] = __float2bfloat16(NAN);
    }
    state.weights.from_host(weights);
    state.x.from_host(x);
    state.biased = false;
    state.run(state.output(), nullptr);
    std::vector<float> wide(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) wide[i] = __bfloat162float(x[i]);
    RouterShape first_head = state.shape;
    first_head.num_heads = 1;
    const HostRouting expected = router_reference(first_head, wide, weights, {});
    const auto index = state.index.to_host();
    // Exact ties must go to the lower expert; scores that fp32 cannot tell apart may come in either
    // order.
    const auto score = [&](std::size_t token, int expert) {
        double sum = 0;
        for (int i = 0; i < d; ++i) sum += double(wide[token * d + i]) * weights[expert * d + i];
        return sum;
    };
    for (std::size_t i = 0; i < expected.index.size(); ++i) {
        if (index[i] == expected.index[i]) continue;
        const std::size_t token = i / state.shape.top_k;
        const double got = score(token, index[i]), best = score(token, expected.index[i]);
        if (!(got != best && std::abs(got - best) < 1e-6))
            return text_of(" token %zu chose %d (%.9g), fp64 %d (%.9g)", token, index[i], got,
                           expected.index[i], best);
    }
    return "";
}

CheckResult check_edges(Forward impl) {
    CheckResult result{.passed = true, .error = 0, .detail = ""};
    int num_cases = 0;
    for (const int width : {64, 128, 256})
        for (const int k : {1, 2, 3, 8, 13, 32})
            for (const int experts : {32, 40, 520}) {
                const Shape shape{"edge", 2, width, experts, 64, 300, k};
                ForwardState state(shape, impl, (k + experts / 8) % 2 == 0, 100 + num_cases++);
                CheckResult one = check_forward(state, nullptr);
                if (one.passed) one.detail = check_ties(state);
                one.passed = one.passed && one.detail.empty();
                result.error = std::max(result.error, one.error);
                if (one.passed) continue;
                result.passed = false;
                result.detail +=
                    text_of(" [d=%d k=%d E=%d: %s]", width, k, experts, one.detail.c_str());
            }
    if (result.passed) result.detail = text_of("%d shapes: bias, ties, NaN, ragged", num_cases);
    return result;
}

Case make_edges(Forward impl) {
    Case made;
    made.check = [impl](cudaStream_t) { return check_edges(impl); };
    made.run = [](cudaStream_t) {};
    return made;
}

// ---- backward: dx = sum dlogit R, dR = sum dlogit x
// ---------------------------------------------------------

__global__ void gradient_check_kernel(RouterShape shape, const bf16* x, RouterTerm router,
                                      const int32_t* row_token, const int32_t* token_row,
                                      const int32_t* offset, double* dweights) {
    const int group = blockIdx.x, column = threadIdx.x, k = shape.top_k;
    double sum = 0;
    for (int row = offset[group]; row < offset[group + 1]; ++row) {
        const int64_t token = row_token[row];
        double mean = 0, gate = 0;
        for (int j = 0; j < k; ++j) {
            const int64_t pair = token * k + j;
            mean += double(router.gate[pair]) * router.dgate_row[token_row[pair]];
            if (token_row[pair] == row) gate = router.gate[pair];
        }
        sum += gate * (router.dgate_row[row] - mean) *
               __bfloat162float(x[token * shape.width + column]);
    }
    dweights[int64_t(group) * shape.width + column] = sum;
}

__global__ void dx_check_kernel(RouterShape shape, RouterTerm router, const int32_t* token_row,
                                double* dx) {
    const int64_t token = blockIdx.x;
    const int column = threadIdx.x, k = shape.top_k;
    double sum = 0, mean = 0;
    for (int j = 0; j < k; ++j)
        mean += double(router.gate[token * k + j]) * router.dgate_row[token_row[token * k + j]];
    for (int j = 0; j < k; ++j) {
        const int64_t pair = token * k + j;
        const int64_t group = token / shape.num_tokens * shape.num_experts + router.index[pair];
        sum += router.gate[pair] * (router.dgate_row[token_row[pair]] - mean) *
               router.weights[group * shape.width + column];
    }
    dx[token * shape.width + column] = sum;
}

struct BackwardState {
    RouterShape shape;
    DeviceBuffer<bf16> x, dx;
    DeviceBuffer<float> weights, gate, dgate_row, mean_dgate, dweights, dweights_again;
    DeviceBuffer<int32_t> index;
    DeviceBuffer<unsigned char> workspace;
    GroupingBuffers rows;

    explicit BackwardState(const Shape& s)
        : shape(router_shape(s)),
          x(random_normal<bf16>(std::size_t(s.num_subtokens()) * s.head_dim, 1.0f, 31)),
          dx(x.size()),
          weights(random_normal<float>(std::size_t(s.num_groups()) * s.head_dim, 0.1f, 32)),
          gate(std::size_t(s.num_rows())),
          dgate_row(random_normal<float>(std::size_t(s.num_rows()), 1.0f, 33)),
          mean_dgate(std::size_t(s.num_subtokens())),
          dweights(weights.size()),
          dweights_again(weights.size()),
          index(std::size_t(s.num_rows())),
          workspace(router_weight_gradient_workspace_bytes(shape)),
          rows(shape.grouping()) {
        const HostRoutingInput routing = random_routing(s, 9);
        index.from_host(routing.index);
        gate.from_host(routing.gate);
        count_choices(shape.grouping(), index.get(), rows.counts.get(), nullptr);
        group_rows(shape.grouping(), index.get(), gate.get(), rows.counts.get(), rows.output(),
                   nullptr);
    }
    [[nodiscard]] RouterTerm term() const {
        return {weights.get(), shape.num_experts, index.get(),
                gate.get(),    dgate_row.get(),   mean_dgate.get()};
    }
    void run(float* dr, cudaStream_t stream) const {
        combine_backward({shape.num_heads, shape.num_tokens, shape.width, shape.top_k}, nullptr,
                         rows.token_row.get(), term(), dx.get(), stream);
        router_weight_gradient(shape,
                               {x.get(), dgate_row.get(), mean_dgate.get(), rows.output(), dr},
                               workspace.get(), stream);
    }
};

CheckResult check_backward(BackwardState& state, cudaStream_t stream) {
    state.dx.poison();
    state.mean_dgate.poison();
    state.dweights.poison();
    state.run(state.dweights.get(), stream);
    state.run(state.dweights_again.get(), stream);
    DeviceBuffer<double> dweights(state.dweights.size()), dx(state.dx.size());
    gradient_check_kernel<<<state.shape.grouping().num_groups(), state.shape.width>>>(
        state.shape, state.x.get(), state.term(), state.rows.row_token.get(),
        state.rows.token_row.get(), state.rows.expert_offset.get(), dweights.get());
    check_launch();
    dx_check_kernel<<<int(state.shape.num_subtokens()), state.shape.width>>>(
        state.shape, state.term(), state.rows.token_row.get(), dx.get());
    check_launch();
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const double dr_error = relative_l2(state.dweights.get(), dweights.get(), dweights.size());
    const double dx_error = relative_l2(state.dx.get(), dx.get(), dx.size());
    const bool repeats =
        bitwise_equal(state.dweights.get(), state.dweights_again.get(), state.dweights.bytes());
    return {.passed = dr_error < 2e-6 && dx_error < 2.5e-3 && repeats,
            .error = dr_error,
            .detail = text_of("dR rel L2; dx %.1e%s", dx_error, repeats ? "" : " NOT REPEATABLE")};
}

std::optional<Case> make_backward(const Shape& shape) {
    if (shape.top_k > std::min(32, shape.num_experts)) return std::nullopt;
    const auto state = std::make_shared<BackwardState>(shape);
    Case made;
    made.check = [state](cudaStream_t stream) { return check_backward(*state, stream); };
    made.run = [state](cudaStream_t stream) { state->run(state->dweights.get(), stream); };
    const double tokens = double(shape.num_subtokens()), d = shape.head_dim;
    made.cost = {
        .flops = 4 * double(shape.num_rows()) * d,
        .bytes = 4 * tokens * d + 8.0 * shape.num_groups() * d + 16.0 * double(shape.num_rows())};
    made.workspace_bytes = state->workspace.bytes();
    return made;
}

}  // namespace

void register_router_cases(Registry& registry) {
    const auto forward = [&](const char* name, Forward impl, bool timed) {
        registry.push_back({.suite = "router",
                            .op = "router_forward",
                            .impl = name,
                            .make = [impl](const Shape& s) { return make_forward(s, impl); },
                            .timed = timed});
        registry.push_back(
            {.suite = "router",
             .op = "router_edges",
             .impl = name,
             .make = [impl](const Shape&) { return std::optional(make_edges(impl)); },
             .shapes = {{"edge", 2, 64, 32, 64, 300, 1}},
             .timed = false});
    };
    forward("fused", Forward::fused, true);
    // More than 2^31 elements in x: 8,400,000 * 256.
    registry.push_back({.suite = "router",
                        .op = "router_forward_large",
                        .impl = "fused",
                        .make = [](const Shape& s) { return make_forward(s, Forward::fused); },
                        .shapes = {{"large", 1, 256, 32, 64, 8400000, 1}},
                        .timed = false});
    forward("library", Forward::library, true);
    forward("reference", Forward::reference, false);
    registry.push_back({"router", "router_backward", "expert_rows", make_backward});
}

}  // namespace headway::kernels::bench
