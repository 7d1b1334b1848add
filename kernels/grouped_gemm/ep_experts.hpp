// The experts of one rank under EP, as grouped GEMMs over rows sorted by local expert:
//   pre = x W1^T, act = gelu(pre), y = act W2^T                       4 rows d f FLOPs forward
//   dpre = (dy W2) gelu'(pre), dW2 = dy^T act, dx = dpre W1, dW1 = dpre^T x     8 rows d f backward
// With SwiGLU act = silu(gate) up of the alternating columns of pre, [rows, 2 f]: half as many
// FLOPs more. Saved for the backward: x, pre and act. No host synchronisation.
#pragma once

#include <vector>

#include "kernels/grouped_gemm/implementations.hpp"

namespace headway::kernels {

struct EpExperts {
    int num_experts = 0;  // local ones
    int model_dim = 0;    // d
    int expert_dim = 0;   // f
    std::int64_t capacity_rows = 0;
    const int* offsets = nullptr;       // device, num_experts + 1
    const __nv_bfloat16* w1 = nullptr;  // [experts, f, d]; swiglu: [experts, 2 f, d], as W there
    const __nv_bfloat16* w2 = nullptr;  // [experts, d, f]
    GroupedActivation activation = GroupedActivation::gelu_erf;
    int num_sms = 0;
    // For implementations that need the host (GroupedProducts::needs_host).
    cublasHandle_t cublas_handle = nullptr;
    const std::vector<int>* host_offsets = nullptr;

    [[nodiscard]] int hidden_rows() const {
        return activation == GroupedActivation::swiglu ? 2 * expert_dim : expert_dim;
    }  // of W1, columns of pre
};

struct EpExpertsForward {
    const __nv_bfloat16* x = nullptr;  // [rows, d]
    __nv_bfloat16* pre = nullptr;      // [rows, f or 2 f]; null in inference
    __nv_bfloat16* act = nullptr;      // [rows, f]
    __nv_bfloat16* y = nullptr;        // [rows, d]
};

struct EpExpertsBackward {
    const __nv_bfloat16 *x = nullptr, *pre = nullptr, *act = nullptr, *dy = nullptr;
    __nv_bfloat16* dpre = nullptr;  // as pre, workspace
    __nv_bfloat16* dx = nullptr;    // [rows, d]
    float *dw1 = nullptr, *dw2 = nullptr;
    bool accumulate = false;  // dw1 and dw2 are added to
};

void ep_experts_forward(GroupedImpl impl, const EpExperts& experts, const EpExpertsForward& call,
                        cudaStream_t stream);
void ep_experts_backward(GroupedImpl impl, const EpExperts& experts, const EpExpertsBackward& call,
                         cudaStream_t stream);

}  // namespace headway::kernels
