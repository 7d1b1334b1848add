#include <algorithm>

#include "kernels/block/block.hpp"
#include "kernels/block/host_matrix.hpp"

namespace headway::kernels {
namespace {

using host::Matrix;

enum class Order { to_heads, to_rows };

/// [T, H d_h] -> [H, T, d_h], or back.
Matrix reordered(const HpLayerShape& s, const Matrix& from, Order order) {
    Matrix to(from.size());
    for (std::size_t row_major = 0; row_major < from.size(); ++row_major) {
        const std::size_t columns = std::size_t(s.num_heads) * s.width, t = row_major / columns,
                          h = row_major % columns / s.width, c = row_major % s.width,
                          head_major = (h * s.num_tokens + t) * s.width + c;
        if (order == Order::to_heads)
            to[head_major] = from[row_major];
        else
            to[row_major] = from[head_major];
    }
    return to;
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

}  // namespace

HostBlockResult block_reference(const HostBlock& block) {
    const BlockLayout at = block_layout(block.shape);
    const HpLayerShape& layer = block.shape.layer;
    const int tokens = layer.num_tokens, d = block.shape.width();
    const double* p = block.parameters.data();
    HostBlockResult out{.y = {}, .dx = {}, .gradients = Matrix(block.parameters.size())};
    double* g = out.gradients.data();
    const HostHalf half = at.host(block.shape.attention, p);

    const HostHalfForward forward = attention_half_reference(half, block.x, block.delta);
    const Matrix x_rows = host::times_transposed(forward.normed2, p + at.project, tokens, d, d),
                 do_rows = host::times(block.dy, p + at.merge, tokens, d, d);
    const HostHpResult hp = run_layer(block, reordered(layer, x_rows, Order::to_heads),
                                      reordered(layer, do_rows, Order::to_heads));
    const Matrix o_rows = reordered(layer, hp.y, Order::to_rows);
    out.y = host::times_transposed(o_rows, p + at.merge, tokens, d, d);
    host::add(out.y, forward.h);

    host::transposed_times(block.dy, o_rows, d, d, g + at.merge);
    std::copy(hp.dw1.begin(), hp.dw1.end(), g + at.w1);
    std::copy(hp.dw2.begin(), hp.dw2.end(), g + at.w2);
    std::copy(hp.drouter.begin(), hp.drouter.end(), g + at.router);
    const Matrix dx_rows = reordered(layer, hp.dx, Order::to_rows);
    host::transposed_times(dx_rows, forward.normed2, d, d, g + at.project);
    out.dx =
        attention_half_gradient(half, forward, host::times(dx_rows, p + at.project, tokens, d, d),
                                block.dy, at.host_gradients(g));
    return out;
}

}  // namespace headway::kernels
