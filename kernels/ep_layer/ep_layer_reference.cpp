// EP's layer is HP's with one head of the model's width; only W2 lies transposed.
#include "kernels/ep_layer/ep_layer.hpp"

namespace headway::kernels {
namespace {

/// [E, rows, columns] -> [E, columns, rows]
template <typename T>
std::vector<T> transposed_experts(const std::vector<T>& from, int num_experts, int rows,
                                  int columns) {
    std::vector<T> to(from.size());
    for (std::size_t e = 0; e < std::size_t(num_experts); ++e)
        for (std::size_t r = 0; r < std::size_t(rows); ++r)
            for (std::size_t c = 0; c < std::size_t(columns); ++c)
                to[(e * columns + c) * rows + r] = from[(e * rows + r) * columns + c];
    return to;
}

}  // namespace

HostHpResult ep_layer_reference(const HostEpLayer& layer) {
    const EpLayerShape& s = layer.shape;
    const Activation activation =
        s.activation == GroupedActivation::gelu_tanh ? Activation::gelu_tanh : Activation::gelu_erf;
    HostHpResult out = hp_layer_reference(
        {.shape = {1, s.num_tokens, s.width, s.num_experts, s.hidden, s.top_k, activation},
         .x = layer.x,
         .dy = layer.dy,
         .w1 = layer.w1,
         .w2 = transposed_experts(layer.w2, s.num_experts, s.width, s.hidden),
         .router = layer.router,
         .bias = {},
         .index = layer.index});
    out.dw2 = transposed_experts(out.dw2, s.num_experts, s.hidden, s.width);
    return out;
}

}  // namespace headway::kernels
