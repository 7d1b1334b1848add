// Checks and timings of a whole transformer block of one rank: forward, forward and backward, and
// both with the optimizer. The check runs the block at few tokens and experts against fp64 on the
// host, with the choices of experts that the block made: a rounding before the router may flip a
// choice, and the router has its own exact check.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/adamw/adamw.hpp"
#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/block/block.hpp"

namespace headway::kernels::bench {
namespace {

enum class Extent { forward, step, step_and_adamw };

class Library {
  public:
    Library() {
        if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS)
            throw CudaError("cublasLtCreate failed");
    }
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;
    ~Library() { cublasLtDestroy(handle_); }
    [[nodiscard]] cublasLtHandle_t get() const { return handle_; }

  private:
    cublasLtHandle_t handle_ = nullptr;
};

struct BenchImpl {
    BlockImpl block;
    AttentionImpl attention = AttentionImpl::cublaslt;
};

constexpr AdamWStep kStep{.learning_rate = 1e-6f, .weight_decay = 0.1f, .step = 7};

struct BlockState {
    BlockShape shape;
    BlockLayout layout;
    Library library;
    TransformerBlock block;
    std::size_t elements, parameters;
    DeviceBuffer<bf16> x, delta, dy, h, m, dx, rounded;
    DeviceBuffer<float> master, gradients, first, second;
    DeviceBuffer<unsigned char> saved, workspace;

    BlockState(const BenchImpl& impl, const BlockShape& s, bool optimizer)
        : shape(s),
          layout(block_layout(s)),
          block(library.get(), impl.block, s,
                make_attention(impl.attention, library.get(), s.attention)),
          elements(std::size_t(s.num_tokens()) * std::size_t(s.width())),
          parameters(std::size_t(layout.total)),
          x(random_normal<bf16>(elements, 1.0f, 91)),
          delta(random_normal<bf16>(elements, 0.5f, 92)),
          dy(random_normal<bf16>(elements, 1.0f, 93)),
          h(elements),
          m(elements),
          dx(elements),
          rounded(parameters),
          master(parameters),
          gradients(parameters),
          first(optimizer ? parameters : 0),
          second(first.size()),
          saved(block.saved_bytes()),
          workspace(block.workspace_bytes()) {
        draw_parameters();
        first.zero();
        second.zero();
        gradients.zero();
        poison();
    }
    void draw_parameters() {
        struct Part {
            std::int64_t begin, end;
            float sigma;
        };
        const float model = 1 / std::sqrt(float(shape.width())),
                    head = 1 / std::sqrt(float(shape.layer.width)),
                    hidden = 1 / std::sqrt(float(shape.layer.hidden));
        const Part parts[] = {{layout.norm1, layout.router, 1.0f},
                              {layout.router, layout.qkv, head},
                              {layout.qkv, layout.w1, model},
                              {layout.w1, layout.w2, head},
                              {layout.w2, layout.total, hidden}};
        std::uint64_t seed = 94;
        for (const Part& part : parts)
            fill_normal(master.get() + part.begin, std::size_t(part.end - part.begin), part.sigma,
                        ++seed);
        // A step at rate 0 on zero states writes the bf16 copies and changes nothing else.
        DeviceBuffer<float> zero(parameters), m_state(parameters), v_state(parameters);
        for (DeviceBuffer<float>* one : {&zero, &m_state, &v_state}) one->zero();
        adamw_step(
            AdamWImpl::fused, {.learning_rate = 0},
            {std::int64_t(parameters), master.get(), m_state.get(), v_state.get(), rounded.get()},
            zero.get(), 1.0f, nullptr);
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
    void poison() {
        for (DeviceBuffer<bf16>* one : {&h, &m, &dx}) one->poison();
        saved.poison();
        workspace.poison();
    }
    void run(Extent extent, cudaStream_t stream) const {
        const BlockParameters weights{master.get(), rounded.get()};
        block.forward(weights, x.get(), delta.get(), h.get(), m.get(), saved.get(), workspace.get(),
                      stream);
        if (extent == Extent::forward) return;
        block.backward(weights, h.get(), dy.get(), dx.get(), gradients.get(), saved.get(),
                       workspace.get(), stream);
        if (extent == Extent::step_and_adamw)
            adamw_step(
                AdamWImpl::fused, kStep,
                {std::int64_t(parameters), master.get(), first.get(), second.get(), rounded.get()},
                gradients.get(), 1.0f, stream);
    }
    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = saved.bytes() + workspace.bytes();
        for (const DeviceBuffer<bf16>* one : {&x, &delta, &dy, &h, &m, &dx, &rounded})
            sum += one->bytes();
        for (const DeviceBuffer<float>* one : {&master, &gradients, &first, &second})
            sum += one->bytes();
        return sum;
    }
};

template <typename T>
std::vector<double> as_doubles(const DeviceBuffer<T>& buffer) {
    std::vector<double> out;
    out.reserve(buffer.size());
    for (const T value : buffer.to_host()) out.push_back(double(float(value)));
    return out;
}

/// Masters where the block reads fp32, bf16 copies elsewhere.
std::vector<double> parameters_as_read(const BlockState& s) {
    std::vector<double> out = as_doubles(s.rounded);
    const std::vector<double> master = as_doubles(s.master);
    std::copy(master.begin(), master.begin() + s.layout.qkv, out.begin());
    return out;
}

double relative_error(const double* got, const double* expected, std::size_t count) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < count; ++i) {
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return std::sqrt(difference / norm);
}

struct BlockErrors {
    double y = 0, gradients = 0;
    std::string worst;
    void add(const char* name, double error) {
        if (error <= gradients) return;  // NaN goes on
        gradients = error;
        worst = name;
    }
};

BlockErrors compare(const BlockState& s, const HostBlockResult& expected) {
    BlockErrors out;
    std::vector<double> y = as_doubles(s.h);
    const std::vector<double> m = as_doubles(s.m);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += m[i];
    out.y = relative_error(y.data(), expected.y.data(), y.size());
    out.add("dx", relative_error(as_doubles(s.dx).data(), expected.dx.data(), s.elements));
    const std::vector<double> got = as_doubles(s.gradients);
    const BlockLayout& at = s.layout;
    const auto part = [&](const char* name, std::int64_t begin, std::int64_t end) {
        out.add(name, relative_error(got.data() + begin, expected.gradients.data() + begin,
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

CheckResult check_small(const BenchImpl& impl, const BlockShape& timed) {
    const BlockState s(impl, small_shape(timed), false);
    s.run(Extent::step, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const std::size_t pairs = std::size_t(s.shape.layer.router().grouping().num_rows());
    std::vector<std::int32_t> index(pairs);
    HEADWAY_CUDA_CHECK(cudaMemcpy(index.data(), s.block.routing(s.saved.get()).index,
                                  pairs * sizeof(std::int32_t), cudaMemcpyDeviceToHost));
    const HostBlockResult expected = block_reference({.shape = s.shape,
                                                      .parameters = parameters_as_read(s),
                                                      .x = as_doubles(s.x),
                                                      .delta = as_doubles(s.delta),
                                                      .dy = as_doubles(s.dy),
                                                      .index = index});
    const BlockErrors e = compare(s, expected);
    return {.passed = e.y < 6e-3 && e.gradients < 2e-2,
            .error = e.y,
            .detail = text_of("y to fp64, small; worst gradient %.1e (%s)", e.gradients,
                              e.worst.c_str())};
}

/// Two runs at full size from poisoned memory give the same bits.
bool repeats(BlockState& s, Extent extent) {
    const bool backward = extent != Extent::forward;
    s.run(backward ? Extent::step : extent, nullptr);
    struct Copy {
        DeviceBuffer<unsigned char> bytes;
        const void* of;
    };
    std::vector<Copy> copies;
    const auto keep = [&](const auto& buffer) {
        copies.push_back({DeviceBuffer<unsigned char>(buffer.bytes()), buffer.get()});
        HEADWAY_CUDA_CHECK(cudaMemcpy(copies.back().bytes.get(), buffer.get(), buffer.bytes(),
                                      cudaMemcpyDeviceToDevice));
    };
    keep(s.h);
    keep(s.m);
    if (backward) keep(s.dx);
    if (backward) keep(s.gradients);
    s.poison();
    s.run(backward ? Extent::step : extent, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    return std::all_of(copies.begin(), copies.end(), [](const Copy& copy) {
        return bitwise_equal(copy.bytes.get(), copy.of, copy.bytes.bytes());
    });
}

/// The masters after a step against the reference optimizer's, given the same gradients.
double optimizer_error(BlockState& s) {
    DeviceBuffer<float> master(s.parameters), m(s.parameters), v(s.parameters);
    DeviceBuffer<bf16> rounded(s.parameters);
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(master.get(), s.master.get(), master.bytes(), cudaMemcpyDeviceToDevice));
    m.zero();
    v.zero();
    s.run(Extent::step_and_adamw, nullptr);
    adamw_step(AdamWImpl::reference, kStep,
               {std::int64_t(s.parameters), master.get(), m.get(), v.get(), rounded.get()},
               s.gradients.get(), 1.0f, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    return relative_l2(s.master.get(), master.get(), s.parameters) +
           relative_l2(s.first.get(), m.get(), s.parameters) +
           relative_l2(s.second.get(), v.get(), s.parameters);
}

CheckResult check(BlockState& s, const BenchImpl& impl, Extent extent) {
    CheckResult result{.passed = true, .error = 0, .detail = "fp64 by block_step"};
    if (extent == Extent::step) result = check_small(impl, s.shape);
    if (!repeats(s, extent)) {
        result.passed = false;
        result.detail += " NOT REPEATABLE";
    }
    if (extent == Extent::step_and_adamw) {
        result.error = optimizer_error(s);
        result.passed = result.passed && result.error < 1e-6;
        result.detail = "p + m + v vs fp64 AdamW; rest by block_step";
    }
    return result;
}

Cost cost_of(const BlockState& s, Extent extent) {
    const double tokens = double(s.shape.num_tokens()), d = s.shape.width();
    const HpLayerShape& layer = s.shape.layer;
    const double rows = double(layer.experts().num_rows);
    const double products = 2 * tokens * d * (3 * d + d + 2 * d);
    const double attention = 2 * tokens * d * s.shape.attention.sequence_length;
    const double experts =
        4 * rows * layer.width * layer.hidden + 2 * tokens * d * layer.num_experts;
    const double forward = products + attention + experts, weights = double(s.parameters);
    Cost cost{forward, 8 * tokens * d + 2 * weights};
    if (extent != Extent::forward) cost = {3 * forward, 14 * tokens * d + 8 * weights};
    if (extent == Extent::step_and_adamw) cost.bytes += 30 * weights;
    return cost;
}

std::optional<Case> make(const Shape& s, const BenchImpl& impl, Extent extent) {
    BlockShape shape;
    shape.layer = {s.num_heads, s.num_tokens, s.head_dim, s.num_experts, s.expert_dim, s.top_k};
    shape.attention = block_attention(shape.num_tokens(), shape.width());
    if (!attention_available(impl.attention) || shape.width() > 4096 ||
        !router_supported(impl.block.layer.router, shape.layer.router()) ||
        !experts_backward_supported(impl.block.layer.experts, shape.layer.experts()))
        return std::nullopt;
    const auto state = std::make_shared<BlockState>(impl, shape, extent == Extent::step_and_adamw);
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
        BenchImpl impl;
    };
    const HpLayerImpl hopper{RouterImpl::fused, ExpertImpl::hopper};
    const HpLayerImpl portable{RouterImpl::fused, ExpertImpl::portable};
    const Named impls[] = {
        {"hopper+cudnn", {{HeadImpl::hopper, hopper}, AttentionImpl::cudnn}},
        {"hopper+cublaslt", {{HeadImpl::hopper, hopper}, AttentionImpl::cublaslt}},
        {"portable+cublaslt", {{HeadImpl::library, portable}, AttentionImpl::cublaslt}}};
    constexpr std::pair<Extent, const char*> extents[] = {
        {Extent::forward, "block_forward"},
        {Extent::step, "block_step"},
        {Extent::step_and_adamw, "block_step_adamw"}};
    for (const auto& [extent, op] : extents)
        for (const Named& named : impls) {
            // The optimizer costs the same after each of them.
            if (extent == Extent::step_and_adamw && named.impl.attention != AttentionImpl::cudnn &&
                attention_available(AttentionImpl::cudnn))
                continue;
            registry.push_back({.suite = "block",
                                .op = op,
                                .impl = named.name,
                                .make = [impl = named.impl, which = extent](const Shape& s) {
                                    return make(s, impl, which);
                                }});
        }
}

}  // namespace headway::kernels::bench
