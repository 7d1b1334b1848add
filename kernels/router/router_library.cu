#include "kernels/router/router_library.hpp"

#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/router/select.cuh"

namespace headway::kernels {

namespace {

constexpr int threads = 256;

__global__ void widen_kernel(const __nv_bfloat16* x, float* out, int64_t n) {
    const int64_t i = (int64_t(blockIdx.x) * threads + threadIdx.x) * 2;
    if (i >= n) return;
    *reinterpret_cast<float2*>(out + i) =
        __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(x + i));
}

template <int per_lane>
__global__ void __launch_bounds__(threads)
    select_kernel(RouterShape shape, const float* logits, const float* bias, RouterOutput out) {
    const int64_t token = int64_t(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
    if (token >= shape.num_subtokens()) return;
    const int64_t first = token / shape.num_tokens * shape.num_experts;
    router::select_top_k<per_lane>(token, shape.num_experts, shape.top_k,
                                   logits + token * shape.num_experts,
                                   bias == nullptr ? nullptr : bias + first, out);
}

}  // namespace

std::size_t router_library_workspace_bytes(const RouterShape& shape) {
    return std::size_t(shape.num_subtokens()) * (shape.width + shape.num_experts) * sizeof(float);
}

void router_forward_library(cublasHandle_t handle, const RouterShape& shape,
                            const RouterInput& input, const RouterOutput& output, void* workspace,
                            cudaStream_t stream) {
    if (shape.width % 2 != 0 || shape.num_experts > 1024 || shape.top_k > 32)
        throw std::invalid_argument("library router: needs even d, E <= 1024 and k <= 32");
    const int64_t elements = shape.num_subtokens() * shape.width;
    auto* wide = static_cast<float*>(workspace);
    float* logits = wide + elements;
    widen_kernel<<<int((elements / 2 + threads - 1) / threads), threads, 0, stream>>>(input.x, wide,
                                                                                      elements);
    check_launch();
    const float one = 1, zero = 0;
    const int d = shape.width, e = shape.num_experts, t = shape.num_tokens;
    cublasSetStream(handle, stream);
    // Row-major logits [T_b, E] = x R^T is column-major [E, T_b] = R x^T.
    if (cublasGemmStridedBatchedEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, e, t, d, &one, input.weights,
                                   CUDA_R_32F, d, int64_t(e) * d, wide, CUDA_R_32F, d,
                                   int64_t(t) * d, &zero, logits, CUDA_R_32F, e, int64_t(t) * e,
                                   shape.num_heads, CUBLAS_COMPUTE_32F,
                                   CUBLAS_GEMM_DEFAULT) != CUBLAS_STATUS_SUCCESS)
        throw CudaError("library router: cublasGemmStridedBatchedEx failed");
    const auto kernel = e <= 128   ? select_kernel<4>
                        : e <= 512 ? select_kernel<16>
                                   : select_kernel<32>;
    const int grid = int((shape.num_subtokens() + threads / 32 - 1) / (threads / 32));
    kernel<<<grid, threads, 0, stream>>>(shape, logits, input.bias, output);
    check_launch();
    if (output.counts != nullptr)
        count_choices(shape.grouping(), output.index, output.counts, stream);
}

}  // namespace headway::kernels
