#include "kernels/router/dense_router.hpp"

#include <algorithm>
#include <stdexcept>

#include "kernels/arena.hpp"
#include "kernels/check.hpp"
#include "kernels/router/select.cuh"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr std::size_t kWorkspaceLimit = std::size_t{32} << 20;

DenseRouterShape checked(const DenseRouterShape& s) {
    if (s.num_experts > 1024 || s.top_k < 1 || s.top_k > 32 || s.top_k > s.num_experts)
        throw std::invalid_argument("EP router: needs 1 <= k <= min(E, 32) and E <= 1024");
    return s;
}

unsigned blocks_of_rows(const DenseRouterShape& s) {
    return unsigned((s.num_tokens + kWarps - 1) / kWarps);
}

// One warp a row.
template <int per_lane>
__global__ void __launch_bounds__(kThreads)
    select_kernel(DenseRouterShape s, const float* logits, RouterOutput out) {
    const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
    if (row >= s.num_tokens) return;
    router::select_top_k<per_lane>(row, s.num_experts, s.top_k, logits + row * s.num_experts,
                                   nullptr, out);
}

void select(const DenseRouterShape& s, const float* logits, const RouterOutput& out,
            cudaStream_t stream) {
    if (s.num_tokens == 0) return;
    const auto kernel = s.num_experts <= 128   ? select_kernel<4>
                        : s.num_experts <= 256 ? select_kernel<8>
                        : s.num_experts <= 512 ? select_kernel<16>
                                               : select_kernel<32>;
    kernel<<<blocks_of_rows(s), kThreads, 0, stream>>>(s, logits, out);
    check_launch();
}

// dlogits [T, E], zero but at the choices: dlogit[t, e_j] = gate_j (dgate_j - sum_i gate_i
// dgate_i). One warp a row; every element of the row is written once.
__global__ void __launch_bounds__(kThreads)
    logit_gradients_kernel(DenseRouterShape s, const std::int32_t* index, const float* gate,
                           const float* dgate, bf16* dlogits) {
    const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
    if (row >= s.num_tokens) return;
    const int lane = threadIdx.x % 32;
    const std::int64_t slot = row * s.top_k + lane;
    const bool live = lane < s.top_k;
    const float g = live ? gate[slot] : 0.0f, dg = live ? dgate[slot] : 0.0f;
    const int expert = live ? index[slot] : -1;
    float mean = g * dg;
    for (int step = 16; step > 0; step /= 2) mean += __shfl_xor_sync(~0u, mean, step);
    const float dlogit = g * (dg - mean);
    for (int first = 0; first < s.num_experts; first += 32) {
        float value = 0;
        for (int j = 0; j < s.top_k; ++j) {
            const int chosen = __shfl_sync(~0u, expert, j);
            const float d = __shfl_sync(~0u, dlogit, j);
            if (chosen == first + lane) value = d;
        }
        if (first + lane < s.num_experts) dlogits[row * s.num_experts + first + lane] = bf16(value);
    }
}

template <typename T>
struct RouterScratch {
    T* logits;
    std::byte* gemm;
    std::size_t bytes;
    RouterScratch(const DenseRouterShape& s, std::size_t gemm_bytes, void* base) {
        Arena arena(base);
        logits = arena.take<T>(s.num_tokens * s.num_experts);
        gemm = arena.take<std::byte>(std::int64_t(gemm_bytes));
        bytes = arena.used();
    }
};

}  // namespace

DenseRouter::DenseRouter(cublasLtHandle_t handle, const DenseRouterShape& s)
    : shape_(checked(s)),
      logits_(handle,
              {.m = int(s.num_tokens),
               .n = s.num_experts,
               .k = s.width,
               .transpose_b = true,
               .fp32_out = true},
              kWorkspaceLimit),
      dgrad_(handle, {.m = int(s.num_tokens), .n = s.width, .k = s.num_experts, .beta = 1.0f},
             kWorkspaceLimit),
      wgrad_(handle,
             {.m = s.num_experts,
              .n = s.width,
              .k = int(s.num_tokens),
              .transpose_a = true,
              .fp32_out = true},
             kWorkspaceLimit) {}

std::size_t DenseRouter::forward_workspace_bytes() const {
    return RouterScratch<float>(shape_, logits_.workspace_bytes(), nullptr).bytes;
}

std::size_t DenseRouter::backward_workspace_bytes() const {
    return RouterScratch<bf16>(shape_, std::max(dgrad_.workspace_bytes(), wgrad_.workspace_bytes()),
                               nullptr)
        .bytes;
}

void DenseRouter::forward(const bf16* x, const bf16* weights, std::int32_t* index, float* gate,
                          void* workspace, cudaStream_t stream) const {
    const RouterScratch<float> scratch(shape_, logits_.workspace_bytes(), workspace);
    logits_.run(x, weights, scratch.logits, scratch.gemm, stream);
    select(shape_, scratch.logits, {index, gate, nullptr}, stream);
}

void DenseRouter::backward(const bf16* x, const bf16* weights, const std::int32_t* index,
                           const float* gate, const float* dgate, bf16* dx, float* dweights,
                           void* workspace, cudaStream_t stream, bool accumulate) const {
    const RouterScratch<bf16> scratch(
        shape_, std::max(dgrad_.workspace_bytes(), wgrad_.workspace_bytes()), workspace);
    if (shape_.num_tokens > 0) {
        logit_gradients_kernel<<<blocks_of_rows(shape_), kThreads, 0, stream>>>(
            shape_, index, gate, dgate, scratch.logits);
        check_launch();
    }
    dgrad_.run(scratch.logits, weights, dx, scratch.gemm, stream);
    wgrad_.write(scratch.logits, x, dweights, scratch.gemm, stream, accumulate);
}

}  // namespace headway::kernels
