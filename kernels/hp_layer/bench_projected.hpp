// The HP layer of one rank between its two head products:
//   x_heads = project(x), o_heads = layer(x_heads), y = merge(o_heads), and backward all gradients.
// The model width is H d_h, so one rank holds all heads and no all-to-all is left out of the time.
#pragma once

#include <optional>

#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {

std::optional<Case> make_projected(const Shape& shape, bool backward);

}  // namespace headway::kernels::bench
