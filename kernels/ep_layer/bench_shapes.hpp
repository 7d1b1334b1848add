// Shapes at which the EP layer and its block are timed: those of the grouped GEMM, with the tokens
// that give their rows. All experts are on the rank.
#pragma once

#include <algorithm>

#include "kernels/bench/registry.hpp"
#include "kernels/ep_layer/ep_layer.hpp"

namespace headway::kernels::bench {

inline std::vector<Shape> ep_layer_shapes() {
    return {{"E1", 1, 1024, 32, 1024, 32768, 4},
            {"E2", 1, 2048, 16, 1408, 16384, 4},
            {"E3", 1, 2048, 64, 512, 16384, 8}};
}

inline EpLayerShape ep_layer_shape(const Shape& s) {
    return {s.num_tokens, s.head_dim, s.num_experts, s.expert_dim, s.top_k};
}

/// Same width and k, few tokens and experts, for fp64 on the host.
inline EpLayerShape small_ep_layer(const EpLayerShape& timed) {
    EpLayerShape out = timed;
    out.num_tokens = 96;
    out.width = std::min(timed.width, 256);
    out.num_experts = std::max(std::min(timed.num_experts, 12), timed.top_k);
    out.hidden = std::min(timed.hidden, 136);
    return out;
}

/// Useful operations of a forward pass: experts and router.
inline double ep_layer_flops(const EpLayerShape& s) {
    return 4.0 * double(s.num_rows()) * s.width * s.hidden +
           2.0 * s.num_tokens * double(s.router_elements());
}

}  // namespace headway::kernels::bench
