// The two row kernels between the products of the cuBLASLt attention, for all heads of one
// sequence. Score rows have a stride of `stride` >= L elements, a multiple of 8.
//   forward   P[h,i,j] = exp(S - m) / sum for j <= i, 0 beyond; log_sum[h,i] = m + ln sum
//   backward  P = exp(S - log_sum), dS = scale P (dP - <dO_i, O_i>), both 0 for j > i
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace headway::kernels {

struct SoftmaxShape {
    int num_heads = 1;
    int length = 0;      // L
    int stride = 0;      // of score rows
    int head_dim = 64;   // of the rows of O and dO
    float scale = 1.0f;  // of the scores, applied to dS (S comes scaled)
};

void causal_softmax(const SoftmaxShape& shape, const float* scores, __nv_bfloat16* p,
                    float* log_sum, cudaStream_t stream);
/// o and d_o are [L, H, d_a].
void causal_softmax_backward(const SoftmaxShape& shape, const float* scores, const float* dp,
                             const float* log_sum, const __nv_bfloat16* o, const __nv_bfloat16* d_o,
                             __nv_bfloat16* p, __nv_bfloat16* ds, cudaStream_t stream);

}  // namespace headway::kernels
