// A planned cuBLASLt product of row-major matrices, strided batches included:
//   C[b] = alpha op(A[b]) op(B[b]) + beta C[b],   bf16 in, fp32 accumulation, bf16 or fp32 out.
// The caller keeps the plan: descriptors and the algorithm (cuBLASLt's first suggestion within the
// workspace limit) are found once. Running allocates nothing and can be captured in a graph.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

namespace headway::kernels {

struct DenseGemmShape {
    int m = 0, n = 0, k = 0;                        // C [m,n], op(A) [m,k], op(B) [k,n]
    bool transpose_a = false, transpose_b = false;  // stored as [k,m], [n,k]
    std::int64_t lda = 0, ldb = 0, ldc = 0;         // row strides in elements; 0: contiguous
    int num_batches = 1;
    std::int64_t stride_a = 0, stride_b = 0, stride_c = 0;  // elements between batches
    bool fp32_out = false;
    float alpha = 1.0f, beta = 0.0f;
};

class DenseGemm {
  public:
    /// Throws std::runtime_error when cuBLASLt has no algorithm within the workspace limit.
    DenseGemm(cublasLtHandle_t handle, const DenseGemmShape& shape, std::size_t workspace_limit);
    DenseGemm(DenseGemm&& other) noexcept;
    DenseGemm(const DenseGemm&) = delete;
    DenseGemm& operator=(const DenseGemm&) = delete;
    DenseGemm& operator=(DenseGemm&&) = delete;
    ~DenseGemm();

    [[nodiscard]] std::size_t workspace_bytes() const { return workspace_bytes_; }
    /// `addend`, laid out as C, stands for C on the right-hand side when it is given.
    void run(const __nv_bfloat16* a, const __nv_bfloat16* b, void* c, void* workspace,
             cudaStream_t stream, const void* addend = nullptr) const;
    /// Whatever beta is: C is written, or added to.
    void write(const __nv_bfloat16* a, const __nv_bfloat16* b, void* c, void* workspace,
               cudaStream_t stream, bool accumulate) const;

  private:
    void multiply(const __nv_bfloat16* a, const __nv_bfloat16* b, float beta, const void* addend,
                  void* c, void* workspace, cudaStream_t stream) const;

    cublasLtHandle_t handle_;
    DenseGemmShape shape_;
    cublasLtMatmulDesc_t operation_ = nullptr;
    cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr;
    cublasLtMatmulAlgo_t algorithm_{};
    std::size_t workspace_bytes_ = 0;
};

}  // namespace headway::kernels
