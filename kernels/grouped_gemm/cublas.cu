// cuBLAS is column major: a row-major X [r,c] is a column-major X^T [c,r] with leading dimension c.
#include "kernels/grouped_gemm/cublas.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/check.hpp"
#include "kernels/grouped_gemm/activation.cuh"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;

void check(cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS)
        throw CudaError(std::string("cuBLAS: ") + cublasGetStatusString(status));
}

struct Product {
    cublasOperation_t op_a, op_b;
    int m, n, k;
    const bf16 *a, *b;
    int lda, ldb;
    void* c;
    cudaDataType_t c_type;
    float beta = 0.0f;
};

void multiply(cublasHandle_t handle, const Product& x) {
    const float one = 1.0f;
    check(cublasGemmEx(handle, x.op_a, x.op_b, x.m, x.n, x.k, &one, x.a, CUDA_R_16BF, x.lda, x.b,
                       CUDA_R_16BF, x.ldb, &x.beta, x.c, x.c_type, x.m, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT));
}

// Eight bf16 values per step.
template <GroupedActivation Act, bool Gradient>
__global__ void activation_kernel(bf16* out, const bf16* pre, std::int64_t count) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x * 8;
    for (std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
         i < count; i += step) {
        uint4 x = *reinterpret_cast<const uint4*>(pre + i);
        uint4 y = Gradient ? *reinterpret_cast<const uint4*>(out + i) : x;
        auto* px = reinterpret_cast<__nv_bfloat162*>(&x);
        auto* py = reinterpret_cast<__nv_bfloat162*>(&y);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float2 v = __bfloat1622float2(px[j]), g = __bfloat1622float2(py[j]);
            py[j] = Gradient ? __floats2bfloat162_rn(g.x * activation_slope<Act>(v.x),
                                                     g.y * activation_slope<Act>(v.y))
                             : __floats2bfloat162_rn(activate<Act>(v.x), activate<Act>(v.y));
        }
        *reinterpret_cast<uint4*>(out + i) = y;
    }
}

template <bool Gradient>
void run_activation(GroupedActivation act, bf16* out, const bf16* pre, std::int64_t count,
                    cudaStream_t stream) {
    if (count == 0) return;
    const auto blocks =
        static_cast<unsigned>(std::min<std::int64_t>((count / 8 + 255) / 256, 132 * 16));
    if (act == GroupedActivation::gelu_erf)
        activation_kernel<GroupedActivation::gelu_erf, Gradient>
            <<<blocks, 256, 0, stream>>>(out, pre, count);
    else
        activation_kernel<GroupedActivation::gelu_tanh, Gradient>
            <<<blocks, 256, 0, stream>>>(out, pre, count);
    check_launch();
}

}  // namespace

void grouped_forward_cublas(cublasHandle_t handle, const GroupedForward& call,
                            const std::vector<int>& host_offsets, cudaStream_t stream) {
    const GroupedShape& s = call.shape;
    if (call.activation == GroupedActivation::swiglu)
        throw std::invalid_argument("cublas baseline: no swiglu");
    check(cublasSetStream(handle, stream));
    bf16* product =
        call.activation != GroupedActivation::none && call.pre != nullptr ? call.pre : call.c;
    for (int g = 0; g < s.num_groups; ++g) {
        const std::int64_t begin = host_offsets[g];
        const int rows = host_offsets[g + 1] - host_offsets[g];
        if (rows == 0) continue;
        multiply(handle,
                 {CUBLAS_OP_T, CUBLAS_OP_N, s.n, rows, s.k, call.w + std::int64_t{g} * s.n * s.k,
                  call.a + begin * s.k, s.k, s.k, product + begin * s.n, CUDA_R_16BF});
    }
    if (call.activation != GroupedActivation::none)
        run_activation<false>(call.activation, call.c, product,
                              std::int64_t{host_offsets.back()} * s.n, stream);
}

void grouped_dgrad_cublas(cublasHandle_t handle, const GroupedDgrad& call,
                          const std::vector<int>& host_offsets, cudaStream_t stream) {
    const GroupedShape& s = call.shape;
    if (call.activation == GroupedActivation::swiglu)
        throw std::invalid_argument("cublas baseline: no swiglu");
    check(cublasSetStream(handle, stream));
    for (int g = 0; g < s.num_groups; ++g) {
        const std::int64_t begin = host_offsets[g];
        const int rows = host_offsets[g + 1] - host_offsets[g];
        if (rows == 0) continue;
        multiply(handle,
                 {CUBLAS_OP_N, CUBLAS_OP_N, s.k, rows, s.n, call.w + std::int64_t{g} * s.n * s.k,
                  call.dc + begin * s.n, s.k, s.n, call.da + begin * s.k, CUDA_R_16BF});
    }
    if (call.activation != GroupedActivation::none)
        run_activation<true>(call.activation, call.da, call.pre,
                             std::int64_t{host_offsets.back()} * s.k, stream);
}

void grouped_wgrad_cublas(cublasHandle_t handle, const GroupedWgrad& call,
                          const std::vector<int>& host_offsets, cudaStream_t stream) {
    const GroupedShape& s = call.shape;
    const bool fp32 = call.dw_fp32 != nullptr;
    const std::size_t element = fp32 ? 4 : 2;
    auto* out =
        fp32 ? reinterpret_cast<char*>(call.dw_fp32) : reinterpret_cast<char*>(call.dw_bf16);
    check(cublasSetStream(handle, stream));
    for (int g = 0; g < s.num_groups; ++g) {
        const std::int64_t begin = host_offsets[g];
        const int rows = host_offsets[g + 1] - host_offsets[g];
        const std::size_t bytes = std::size_t(s.n) * s.k * element;
        void* dw = out + g * bytes;
        if (rows == 0) {
            if (call.accumulate) continue;
            HEADWAY_CUDA_CHECK(cudaMemsetAsync(dw, 0, bytes, stream));
            continue;
        }
        multiply(handle, {CUBLAS_OP_N, CUBLAS_OP_T, s.k, s.n, rows, call.a + begin * s.k,
                          call.dc + begin * s.n, s.k, s.n, dw, fp32 ? CUDA_R_32F : CUDA_R_16BF,
                          call.accumulate ? 1.0f : 0.0f});
    }
}

}  // namespace headway::kernels
