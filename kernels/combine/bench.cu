#include <memory>

#include "kernels/bench/registry.hpp"
#include "kernels/bench/routing.hpp"
#include "kernels/combine/combine.hpp"
#include "kernels/grouping/bench_buffers.hpp"

namespace headway::kernels::bench {

namespace {

// The definitions, one thread per element, in fp64.
__global__ void forward_check_kernel(CombineShape shape, const bf16* y, const float* gate,
                                     const int32_t* token_row, double* out) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= shape.num_subtokens() * shape.width) return;
    const int64_t token = i / shape.width, column = i % shape.width;
    double sum = 0;
    for (int j = 0; j < shape.top_k; ++j) {
        const int64_t pair = token * shape.top_k + j;
        sum += double(gate[pair]) *
               __bfloat162float(y[int64_t(token_row[pair]) * shape.width + column]);
    }
    out[i] = sum;
}

__global__ void backward_check_kernel(CombineShape shape, const bf16* dx_row,
                                      const int32_t* token_row, RouterTerm router, double* out) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= shape.num_subtokens() * shape.width) return;
    const int64_t token = i / shape.width, column = i % shape.width;
    const int64_t first = token * shape.top_k;
    double sum = 0, mean = 0;
    for (int j = 0; j < shape.top_k; ++j)
        mean += double(router.gate[first + j]) * router.dgate_row[token_row[first + j]];
    for (int j = 0; j < shape.top_k; ++j) {
        const int64_t row = token_row[first + j];
        const double dlogit = router.gate[first + j] * (router.dgate_row[row] - mean);
        const int64_t group =
            token / shape.num_tokens * router.num_experts + router.index[first + j];
        sum += __bfloat162float(dx_row[row * shape.width + column]) +
               dlogit * router.weights[group * shape.width + column];
    }
    out[i] = sum;
}

struct State {
    CombineShape shape;
    int num_experts;
    DeviceBuffer<int32_t> index, token_row;
    DeviceBuffer<float> gate, weights, dgate_row, mean_dgate;
    DeviceBuffer<bf16> rows, out;

    explicit State(const Shape& s)
        : shape{s.num_heads, s.num_tokens, s.head_dim, s.top_k},
          num_experts(s.num_experts),
          index(std::size_t(s.num_rows())),
          token_row(std::size_t(s.num_rows())),
          gate(std::size_t(s.num_rows())),
          weights(random_normal<float>(std::size_t(s.num_groups()) * s.head_dim, 0.1f, 11)),
          dgate_row(random_normal<float>(std::size_t(s.num_rows()), 1.0f, 12)),
          mean_dgate(std::size_t(s.num_subtokens())),
          rows(random_normal<bf16>(std::size_t(s.num_rows()) * s.head_dim, 1.0f, 13)),
          out(std::size_t(s.num_subtokens()) * s.head_dim) {
        const HostRoutingInput routing = random_routing(s, 5);
        index.from_host(routing.index);
        gate.from_host(routing.gate);
        token_row.from_host(
            group_rows_reference({s.num_heads, s.num_tokens, s.num_experts, s.top_k}, routing.index,
                                 routing.gate)
                .token_row);
    }
    [[nodiscard]] RouterTerm router() const {
        return {weights.get(), num_experts,     index.get(),
                gate.get(),    dgate_row.get(), mean_dgate.get()};
    }
    void run(bool backward, cudaStream_t stream) const {
        if (backward)
            combine_backward(shape, rows.get(), token_row.get(), router(), out.get(), stream);
        else
            combine_forward(shape, rows.get(), gate.get(), token_row.get(), out.get(), stream);
    }
};

CheckResult check(State& state, bool backward, cudaStream_t stream) {
    state.out.poison();
    state.mean_dgate.poison();
    state.run(backward, stream);
    DeviceBuffer<double> expected(state.out.size());
    const int grid = int((state.out.size() + 255) / 256);
    if (backward)
        backward_check_kernel<<<grid, 256>>>(state.shape, state.rows.get(), state.token_row.get(),
                                             state.router(), expected.get());
    else
        forward_check_kernel<<<grid, 256>>>(state.shape, state.rows.get(), state.gate.get(),
                                            state.token_row.get(), expected.get());
    check_launch();
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const double error = relative_l2(state.out.get(), expected.get(), state.out.size());
    // One rounding to bf16: about 2^-9 / sqrt(3) relative.
    return {.passed = error < 2.5e-3, .error = error, .detail = "rel L2 to fp64"};
}

std::optional<Case> make(const Shape& shape, bool backward) {
    if (shape.top_k > shape.num_experts) return std::nullopt;
    const auto state = std::make_shared<State>(shape);
    Case made;
    made.check = [state, backward](cudaStream_t stream) { return check(*state, backward, stream); };
    made.run = [state, backward](cudaStream_t stream) { state->run(backward, stream); };
    const double rows = double(shape.num_rows()), tokens = double(shape.num_subtokens());
    const double d = shape.head_dim;
    made.cost.bytes =
        2 * rows * d + 2 * tokens * d + 8 * rows;  // rows in, tokens out, gate and row id
    made.cost.flops = 2 * rows * d;
    if (backward) {
        // index and dgate; mean; R
        made.cost.bytes += 8 * rows + 4 * tokens + 4.0 * shape.num_groups() * d;
        made.cost.flops *= 2;
    }
    return made;
}

}  // namespace

void register_combine_cases(Registry& registry) {
    registry.push_back(
        {"moe", "combine_forward", "gather", [](const Shape& s) { return make(s, false); }});
    registry.push_back(
        {"moe", "combine_backward", "gather", [](const Shape& s) { return make(s, true); }});
}

}  // namespace headway::kernels::bench
