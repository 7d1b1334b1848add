// Device operations of a step around its blocks: embedding, and the loss of rows of logits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace headway::runtime {

struct RowTable {
    std::int64_t rows = 0;  // tokens
    int width = 0;          // a multiple of 8
};

// out[t] = table[token[t]]
void embed_rows(const RowTable& shape, const std::int32_t* token, const __nv_bfloat16* table,
                __nv_bfloat16* out, cudaStream_t stream);

// Rows of one token, together: run i of them is order[begin[i]] .. order[begin[i + 1] - 1], of
// token token[order[begin[i]]]. The last of them may be empty.
struct TokenRuns {
    int most_runs = 0;
    const std::int32_t *order = nullptr, *begin = nullptr;
};
// gradient[v] += sum of dy[t] over the rows of token v, in their order; tokens without rows are
// left alone.
void embed_gradient(const RowTable& shape, const TokenRuns& runs, const std::int32_t* token,
                    const __nv_bfloat16* dy, float* gradient, cudaStream_t stream);

struct LogitRows {
    std::int64_t rows = 0;
    int vocabulary = 0;  // a multiple of 8
    float scale = 1.0f;  // of losses and gradients
};

// log_sum[t] = ln sum_v exp z[t, v]; loss[t] = scale (log_sum[t] - z[t, target[t]])
void loss_forward(const LogitRows& shape, const __nv_bfloat16* logits, const std::int32_t* target,
                  float* log_sum, float* loss, cudaStream_t stream);
// In place: scale (exp(z - log_sum) - [v = target])
void loss_backward(const LogitRows& shape, __nv_bfloat16* logits, const std::int32_t* target,
                   const float* log_sum, cudaStream_t stream);

// *sum = values[0] + ..., in a fixed order.
void sum_values(const float* values, std::int64_t count, float* sum, cudaStream_t stream);

}  // namespace headway::runtime
