// Checks and benchmarks of the expert layer. Every implementation is compared with the naive CUDA
// reference on the whole shape; the reference itself with the fp64 host one on small shapes.
#include <memory>
#include <utility>

#include "kernels/bench/registry.hpp"
#include "kernels/bench/routing.hpp"
#include "kernels/experts/experts.hpp"
#include "kernels/experts/experts_reference.hpp"
#include "kernels/grouping/bench_buffers.hpp"

namespace headway::kernels::bench {

namespace {

constexpr double forward_tolerance = 4e-3;   // bf16 hidden activations and outputs
constexpr double backward_tolerance = 1e-2;  // each gradient

// `accumulate`: backward that adds to the weights' gradients.
enum class Pass { forward, backward, accumulate };

struct Outputs {
    DeviceBuffer<bf16> y, dx_row;
    DeviceBuffer<float> dgate, dw1, dw2;

    explicit Outputs(const ExpertShape& s)
        : y(std::size_t(s.num_rows) * s.width),
          dx_row(std::size_t(s.num_rows) * s.width),
          dgate(std::size_t(s.num_rows)),
          dw1(std::size_t(s.num_groups) * s.hidden_rows() * s.width),
          dw2(std::size_t(s.num_groups) * s.hidden * s.width) {
        y.poison();
        dx_row.poison();
        dgate.poison();
        dw1.poison();
        dw2.poison();
    }
    [[nodiscard]] ExpertGradients gradients(bool accumulate = false) const {
        return {dx_row.get(), dgate.get(), dw1.get(), dw2.get(), accumulate};
    }
};

struct State {
    ExpertShape shape;
    GroupingShape grouping;
    ExpertImpl impl;
    GroupingBuffers buffers;
    DeviceBuffer<bf16> x, dy_token, w1, w2;
    DeviceBuffer<unsigned char> workspace;
    std::unique_ptr<Outputs> out;

    State(const Shape& s, ExpertImpl which, Activation activation, bool backward, bool hot)
        : shape{s.num_subtokens(), s.num_rows(), s.num_groups(),
                s.head_dim,        s.expert_dim, activation},
          grouping{s.num_heads, s.num_tokens, s.num_experts, s.top_k},
          impl(which),
          buffers(grouping),
          x(random_normal<bf16>(std::size_t(s.num_subtokens()) * s.head_dim, 1.0f, 1)),
          dy_token(random_normal<bf16>(std::size_t(s.num_subtokens()) * s.head_dim, 1.0f, 2)),
          w1(random_normal<bf16>(
              std::size_t(s.num_groups()) * shape.hidden_rows() * std::size_t(s.head_dim),
              1.0f / std::sqrt(float(s.head_dim)), 3)),
          w2(random_normal<bf16>(
              std::size_t(s.num_groups()) * std::size_t(s.expert_dim) * std::size_t(s.head_dim),
              1.0f / std::sqrt(float(s.expert_dim)), 4)),
          workspace(backward ? experts_backward_workspace_bytes(which, shape) : 0),
          out(std::make_unique<Outputs>(shape)) {
        HostRoutingInput routing = random_routing(s, 7, hot);
        if (hot)  // no gate either: what dgate is divided by
            for (std::size_t i = 0; i < routing.gate.size(); i += 7) routing.gate[i] = 0.0f;
        DeviceBuffer<int32_t> index(routing.index.size());
        DeviceBuffer<float> gate(routing.gate.size());
        index.from_host(routing.index);
        gate.from_host(routing.gate);
        count_choices(grouping, index.get(), buffers.counts.get(), nullptr);
        group_rows(grouping, index.get(), gate.get(), buffers.counts.get(), buffers.output(),
                   nullptr);
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
    [[nodiscard]] RowGrouping rows() const {
        return {buffers.row_token.get(), buffers.row_gate.get(), buffers.expert_offset.get(),
                buffers.tiles.get(), buffers.num_tiles.get()};
    }
    [[nodiscard]] ExpertWeights weights() const { return {w1.get(), w2.get()}; }
    void forward(ExpertImpl which, const Outputs& to, cudaStream_t stream) const {
        experts_forward(which, shape, rows(), weights(), x.get(), to.y.get(), stream);
    }
    void backward(ExpertImpl which, const Outputs& to, void* space, cudaStream_t stream,
                  bool accumulate = false) const {
        experts_backward(which, shape, rows(), weights(), x.get(), dy_token.get(),
                         to.gradients(accumulate), space, stream);
    }
};

std::vector<double> to_double(const DeviceBuffer<bf16>& values) {
    std::vector<double> out;
    for (const bf16 v : values.to_host()) out.push_back(double(__bfloat162float(v)));
    return out;
}

template <typename T>
double error_to_host(const DeviceBuffer<T>& got, const std::vector<double>& expected) {
    DeviceBuffer<double> on_device(expected.size());
    on_device.from_host(expected);
    return relative_l2(got.get(), on_device.get(), expected.size());
}

// Shapes whose fp64 host reference is quick.
bool has_host_reference(const ExpertShape& shape) {
    return shape.num_rows < 4000;
}

reference::HostResult host_result(const State& s) {
    reference::HostLayer layer{s.shape, {}, {}, {}, {}, {}, {}, {}};
    for (const int token : s.buffers.row_token.to_host()) layer.row_token.push_back(token);
    for (const float gate : s.buffers.row_gate.to_host()) layer.row_gate.push_back(double(gate));
    for (const int offset : s.buffers.expert_offset.to_host())
        layer.expert_offset.push_back(offset);
    layer.x = to_double(s.x);
    layer.dy_token = to_double(s.dy_token);
    layer.w1 = to_double(s.w1);
    layer.w2 = to_double(s.w2);
    return reference::run_on_host(layer);
}

// Largest error of the CUDA reference's outputs against the fp64 host reference.
double reference_error(const State& s, const Outputs& reference_out) {
    const reference::HostResult host = host_result(s);
    return std::max(
        {error_to_host(reference_out.y, host.y), error_to_host(reference_out.dx_row, host.dx_row),
         error_to_host(reference_out.dgate, host.dgate), error_to_host(reference_out.dw1, host.dw1),
         error_to_host(reference_out.dw2, host.dw2)});
}

CheckResult check_forward(const State& s, cudaStream_t stream) {
    const Outputs expected(s.shape);
    const Outputs again(s.shape);
    s.out->y.poison(stream);
    s.forward(ExpertImpl::reference, expected, stream);
    s.forward(s.impl, *s.out, stream);
    s.forward(s.impl, again, stream);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const double error = relative_l2(s.out->y.get(), expected.y.get(), expected.y.size());
    const bool repeats = bitwise_equal(s.out->y.get(), again.y.get(), again.y.bytes());
    std::string detail =
        repeats ? "rel L2 to fp32 reference, repeats bitwise" : "DIFFERS between runs";
    bool passed = error <= forward_tolerance && repeats;
    if (has_host_reference(s.shape)) {
        const double to_host = error_to_host(s.out->y, host_result(s).y);
        passed = passed && to_host <= forward_tolerance;
        detail += text_of("; y to fp64 %.2e", to_host);
    }
    return {passed, error, detail};
}

CheckResult check_backward(State& s, cudaStream_t stream) {
    const Outputs expected(s.shape);
    const Outputs again(s.shape);
    {
        const DeviceBuffer<unsigned char> space(
            experts_backward_workspace_bytes(ExpertImpl::reference, s.shape));
        s.forward(ExpertImpl::reference, expected, stream);
        s.backward(ExpertImpl::reference, expected, space.get(), stream);
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
    for (const Outputs* to : {static_cast<const Outputs*>(s.out.get()), &again}) {
        s.workspace.poison(stream);
        s.backward(s.impl, *to, s.workspace.get(), stream);
    }
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const Outputs& got = *s.out;
    const auto distance = [](const auto& a, const auto& b) {
        return relative_l2(a.get(), b.get(), a.size());
    };
    const auto same = [](const auto& a, const auto& b) {
        return bitwise_equal(a.get(), b.get(), a.bytes());
    };
    const double dx = distance(got.dx_row, expected.dx_row);
    const double dgate = distance(got.dgate, expected.dgate);
    const double dw1 = distance(got.dw1, expected.dw1);
    const double dw2 = distance(got.dw2, expected.dw2);
    const bool repeats = same(got.dx_row, again.dx_row) && same(got.dgate, again.dgate) &&
                         same(got.dw1, again.dw1) && same(got.dw2, again.dw2);
    // Added to what it has written, the gradients of the weights are twice that.
    s.workspace.poison(stream);
    s.backward(s.impl, again, s.workspace.get(), stream, true);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const bool adds = std::abs(distance(again.dw1, got.dw1) - 1.0) <= 1e-5 &&
                      std::abs(distance(again.dw2, got.dw2) - 1.0) <= 1e-5;
    std::string detail = "dx; dgate " + std::to_string(dgate) + ", dW1 " + std::to_string(dw1) +
                         ", dW2 " + std::to_string(dw2);
    bool passed = repeats && adds && dx <= backward_tolerance && dgate <= backward_tolerance &&
                  dw1 <= backward_tolerance && dw2 <= backward_tolerance;
    if (!repeats) detail += " DIFFERS between runs";
    if (!adds) detail += " does not ADD to gradients";
    if (has_host_reference(s.shape)) {
        const double oracle = reference_error(s, expected);
        passed = passed && oracle <= forward_tolerance;
        detail += "; reference to fp64 " + std::to_string(oracle);
    }
    return {passed, dx, detail};
}

Cost cost_of(const ExpertShape& s, Pass pass) {
    const double products = s.gated() ? 6.0 : 4.0;
    const double weights = double(s.num_groups) * (s.hidden_rows() + s.hidden) * s.width;
    const double token_bytes = 2.0 * double(s.num_subtokens) * s.width;
    const double row_bytes = 2.0 * double(s.num_rows) * s.width;
    const double flops = products * double(s.num_rows) * s.width * s.hidden;
    if (pass == Pass::forward) return {flops, token_bytes + 2.0 * weights + row_bytes};
    const double weight_bytes = (pass == Pass::accumulate ? 10.0 : 6.0) * weights;
    return {2.0 * flops, 2.0 * token_bytes + weight_bytes + row_bytes + 8.0 * double(s.num_rows)};
}

std::optional<Case> make(const Shape& shape, ExpertImpl impl, Activation activation, Pass pass,
                         bool hot) {
    const bool backward = pass != Pass::forward;
    const ExpertShape probe{shape.num_subtokens(), shape.num_rows(), shape.num_groups(),
                            shape.head_dim,        shape.expert_dim, activation};
    if (!(backward ? experts_backward_supported(impl, probe)
                   : experts_forward_supported(impl, probe)))
        return std::nullopt;
    auto state = std::make_shared<State>(shape, impl, activation, backward, hot);
    Case made;
    made.cost = cost_of(state->shape, pass);
    made.workspace_bytes = state->workspace.bytes();
    if (backward) {
        made.check = [state](cudaStream_t stream) { return check_backward(*state, stream); };
        made.run = [state, adds = pass == Pass::accumulate](cudaStream_t stream) {
            state->backward(state->impl, *state->out, state->workspace.get(), stream, adds);
        };
    } else {
        made.check = [state](cudaStream_t stream) { return check_forward(*state, stream); };
        made.run = [state](cudaStream_t stream) {
            state->forward(state->impl, *state->out, stream);
        };
    }
    return made;
}

// Zero-row experts, an odd number of 64-wide slices, tiles under 64 rows, k = 1 and k = 32; the
// last three: hopper's backward in one kernel, of parts with and without rows and of split groups.
std::vector<Shape> edge_shapes() {
    return {{"few", 1, 128, 64, 192, 40, 1},  {"k32", 1, 64, 32, 320, 90, 32},
            {"f64", 2, 256, 4, 64, 150, 2},   {"long", 1, 128, 4, 1024, 900, 2},
            {"one", 1, 64, 300, 128, 900, 1}, {"one32", 2, 64, 40, 128, 90, 32},
            {"split", 1, 64, 2, 128, 2900, 2}};
}

// The small shapes and one that hopper's backward serves in one kernel.
std::vector<Shape> varied_shapes() {
    std::vector<Shape> shapes = small_shapes();
    shapes.push_back({"one", 2, 64, 16, 128, 2900, 2});
    return shapes;
}

// More than 2^31 elements in y and dx: P d = 1,100,000 * 8 * 256.
std::vector<Shape> large_shapes() {
    return {{"large", 1, 256, 32, 64, 1100000, 8}};
}

}  // namespace

void register_experts_cases(Registry& registry) {
    constexpr std::pair<ExpertImpl, const char*> impls[] = {{ExpertImpl::hopper, "hopper"},
                                                            {ExpertImpl::portable, "portable"}};
    const std::pair<Pass, std::string> passes[] = {
        {Pass::forward, "experts_forward"},
        {Pass::backward, "experts_backward"},
        {Pass::accumulate, "experts_backward_accumulate"}};
    for (const auto& [impl, impl_name] : impls) {
        for (const auto& [pass, op] : passes) {
            const auto add = [&, which = impl, name = impl_name, as = pass, base = op](
                                 const std::string& suffix, Activation activation, bool hot,
                                 const std::vector<Shape>& shapes, bool timed) {
                registry.push_back(
                    {.suite = "moe",
                     .op = base + suffix,
                     .impl = name,
                     .make = [=](const Shape& s) { return make(s, which, activation, as, hot); },
                     .shapes = shapes,
                     .timed = timed});
            };
            add("", Activation::gelu_erf, false, {}, true);
            if (pass == Pass::accumulate) continue;  // what the checks of backward cover
            add("_edge", Activation::gelu_erf, false, edge_shapes(), false);
            if (impl == ExpertImpl::hopper)
                add("_large", Activation::gelu_erf, false, large_shapes(), false);
            add("_hot", Activation::gelu_erf, true, varied_shapes(), false);
            add("_tanh", Activation::gelu_tanh, false, varied_shapes(), false);
            add("_swiglu", Activation::swiglu, false, varied_shapes(), true);
            add("_swiglu_edge", Activation::swiglu, false, edge_shapes(), false);
            add("_swiglu_hot", Activation::swiglu, true, varied_shapes(), false);
        }
    }
}

}  // namespace headway::kernels::bench
