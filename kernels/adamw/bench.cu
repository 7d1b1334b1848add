// Checks and timings of the AdamW step. The 8-bit states are checked by ten steps beside the fp64
// reference: the parameters' movement must agree within a few per cent, the cost of the codes.
#include <cmath>
#include <memory>

#include "kernels/adamw/adamw.hpp"
#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {
namespace {

struct Optimizer {
    explicit Optimizer(std::size_t n)
        : parameter(random_normal<float>(n, 0.02f, 41)),
          m(random_normal<float>(n, 1e-3f, 42)),
          v(n),
          rounded(n) {
        fill_uniform(v.get(), n, 1e-8f, 1e-5f, 43);
    }
    [[nodiscard]] AdamWState state() const {
        return {std::int64_t(parameter.size()), parameter.get(), m.get(), v.get(), rounded.get()};
    }
    DeviceBuffer<float> parameter, m, v;
    DeviceBuffer<bf16> rounded;
};

struct Optimizer8 {
    explicit Optimizer8(std::size_t n)
        : parameter(random_normal<float>(n, 0.02f, 41)),
          m(n),
          v(n),
          m_max((n + adamw_block - 1) / adamw_block),
          v_max(m_max.size()),
          rounded(n) {
        m.zero();
        v.zero();
        m_max.zero();
        v_max.zero();
    }
    [[nodiscard]] AdamW8State state() const {
        return {std::int64_t(parameter.size()),
                parameter.get(),
                m.get(),
                v.get(),
                m_max.get(),
                v_max.get(),
                rounded.get()};
    }
    DeviceBuffer<float> parameter;
    DeviceBuffer<std::int8_t> m;
    DeviceBuffer<std::uint8_t> v;
    DeviceBuffer<float> m_max, v_max;
    DeviceBuffer<bf16> rounded;
};

// Parameters of the shape's experts: two weights each.
std::size_t num_parameters(const Shape& s) {
    return 2 * std::size_t(s.num_groups()) * s.head_dim * s.expert_dim + 3;  // not a multiple of 4
}

constexpr AdamWStep kStep{.weight_decay = 0.1f, .step = 7};

// `step` enqueues kStep, of gradients times 0.5.
template <typename Gradient, typename Step>
Case step_case(const Shape& shape, Step step) {
    const std::size_t n = num_parameters(shape);
    auto state = std::make_shared<Optimizer>(n);
    auto gradient = std::make_shared<DeviceBuffer<Gradient>>(random_normal<Gradient>(n, 1e-3f, 44));
    auto run = [state, gradient, step](cudaStream_t stream) {
        step(state->state(), gradient->get(), stream);
    };
    auto check = [state, gradient, run, n](cudaStream_t stream) -> CheckResult {
        const Optimizer expected(n);
        adamw_step(AdamWImpl::reference, kStep, expected.state(), gradient->get(), 0.5f, stream);
        state->rounded.poison(stream);
        run(stream);
        const double error = relative_l2(state->parameter.get(), expected.parameter.get(), n) +
                             relative_l2(state->m.get(), expected.m.get(), n) +
                             relative_l2(state->v.get(), expected.v.get(), n);
        const double rounded = relative_l2(state->rounded.get(), expected.rounded.get(), n);
        return {error < 1e-6 && rounded < 1e-4, error, "p + m + v vs fp64"};
    };
    return {.check = check, .run = run, .cost = {0, (26.0 + sizeof(Gradient)) * double(n)}};
}

template <typename Gradient>
Case fused_case(const Shape& shape) {
    return step_case<Gradient>(
        shape, [](const AdamWState& state, const Gradient* gradient, cudaStream_t stream) {
            adamw_step(AdamWImpl::fused, kStep, state, gradient, 0.5f, stream);
        });
}

Case device_factors_case(const Shape& shape) {
    const AdamWFactors given = adamw_factors(kStep, 0.5f);
    auto factors = std::make_shared<DeviceBuffer<AdamWFactors>>(1);
    HEADWAY_CUDA_CHECK(cudaMemcpy(factors->get(), &given, sizeof(given), cudaMemcpyHostToDevice));
    return step_case<float>(
        shape, [factors](const AdamWState& state, const float* gradient, cudaStream_t stream) {
            adamw_step(factors->get(), state, gradient, stream);
        });
}

template <typename Gradient>
Case step8_case(const Shape& shape) {
    const std::size_t n = num_parameters(shape);
    auto state = std::make_shared<Optimizer8>(n);
    auto gradient = std::make_shared<DeviceBuffer<Gradient>>(random_normal<Gradient>(n, 1e-3f, 44));
    auto run = [state, gradient](cudaStream_t stream) {
        adamw8_step(kStep, state->state(), gradient->get(), 1.0f, stream);
    };
    auto check = [state, n](cudaStream_t stream) -> CheckResult {
        Optimizer expected(n);
        expected.m.zero(stream);
        expected.v.zero(stream);
        DeviceBuffer<float> start(n);
        HEADWAY_CUDA_CHECK(cudaMemcpyAsync(start.get(), expected.parameter.get(), start.bytes(),
                                           cudaMemcpyDeviceToDevice, stream));
        for (int t = 1; t <= 10; ++t) {
            const auto g = random_normal<Gradient>(n, 1e-3f, 50 + t);
            const AdamWStep step{.learning_rate = 1e-2f, .step = t};
            adamw_step(AdamWImpl::reference, step, expected.state(), g.get(), 1.0f, stream);
            adamw8_step(step, state->state(), g.get(), 1.0f, stream);
            HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
        }
        const auto a = state->parameter.to_host(), b = expected.parameter.to_host(),
                   s = start.to_host();
        double difference = 0, norm = 0;
        for (std::size_t i = 0; i < n; ++i) {
            difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
            norm += (double(b[i]) - s[i]) * (double(b[i]) - s[i]);
        }
        const double error = std::sqrt(difference / norm);
        return {error < 5e-2, error, "movement of 10 steps vs fp64"};
    };
    return {.check = check, .run = run, .cost = {0, (14.0 + sizeof(Gradient)) * double(n)}};
}

}  // namespace

void register_adamw_cases(Registry& registry) {
    const std::vector<Shape> shapes = {{"O1", 1, 1024, 32, 1024, 1, 1},
                                       {"O2", 1, 1024, 8, 512, 1, 1}};
    const auto add = [&](const char* op, const char* impl, bool timed, auto make) {
        registry.push_back(
            {.suite = "dense",
             .op = op,
             .impl = impl,
             .make = [make](const Shape& s) -> std::optional<Case> { return make(s); },
             .shapes = shapes,
             .timed = timed});
    };
    add("adamw_fp32_grad", "fused", true, fused_case<float>);
    add("adamw_fp32_grad", "device_factors", true, device_factors_case);
    add("adamw_bf16_grad", "fused", true, fused_case<bf16>);
    add("adamw8_fp32_grad", "fused", true, [](const Shape& s) { return step8_case<float>(s); });
    add("adamw8_bf16_grad", "fused", true, [](const Shape& s) { return step8_case<bf16>(s); });
}

}  // namespace headway::kernels::bench
