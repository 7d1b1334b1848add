// Checks of a grouped GEMM's shape and the choice of its tile: the one that wastes fewest columns.
#pragma once

#include <stdexcept>

#include "kernels/grouped_gemm/grouped_gemm.hpp"

namespace headway::kernels {

inline void check_grouped_shape(const GroupedShape& s) {
    if (s.num_groups <= 0 || s.n <= 0 || s.k <= 0 || s.capacity_rows < 0)
        throw std::invalid_argument("grouped GEMM: groups, n and k must be positive");
    if (s.n % 8 != 0 || s.k % 8 != 0)
        throw std::invalid_argument("grouped GEMM: n and k must be multiples of 8 (16-byte rows)");
    if (s.capacity_rows > 0x7FFFFFFF - 256)
        throw std::invalid_argument("grouped GEMM: rows must fit in 31 bits");
}

/// Forward and dgrad: their fused activation writes row-major only.
inline void check_grouped_call(const GroupedShape& s, GroupedActivation activation,
                               int out_head_width) {
    check_grouped_shape(s);
    if (activation != GroupedActivation::none && out_head_width > 0)
        throw std::invalid_argument("grouped GEMM: no activation into a head-major output");
}

constexpr int padded_columns(int n, int tile) {
    return (n + tile - 1) / tile * tile;
}

/// `automatic`: 256 columns, unless they pad n more than 128 would.
inline GroupedTile choose_tile(GroupedTile wanted, int n) {
    if (wanted != GroupedTile::automatic) return wanted;
    const bool wide = padded_columns(n, 256) == padded_columns(n, 128);
    return wide ? GroupedTile::t128x256 : GroupedTile::t256x128;
}

}  // namespace headway::kernels
