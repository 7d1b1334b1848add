// The expert kernels by themselves, on a random routing: checked against fp64 on the host (small)
// and, at full size, against the portable kernels.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/bench/routing.hpp"
#include "kernels/experts/experts_reference.hpp"
#include "kernels/grouping/buffers.hpp"
#include "kernels/hp_layer/bench_experts.hpp"

namespace headway::kernels::bench {

namespace {

ExpertShape expert_shape(const Shape& s) {
    return {s.num_subtokens(), s.num_rows(), s.num_groups(),
            s.head_dim,        s.expert_dim, Activation::gelu_erf};
}

struct Outputs {
    DeviceBuffer<bf16> y, dx_row;
    DeviceBuffer<float> dgate, dw1, dw2;

    explicit Outputs(const ExpertShape& shape)
        : y(std::size_t(shape.num_rows) * shape.width),
          dx_row(y.size()),
          dgate(std::size_t(shape.num_rows)),
          dw1(std::size_t(shape.num_groups) * shape.hidden_rows() * shape.width),
          dw2(std::size_t(shape.num_groups) * shape.hidden * shape.width) {
        y.poison();
        dx_row.poison();
        dgate.poison();
        dw1.poison();
        dw2.poison();
    }
};

struct State {
    ExpertShape shape;
    GroupingBuffers rows;
    DeviceBuffer<bf16> x, dy, w1, w2;
    Outputs out;
    HostGrouping host_rows;

    explicit State(const Shape& s)
        : shape(expert_shape(s)),
          rows({s.num_heads, s.num_tokens, s.num_experts, s.top_k}),
          x(random_normal<bf16>(std::size_t(shape.num_subtokens) * shape.width, 1.0f, 51)),
          dy(random_normal<bf16>(x.size(), 1.0f, 52)),
          w1(random_normal<bf16>(std::size_t(shape.num_groups) * shape.hidden_rows() * shape.width,
                                 1 / std::sqrt(float(shape.width)), 53)),
          w2(random_normal<bf16>(std::size_t(shape.num_groups) * shape.hidden * shape.width,
                                 1 / std::sqrt(float(shape.hidden)), 54)),
          out(shape) {
        const HostRoutingInput routing = random_routing(s, 55);
        host_rows = group_rows_reference({s.num_heads, s.num_tokens, s.num_experts, s.top_k},
                                         routing.index, routing.gate);
        rows.row_token.from_host(host_rows.row_token);
        rows.row_gate.from_host(host_rows.row_gate);
        rows.expert_offset.from_host(host_rows.expert_offset);
        rows.num_tiles.from_host({int32_t(host_rows.tiles.size())});
        host_rows.tiles.resize(rows.tiles.size());
        rows.tiles.from_host(host_rows.tiles);
    }
    [[nodiscard]] RowGrouping grouping() const {
        return {rows.row_token.get(), rows.row_gate.get(), rows.expert_offset.get(),
                rows.tiles.get(), rows.num_tiles.get()};
    }
};

using Workspace = DeviceBuffer<unsigned char>;

void run(const State& state, ExpertImpl impl, const Outputs& to, const Workspace* workspace,
         cudaStream_t stream) {
    if (workspace == nullptr)
        experts_forward(impl, state.shape, state.grouping(), {state.w1.get(), state.w2.get()},
                        state.x.get(), to.y.get(), stream);
    else
        experts_backward(impl, state.shape, state.grouping(), {state.w1.get(), state.w2.get()},
                         state.x.get(), state.dy.get(),
                         {to.dx_row.get(), to.dgate.get(), to.dw1.get(), to.dw2.get()},
                         workspace->get(), stream);
}

std::size_t workspace_bytes(ExpertImpl impl, const ExpertShape& shape) {
    return std::max<std::size_t>(experts_backward_workspace_bytes(impl, shape), 256);
}

std::vector<double> widened(const DeviceBuffer<bf16>& buffer) {
    const std::vector<bf16> narrow = buffer.to_host();
    std::vector<double> wide(narrow.size());
    for (std::size_t i = 0; i < wide.size(); ++i) wide[i] = __bfloat162float(narrow[i]);
    return wide;
}

template <typename T>
double error_to_host(const DeviceBuffer<T>& got, const std::vector<double>& expected) {
    DeviceBuffer<double> reference(expected.size());
    reference.from_host(expected);
    return relative_l2(got.get(), reference.get(), got.size());
}

double worst(std::initializer_list<double> errors) {
    double result = 0;
    for (const double error : errors)
        if (!(error <= result)) result = error;  // NaN stays
    return result;
}

double error_on_small(const Shape& timed, ExpertImpl impl, bool backward) {
    Shape small = timed;
    small.num_heads = std::min(timed.num_heads, 2);
    small.num_tokens = std::min(timed.num_tokens, 333);
    small.num_experts = std::max(std::min(timed.num_experts, 12), timed.top_k);
    small.expert_dim = std::min(timed.expert_dim, 128);
    const State state(small);
    const Workspace workspace(workspace_bytes(impl, state.shape));
    run(state, impl, state.out, backward ? &workspace : nullptr, nullptr);
    reference::HostLayer layer;
    layer.shape = state.shape;
    layer.row_token = state.host_rows.row_token;
    layer.row_gate.assign(state.host_rows.row_gate.begin(), state.host_rows.row_gate.end());
    layer.expert_offset = state.host_rows.expert_offset;
    layer.x = widened(state.x);
    layer.dy_token = widened(state.dy);
    layer.w1 = widened(state.w1);
    layer.w2 = widened(state.w2);
    const reference::HostResult expected = reference::run_on_host(layer);
    if (!backward) return error_to_host(state.out.y, expected.y);
    return worst({error_to_host(state.out.dx_row, expected.dx_row),
                  error_to_host(state.out.dgate, expected.dgate),
                  error_to_host(state.out.dw1, expected.dw1),
                  error_to_host(state.out.dw2, expected.dw2)});
}

double difference_to_portable(const State& state, const Outputs& got, bool backward) {
    const Outputs other(state.shape);
    const Workspace workspace(workspace_bytes(ExpertImpl::portable, state.shape));
    run(state, ExpertImpl::portable, other, backward ? &workspace : nullptr, nullptr);
    const auto difference = [](const auto& a, const auto& b) {
        return relative_l2(a.get(), b.get(), a.size());
    };
    if (!backward) return difference(got.y, other.y);
    return worst({difference(got.dx_row, other.dx_row), difference(got.dgate, other.dgate),
                  difference(got.dw1, other.dw1), difference(got.dw2, other.dw2)});
}

CheckResult check(const Shape& shape, const State& state, ExpertImpl impl,
                  const Workspace* workspace) {
    const bool backward = workspace != nullptr;
    const double error = error_on_small(shape, impl, backward);
    CheckResult result{
        .passed = error < 6e-3, .error = error, .detail = "rel L2 to host fp64, small"};
    if (impl == ExpertImpl::portable || !result.passed) return result;
    run(state, impl, state.out, workspace, nullptr);
    const double difference = difference_to_portable(state, state.out, backward);
    result.passed = difference < 6e-3;
    result.detail += text_of("; %.1e to portable at full size", difference);
    return result;
}

std::optional<Case> make(const Shape& shape, ExpertImpl impl, bool backward) {
    const ExpertShape experts = expert_shape(shape);
    if (shape.top_k > shape.num_experts || !(backward ? experts_backward_supported(impl, experts)
                                                      : experts_forward_supported(impl, experts)))
        return std::nullopt;
    const auto state = std::make_shared<State>(shape);
    const auto workspace =
        backward ? std::make_shared<Workspace>(workspace_bytes(impl, experts)) : nullptr;
    Case made;
    made.check = [=](cudaStream_t) { return check(shape, *state, impl, workspace.get()); };
    made.run = [=](cudaStream_t stream) { run(*state, impl, state->out, workspace.get(), stream); };
    const double rows = double(shape.num_rows()), d = shape.head_dim;
    const double weights = double(state->w1.bytes() + state->w2.bytes());
    made.cost = {.flops = 4 * rows * d * shape.expert_dim, .bytes = 4 * rows * d + weights};
    if (backward) {
        made.cost.flops *= 2;                          // useful: what is recomputed does not count
        made.cost.bytes = 6 * rows * d + 3 * weights;  // x and dy in, dx out; W in, dW out in fp32
    }
    made.workspace_bytes = backward ? workspace->bytes() : 0;
    return made;
}

}  // namespace

void register_expert_cases(Registry& registry) {
    const auto add = [&](const char* op, const char* name, ExpertImpl impl, bool backward) {
        registry.push_back(
            {.suite = "experts", .op = op, .impl = name, .make = [=](const Shape& s) {
                 return make(s, impl, backward);
             }});
    };
    add("experts_forward", "hopper", ExpertImpl::hopper, false);
    add("experts_forward", "portable", ExpertImpl::portable, false);
    add("experts_backward", "hopper", ExpertImpl::hopper, true);
    add("experts_backward", "portable", ExpertImpl::portable, true);
}

}  // namespace headway::kernels::bench
