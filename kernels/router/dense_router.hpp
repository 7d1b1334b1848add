// EP's router on whole tokens: logits z = x R^T by a bf16 GEMM with fp32 results, the k best, and
// gates = softmax over them. Backward through dense bf16 dlogits: dx += dlogits R and
// dR = dlogits^T x, two GEMMs. R is bf16 here (an fp32 master is the optimizer's business).
#pragma once

#include "kernels/dense/dense_gemm.hpp"

namespace headway::kernels {

struct DenseRouterShape {
    std::int64_t num_tokens = 0;
    int width = 0;
    int num_experts = 0;  // at most 1024
    int top_k = 1;        // at most 32
};

class DenseRouter {
  public:
    using bf16 = __nv_bfloat16;
    /// Throws std::invalid_argument on a shape out of range.
    DenseRouter(cublasLtHandle_t handle, const DenseRouterShape& shape);

    [[nodiscard]] std::size_t forward_workspace_bytes() const;
    [[nodiscard]] std::size_t backward_workspace_bytes() const;

    /// index and gate are [T, k], best first.
    void forward(const bf16* x, const bf16* weights, std::int32_t* index, float* gate,
                 void* workspace, cudaStream_t stream) const;
    /// Adds to dx; writes dweights, or adds to it.
    void backward(const bf16* x, const bf16* weights, const std::int32_t* index, const float* gate,
                  const float* dgate, bf16* dx, float* dweights, void* workspace,
                  cudaStream_t stream, bool accumulate = false) const;

  private:
    DenseRouterShape shape_;
    DenseGemm logits_, dgrad_, wgrad_;
};

}  // namespace headway::kernels
