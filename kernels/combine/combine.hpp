// The weighted sum of a sub-token's expert outputs, and its backward. Both gather k rows per
// sub-token through token_row, in the order of the choices: no atomics, the same bits on every run.
//   forward   y_token[s] = sum_j gate[s,j] y[row(s,j)]
//   backward  dx_token[s] = sum_j dx_row[row(s,j)] + sum_j dlogit[s,j] R[head, e_j]
//             dlogit[s,j] = gate[s,j] (dgate[s,j] - sum_i gate[s,i] dgate[s,i])     (softmax over
//             the k chosen)
// dy reaches the expert kernels per token, so the forward's own backward is theirs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace headway::kernels {

struct CombineShape {
    int num_heads = 1;
    int num_tokens = 0;  // T_b, per head
    int width = 0;       // d_h, a multiple of 8, at most 256
    int top_k = 1;       // at most 32

    [[nodiscard]] constexpr int64_t num_subtokens() const {
        return int64_t(num_heads) * num_tokens;
    }
};

void combine_forward(const CombineShape& shape, const __nv_bfloat16* y, const float* gate,
                     const int32_t* token_row, __nv_bfloat16* y_token, cudaStream_t stream);

/// The router's part of dx. `weights` null leaves it out.
struct RouterTerm {
    const float* weights = nullptr;    // R [H, E, d]
    int num_experts = 1;               // E
    const int32_t* index = nullptr;    // [S, k]
    const float* gate = nullptr;       // [S, k]
    const float* dgate_row = nullptr;  // [P], by row
    float* mean_dgate = nullptr;  // [S], written: mean[s] above, for the gradient of R; may be null
};

/// `dx_row` null leaves the experts' part out (the router's gradient alone).
void combine_backward(const CombineShape& shape, const __nv_bfloat16* dx_row,
                      const int32_t* token_row, const RouterTerm& router, __nv_bfloat16* dx_token,
                      cudaStream_t stream);

}  // namespace headway::kernels
