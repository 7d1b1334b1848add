// The router as libraries give it: x widened to fp32, one strided-batched cuBLAS fp32 GEMM that
// writes the logits, then a top-k kernel that reads them. A baseline for the fused kernel; at most
// 1024 experts.
#pragma once

#include <cublas_v2.h>

#include "kernels/router/router.hpp"

namespace headway::kernels {

[[nodiscard]] std::size_t router_library_workspace_bytes(const RouterShape& shape);
void router_forward_library(cublasHandle_t handle, const RouterShape& shape,
                            const RouterInput& input, const RouterOutput& output, void* workspace,
                            cudaStream_t stream);

}  // namespace headway::kernels
