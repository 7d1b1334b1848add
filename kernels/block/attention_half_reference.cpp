#include <cmath>

#include "kernels/block/attention_half.hpp"
#include "kernels/block/host_matrix.hpp"

namespace headway::kernels {
namespace {

using host::Matrix;

Matrix normed(const RmsNormShape& s, const Matrix& x, const double* weight) {
    Matrix y(x.size());
    for (std::int64_t row = 0; row < s.num_rows; ++row) {
        double squares = 0;
        for (int i = 0; i < s.width; ++i) squares += x[row * s.width + i] * x[row * s.width + i];
        const double r = 1 / std::sqrt(squares / s.width + double(s.epsilon));
        for (int i = 0; i < s.width; ++i)
            y[row * s.width + i] = r * x[row * s.width + i] * weight[i];
    }
    return y;
}

/// dresidual + the norm's gradient.
Matrix norm_gradient(const RmsNormShape& s, const Matrix& x, const double* weight, const Matrix& dy,
                     const Matrix& dresidual, double* dweight) {
    Matrix dx = dresidual;
    for (std::int64_t row = 0; row < s.num_rows; ++row) {
        const std::int64_t base = row * s.width;
        double squares = 0, product = 0;
        for (int i = 0; i < s.width; ++i) squares += x[base + i] * x[base + i];
        const double r = 1 / std::sqrt(squares / s.width + double(s.epsilon));
        for (int i = 0; i < s.width; ++i) product += weight[i] * dy[base + i] * r * x[base + i];
        for (int i = 0; i < s.width; ++i) {
            const double u = r * x[base + i];
            dweight[i] += dy[base + i] * u;
            dx[base + i] += r * (weight[i] * dy[base + i] - u * product / s.width);
        }
    }
    return dx;
}

}  // namespace

HostHalfForward attention_half_reference(const HostHalf& half, const Matrix& x,
                                         const Matrix& delta) {
    const int tokens = int(half.shape.num_tokens()), d = half.shape.width();
    const RmsNormShape norm{tokens, d};
    HostHalfForward out;
    out.sum = x;
    host::add(out.sum, delta);
    out.normed1 = normed(norm, out.sum, half.norm1);
    out.qkv = host::times_transposed(out.normed1, half.qkv, tokens, 3 * d, d);
    const Matrix zero(std::size_t(tokens) * d);
    out.o = attention_reference({.shape = half.shape, .qkv = out.qkv, .d_o = zero}).o;
    out.h = host::times_transposed(out.o, half.output, tokens, d, d);
    host::add(out.h, out.sum);
    out.normed2 = normed(norm, out.h, half.norm2);
    return out;
}

Matrix attention_half_gradient(const HostHalf& half, const HostHalfForward& forward,
                               const Matrix& d_normed, const Matrix& dy,
                               const HostHalfGradients& g) {
    const int tokens = int(half.shape.num_tokens()), d = half.shape.width();
    const RmsNormShape norm{tokens, d};
    const Matrix dh = norm_gradient(norm, forward.h, half.norm2, d_normed, dy, g.norm2);
    host::transposed_times(dh, forward.o, d, d, g.output);
    const Matrix dqkv = attention_reference({.shape = half.shape,
                                             .qkv = forward.qkv,
                                             .d_o = host::times(dh, half.output, tokens, d, d)})
                            .dqkv;
    host::transposed_times(dqkv, forward.normed1, 3 * d, d, g.qkv);
    return norm_gradient(norm, forward.sum, half.norm1,
                         host::times(dqkv, half.qkv, tokens, d, 3 * d), dh, g.norm1);
}

}  // namespace headway::kernels
