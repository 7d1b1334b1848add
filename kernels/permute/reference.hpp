// Naive row movers: one thread per element, fp64 sums. Oracles, not for speed.
#pragma once

#include "kernels/permute/permute.hpp"

namespace headway::kernels {

void spread_reference(const SpreadShape& shape, const SpreadMap& map, const __nv_bfloat16* in,
                      __nv_bfloat16* out, cudaStream_t stream);
void spread_reference(const SpreadShape& shape, const SpreadMap& map, const float* in,
                      __nv_bfloat16* out, cudaStream_t stream);
void collect_reference(const SpreadShape& shape, const SpreadMap& map, const __nv_bfloat16* in,
                       __nv_bfloat16* out, cudaStream_t stream);
void collect_reference(const SpreadShape& shape, const SpreadMap& map, const __nv_bfloat16* in,
                       float* out, cudaStream_t stream);
void collect_backward_reference(const SpreadShape& shape, const SpreadMap& map,
                                const __nv_bfloat16* in, const __nv_bfloat16* dout,
                                __nv_bfloat16* din, float* dweight, cudaStream_t stream);

}  // namespace headway::kernels
