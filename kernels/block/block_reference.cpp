#include <cmath>

#include "kernels/block/block.hpp"

namespace headway::kernels {
namespace {

using Matrix = std::vector<double>;  // row major

/// C [m, n] = A [m, k] B [n, k]^T
Matrix times_transposed(const Matrix& a, const double* b, int m, int n, int k) {
    Matrix c(std::size_t(m) * n);
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            double sum = 0;
            for (int l = 0; l < k; ++l)
                sum += a[std::size_t(i) * k + l] * b[std::size_t(j) * k + l];
            c[std::size_t(i) * n + j] = sum;
        }
    return c;
}

/// C [m, n] = A [m, k] B [k, n]
Matrix times(const Matrix& a, const double* b, int m, int n, int k) {
    Matrix c(std::size_t(m) * n);
    for (int i = 0; i < m; ++i)
        for (int l = 0; l < k; ++l)
            for (int j = 0; j < n; ++j)
                c[std::size_t(i) * n + j] += a[std::size_t(i) * k + l] * b[std::size_t(l) * n + j];
    return c;
}

/// C [m, n] = A [rows, m]^T B [rows, n]
void transposed_times(const Matrix& a, const Matrix& b, int m, int n, double* c) {
    for (std::size_t row = 0; row < a.size() / std::size_t(m); ++row)
        for (int i = 0; i < m; ++i)
            for (int j = 0; j < n; ++j)
                c[std::size_t(i) * n + j] += a[row * m + i] * b[row * n + j];
}

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

/// [T, H d_h] <-> [H, T, d_h]
Matrix to_heads(const HpLayerShape& s, const Matrix& rows) {
    Matrix heads(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t columns = std::size_t(s.num_heads) * s.width, t = i / columns,
                          h = i % columns / s.width, c = i % s.width;
        heads[(h * s.num_tokens + t) * s.width + c] = rows[i];
    }
    return heads;
}
Matrix to_rows(const HpLayerShape& s, const Matrix& heads) {
    Matrix rows(heads.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t columns = std::size_t(s.num_heads) * s.width, t = i / columns,
                          h = i % columns / s.width, c = i % s.width;
        rows[i] = heads[(h * s.num_tokens + t) * s.width + c];
    }
    return rows;
}

std::vector<float> narrowed(const double* values, std::size_t count) {
    return {values, values + count};
}

HostHpResult run_layer(const HostBlock& block, const Matrix& x_heads, const Matrix& dy_heads) {
    const BlockLayout at = block_layout(block.shape);
    const HpLayerShape& s = block.shape.layer;
    const double* p = block.parameters.data();
    const std::size_t groups = std::size_t(s.experts().num_groups), width = std::size_t(s.width);
    return hp_layer_reference(
        {.shape = s,
         .x = narrowed(x_heads.data(), x_heads.size()),
         .dy = narrowed(dy_heads.data(), dy_heads.size()),
         .w1 = narrowed(p + at.w1, groups * std::size_t(s.experts().hidden_rows()) * width),
         .w2 = narrowed(p + at.w2, groups * std::size_t(s.hidden) * width),
         .router = narrowed(p + at.router, groups * width),
         .bias = {},
         .index = block.index});
}

void add(Matrix& to, const Matrix& from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

}  // namespace

HostBlockResult block_reference(const HostBlock& block) {
    const BlockLayout at = block_layout(block.shape);
    const HpLayerShape& layer = block.shape.layer;
    const int tokens = layer.num_tokens, d = block.shape.width();
    const RmsNormShape norm{tokens, d};
    const double* p = block.parameters.data();
    HostBlockResult out{.y = {}, .dx = {}, .gradients = Matrix(block.parameters.size())};
    double* g = out.gradients.data();

    Matrix sum = block.x;
    add(sum, block.delta);
    const Matrix normed1 = normed(norm, sum, p + at.norm1);
    const Matrix qkv = times_transposed(normed1, p + at.qkv, tokens, 3 * d, d);
    const Matrix zero(std::size_t(tokens) * d);
    const Matrix o =
        attention_reference({.shape = block.shape.attention, .qkv = qkv, .d_o = zero}).o;
    Matrix h = times_transposed(o, p + at.output, tokens, d, d);
    add(h, sum);
    const Matrix normed2 = normed(norm, h, p + at.norm2);
    const Matrix x_heads = to_heads(layer, times_transposed(normed2, p + at.project, tokens, d, d));
    const Matrix do_rows = times(block.dy, p + at.merge, tokens, d, d);
    const HostHpResult hp = run_layer(block, x_heads, to_heads(layer, do_rows));
    const Matrix o_rows = to_rows(layer, hp.y);
    out.y = times_transposed(o_rows, p + at.merge, tokens, d, d);
    add(out.y, h);

    transposed_times(block.dy, o_rows, d, d, g + at.merge);
    std::copy(hp.dw1.begin(), hp.dw1.end(), g + at.w1);
    std::copy(hp.dw2.begin(), hp.dw2.end(), g + at.w2);
    std::copy(hp.drouter.begin(), hp.drouter.end(), g + at.router);
    const Matrix dx_rows = to_rows(layer, hp.dx);
    transposed_times(dx_rows, normed2, d, d, g + at.project);
    const Matrix dh =
        norm_gradient(norm, h, p + at.norm2, times(dx_rows, p + at.project, tokens, d, d), block.dy,
                      g + at.norm2);
    transposed_times(dh, o, d, d, g + at.output);
    const Matrix dqkv = attention_reference({.shape = block.shape.attention,
                                             .qkv = qkv,
                                             .d_o = times(dh, p + at.output, tokens, d, d)})
                            .dqkv;
    transposed_times(dqkv, normed1, 3 * d, d, g + at.qkv);
    out.dx = norm_gradient(norm, sum, p + at.norm1, times(dqkv, p + at.qkv, tokens, d, 3 * d), dh,
                           g + at.norm1);
    return out;
}

}  // namespace headway::kernels
