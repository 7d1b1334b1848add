// Root-mean-square norm of rows, fused with the addition of the residual stream on either side
// (Zhang & Sennrich, arXiv 1910.07467):
//   forward   sum = x + delta,  r = 1 / sqrt(mean(sum^2) + epsilon),  y = r sum w
//   backward  u = r sum,  dx = r (w dy - u mean(w dy u)) + dresidual,  dw = sum over rows of dy u
// Each row is read once and stays in registers. dw is summed in a fixed order: no atomics.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace headway::kernels {

struct RmsNormShape {
    std::int64_t num_rows = 0;
    int width = 0;  // a multiple of 8, at most 4096
    float epsilon = 1e-6f;
};

struct RmsNormForward {
    const __nv_bfloat16* x = nullptr;
    const __nv_bfloat16* delta = nullptr;  // may be null: sum = x
    const float* weight = nullptr;         // [width]
    __nv_bfloat16* sum = nullptr;          // may be null
    __nv_bfloat16* y = nullptr;
    float* inverse = nullptr;  // r [rows], saved for the backward
};

struct RmsNormBackward {
    const __nv_bfloat16* sum = nullptr;
    const float *weight = nullptr, *inverse = nullptr;
    const __nv_bfloat16 *dy = nullptr, *dresidual = nullptr;  // dresidual may be null
    __nv_bfloat16* dx = nullptr;                              // of the sum
    float* dweight = nullptr;
    bool accumulate = false;  // dweight is added to
};

void rms_norm_forward(const RmsNormShape& shape, const RmsNormForward& call, cudaStream_t stream);
[[nodiscard]] std::size_t rms_norm_backward_workspace_bytes(const RmsNormShape& shape);
void rms_norm_backward(const RmsNormShape& shape, const RmsNormBackward& call, void* workspace,
                       cudaStream_t stream);

}  // namespace headway::kernels
