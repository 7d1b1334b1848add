// Grouped GEMM as a loop of cuBLAS calls, one per expert: the baseline. It needs the offsets on the
// HOST, so a real layer pays a device-to-host copy and a synchronisation before it; and the
// activation is a second kernel.
#pragma once

#include <cublas_v2.h>

#include <vector>

#include "kernels/grouped_gemm/grouped_gemm.hpp"

namespace headway::kernels {

void grouped_forward_cublas(cublasHandle_t handle, const GroupedForward& call,
                            const std::vector<int>& host_offsets, cudaStream_t stream);
void grouped_dgrad_cublas(cublasHandle_t handle, const GroupedDgrad& call,
                          const std::vector<int>& host_offsets, cudaStream_t stream);
void grouped_wgrad_cublas(cublasHandle_t handle, const GroupedWgrad& call,
                          const std::vector<int>& host_offsets, cudaStream_t stream);

}  // namespace headway::kernels
