// Checks and timings of the norm as a block uses it: with the residual addition on both sides.
#include <algorithm>
#include <memory>

#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/norm/rms_norm.hpp"

namespace headway::kernels::bench {
namespace {

struct State {
    RmsNormShape shape;
    DeviceBuffer<bf16> x, delta, sum, y, dy, dresidual, dx;
    DeviceBuffer<float> weight, inverse, dweight;
    DeviceBuffer<unsigned char> workspace;

    explicit State(const RmsNormShape& s)
        : shape(s),
          x(random_normal<bf16>(elements(), 1.0f, 71)),
          delta(random_normal<bf16>(elements(), 0.5f, 72)),
          sum(elements()),
          y(elements()),
          dy(random_normal<bf16>(elements(), 1.0f, 73)),
          dresidual(random_normal<bf16>(elements(), 1.0f, 74)),
          dx(elements()),
          weight(random_normal<float>(std::size_t(s.width), 1.0f, 75)),
          inverse(std::size_t(s.num_rows)),
          dweight(std::size_t(s.width)),
          workspace(rms_norm_backward_workspace_bytes(s)) {}

    [[nodiscard]] std::size_t elements() const {
        return std::size_t(shape.num_rows) * std::size_t(shape.width);
    }
    void forward(cudaStream_t stream) const {
        rms_norm_forward(
            shape, {x.get(), delta.get(), weight.get(), sum.get(), y.get(), inverse.get()}, stream);
    }
    void backward(float* dw, cudaStream_t stream) const {
        rms_norm_backward(
            shape,
            {sum.get(), weight.get(), inverse.get(), dy.get(), dresidual.get(), dx.get(), dw},
            workspace.get(), stream);
    }
};

/// The definition in fp64, one block of one thread a row; dw by one thread a column.
__global__ void rows_check_kernel(RmsNormShape s, const bf16* x, const bf16* delta,
                                  const bf16* rounded, const float* weight, const bf16* dy,
                                  const bf16* dresidual, double* sum, double* y, double* dx,
                                  double* inverse) {
    const std::int64_t base = std::int64_t{blockIdx.x} * s.width;
    double squares = 0, product = 0;
    for (int i = 0; i < s.width; ++i) {
        sum[base + i] = double(__bfloat162float(x[base + i])) + __bfloat162float(delta[base + i]);
        const double u = __bfloat162float(rounded[base + i]);
        squares += u * u;
    }
    const double r = 1 / sqrt(squares / s.width + s.epsilon);
    for (int i = 0; i < s.width; ++i)
        product += double(weight[i]) * __bfloat162float(dy[base + i]) * r *
                   __bfloat162float(rounded[base + i]);
    for (int i = 0; i < s.width; ++i) {
        const double u = r * __bfloat162float(rounded[base + i]);
        y[base + i] = u * weight[i];
        dx[base + i] =
            r * (double(weight[i]) * __bfloat162float(dy[base + i]) - u * product / s.width) +
            __bfloat162float(dresidual[base + i]);
    }
    inverse[blockIdx.x] = r;
}

__global__ void weight_check_kernel(RmsNormShape s, const bf16* rounded, const double* inverse,
                                    const bf16* dy, double* dweight) {
    const int column = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (column >= s.width) return;
    double sum = 0;
    for (std::int64_t row = 0; row < s.num_rows; ++row)
        sum += double(__bfloat162float(dy[row * s.width + column])) * inverse[row] *
               __bfloat162float(rounded[row * s.width + column]);
    dweight[column] = sum;
}

CheckResult check_rows(const RmsNormShape& shape) {
    State s(shape);
    s.y.poison();
    s.dx.poison();
    s.sum.poison();
    s.dweight.poison();
    s.forward(nullptr);
    DeviceBuffer<float> again(s.dweight.size());
    s.backward(s.dweight.get(), nullptr);
    s.backward(again.get(), nullptr);
    DeviceBuffer<double> sum(s.elements()), y(s.elements()), dx(s.elements()),
        inverse(std::size_t(shape.num_rows)), dweight(std::size_t(shape.width));
    rows_check_kernel<<<unsigned(shape.num_rows), 1>>>(
        shape, s.x.get(), s.delta.get(), s.sum.get(), s.weight.get(), s.dy.get(), s.dresidual.get(),
        sum.get(), y.get(), dx.get(), inverse.get());
    check_launch();
    weight_check_kernel<<<unsigned(shape.width + 63) / 64, 64>>>(shape, s.sum.get(), inverse.get(),
                                                                 s.dy.get(), dweight.get());
    check_launch();
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const double errors[] = {relative_l2(s.sum.get(), sum.get(), sum.size()),
                             relative_l2(s.y.get(), y.get(), y.size()),
                             relative_l2(s.dx.get(), dx.get(), dx.size())};
    double worst = 0;
    for (const double error : errors)
        if (!(error <= worst)) worst = error;  // NaN stays
    const double dw = relative_l2(s.dweight.get(), dweight.get(), dweight.size());
    const bool same = bitwise_equal(s.dweight.get(), again.get(), again.bytes());
    // One rounding to bf16: about 2^-9 / sqrt(3) relative.
    return {.passed = worst < 2.5e-3 && dw < 1e-5 && same,
            .error = worst,
            .detail = text_of("rel L2 to fp64; dw %.1e%s", dw, same ? "" : " NOT REPEATABLE")};
}

/// Every chunk count, widths that do not fill a chunk, rows that do not fill a block.
CheckResult check_all() {
    CheckResult result{.passed = true, .error = 0, .detail = ""};
    for (const int width : {8, 256, 264, 512, 768, 1024, 2048, 4096})
        for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{333}}) {
            const CheckResult one = check_rows({rows, width});
            result.error = std::max(result.error, one.error);
            if (one.passed) continue;
            result.passed = false;
            result.detail +=
                text_of(" [width %d, rows %ld: %s]", width, long(rows), one.detail.c_str());
        }
    if (result.passed) result.detail = "rel L2 to fp64, 16 shapes, repeats bitwise";
    return result;
}

std::optional<Case> make(const Shape& s, bool backward) {
    const RmsNormShape shape{s.num_tokens, s.num_heads * s.head_dim};
    if (shape.width > 4096) return std::nullopt;
    const auto state = std::make_shared<State>(shape);
    Case made;
    made.check = [state](cudaStream_t) {
        state->forward(nullptr);
        return check_all();
    };
    made.run = [state, backward](cudaStream_t stream) {
        if (backward)
            state->backward(state->dweight.get(), stream);
        else
            state->forward(stream);
    };
    // Two rows in and two out; three in and one out.
    made.cost.bytes = 8.0 * double(state->elements()) + 4.0 * double(s.num_tokens);
    made.workspace_bytes = backward ? state->workspace.bytes() : 0;
    return made;
}

}  // namespace

void register_norm_cases(Registry& registry) {
    registry.push_back(
        {"dense", "rms_norm_forward", "fused", [](const Shape& s) { return make(s, false); }});
    registry.push_back(
        {"dense", "rms_norm_backward", "fused", [](const Shape& s) { return make(s, true); }});
}

}  // namespace headway::kernels::bench
