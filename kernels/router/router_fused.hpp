// Internal to router/: the fused forward kernel's entry points, one translation unit per width.
#pragma once

#include "kernels/router/router.hpp"

namespace headway::kernels::router {

/// bf16 pieces of R in mma fragment order (router_fused.cuh); experts padded to a multiple of this.
inline constexpr int experts_per_chunk = 32;

inline int padded_experts(const RouterShape& shape) {
    return (shape.num_experts + experts_per_chunk - 1) / experts_per_chunk * experts_per_chunk;
}

void launch_fused_64(const RouterShape&, const RouterInput&, const RouterOutput&,
                     const uint4* pieces, cudaStream_t);
void launch_fused_128(const RouterShape&, const RouterInput&, const RouterOutput&,
                      const uint4* pieces, cudaStream_t);
void launch_fused_256(const RouterShape&, const RouterInput&, const RouterOutput&,
                      const uint4* pieces, cudaStream_t);

}  // namespace headway::kernels::router
