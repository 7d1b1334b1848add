// EP's router on whole tokens: logits z = x R^T by a bf16 GEMM with fp32 results, the k best, and
// gates = softmax over them. Backward through dense bf16 dlogits: dx += dlogits R and
// dR = dlogits^T x, two GEMMs. R is bf16 here (an fp32 master is the optimizer's business).
#pragma once

#include "kernels/dense/dense_gemm.hpp"
#include "runtime/cuda/phase_clock.hpp"
#include "runtime/cuda/row_kernels.hpp"

namespace headway::runtime {

class EpRouter {
  public:
    using bf16 = __nv_bfloat16;
    EpRouter(cublasLtHandle_t blas, const RowRouting& shape);

    void forward(const bf16* x, const bf16* weights, std::int32_t* index, float* gate,
                 DeviceArena& arena, cudaStream_t stream) const;
    // Adds to dx; writes dweights.
    void backward(const bf16* x, const bf16* weights, const std::int32_t* index, const float* gate,
                  const float* dgate, bf16* dx, float* dweights, DeviceArena& arena,
                  cudaStream_t stream) const;

  private:
    RowRouting shape_;
    kernels::DenseGemm logits_, dgrad_, wgrad_;
};

}  // namespace headway::runtime
