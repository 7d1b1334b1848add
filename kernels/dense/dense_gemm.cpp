// cuBLASLt is column major: the row-major product C = A B is computed as C^T = B^T A^T, so B is its
// first operand.
#include "kernels/dense/dense_gemm.hpp"

#include <stdexcept>
#include <string>
#include <utility>

namespace headway::kernels {
namespace {

void check(cublasStatus_t status, const char* what) {
    if (status != CUBLAS_STATUS_SUCCESS)
        throw std::runtime_error(std::string("cuBLASLt: ") + what + ": " +
                                 cublasLtGetStatusString(status));
}

struct Batch {
    int count;
    std::int64_t stride;
};

// A row-major [rows, columns] matrix, seen as a column-major [columns, rows] one.
cublasLtMatrixLayout_t layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns,
                              std::int64_t row_stride, const Batch& batch) {
    cublasLtMatrixLayout_t out = nullptr;
    const std::int64_t leading = row_stride > 0 ? row_stride : columns;
    check(cublasLtMatrixLayoutCreate(&out, type, columns, rows, leading), "layout");
    check(cublasLtMatrixLayoutSetAttribute(out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch.count,
                                           sizeof batch.count),
          "batch count");
    check(cublasLtMatrixLayoutSetAttribute(out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                           &batch.stride, sizeof batch.stride),
          "batch stride");
    return out;
}

void set_transpose(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t which, bool on) {
    const cublasOperation_t value = on ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(cublasLtMatmulDescSetAttribute(operation, which, &value, sizeof value), "transpose");
}

}  // namespace

DenseGemm::DenseGemm(cublasLtHandle_t handle, const DenseGemmShape& s, std::size_t workspace_limit)
    : handle_(handle), shape_(s) {
    if (s.m <= 0 || s.n <= 0 || s.k <= 0 || s.num_batches <= 0)
        throw std::invalid_argument("dense GEMM: m, n, k and batches must be positive");
    check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "operation");
    set_transpose(operation_, CUBLASLT_MATMUL_DESC_TRANSA, s.transpose_b);
    set_transpose(operation_, CUBLASLT_MATMUL_DESC_TRANSB, s.transpose_a);
    const auto [a_rows, a_columns] = s.transpose_a ? std::pair{s.k, s.m} : std::pair{s.m, s.k};
    const auto [b_rows, b_columns] = s.transpose_b ? std::pair{s.n, s.k} : std::pair{s.k, s.n};
    a_ = layout(CUDA_R_16BF, a_rows, a_columns, s.lda, {s.num_batches, s.stride_a});
    b_ = layout(CUDA_R_16BF, b_rows, b_columns, s.ldb, {s.num_batches, s.stride_b});
    c_ =
        layout(s.fp32_out ? CUDA_R_32F : CUDA_R_16BF, s.m, s.n, s.ldc, {s.num_batches, s.stride_c});

    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), "preference");
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &workspace_limit, sizeof workspace_limit);
    cublasLtMatmulHeuristicResult_t found{};
    int num_found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, operation_, b_, a_, c_, c_, preference, 1, &found, &num_found);
    cublasLtMatmulPreferenceDestroy(preference);
    check(status, "heuristic");
    if (num_found == 0)
        throw std::runtime_error("cuBLASLt: no algorithm within the workspace limit");
    algorithm_ = found.algo;
    workspace_bytes_ = found.workspaceSize;
}

DenseGemm::DenseGemm(DenseGemm&& other) noexcept
    : handle_(other.handle_),
      shape_(other.shape_),
      operation_(std::exchange(other.operation_, nullptr)),
      a_(std::exchange(other.a_, nullptr)),
      b_(std::exchange(other.b_, nullptr)),
      c_(std::exchange(other.c_, nullptr)),
      algorithm_(other.algorithm_),
      workspace_bytes_(other.workspace_bytes_) {}

DenseGemm::~DenseGemm() {
    if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
    for (cublasLtMatrixLayout_t one : {a_, b_, c_})
        if (one != nullptr) cublasLtMatrixLayoutDestroy(one);
}

void DenseGemm::run(const __nv_bfloat16* a, const __nv_bfloat16* b, void* c, void* workspace,
                    cudaStream_t stream, const void* addend) const {
    multiply(a, b, shape_.beta, addend == nullptr ? c : addend, c, workspace, stream);
}

void DenseGemm::write(const __nv_bfloat16* a, const __nv_bfloat16* b, void* c, void* workspace,
                      cudaStream_t stream, bool accumulate) const {
    multiply(a, b, accumulate ? 1.0f : 0.0f, c, c, workspace, stream);
}

void DenseGemm::multiply(const __nv_bfloat16* a, const __nv_bfloat16* b, float beta,
                         const void* addend, void* c, void* workspace, cudaStream_t stream) const {
    check(cublasLtMatmul(handle_, operation_, &shape_.alpha, b, b_, a, a_, &beta, addend, c_, c, c_,
                         &algorithm_, workspace, workspace_bytes_, stream),
          "matmul");
}

}  // namespace headway::kernels
