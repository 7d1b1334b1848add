// out[i] = sum over p of parts[p, i], p ascending: the second stage of a product split along its
// reduction. `accumulate`: added to out[i].
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace headway::kernels {

/// `count` is a multiple of 4; both arrays 16-byte aligned.
void sum_parts(const float* parts, int num_parts, std::int64_t count, float* out,
               cudaStream_t stream, bool accumulate = false);

}  // namespace headway::kernels
