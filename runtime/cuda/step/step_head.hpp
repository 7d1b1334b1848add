// Head and loss of a step on a GPU, in chunks of tokens, so that the logits of one chunk are held:
// of every chunk first logits and loss, then their gradients.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <optional>

#include "kernels/dense/dense_gemm.hpp"
#include "runtime/cuda/phase_clock.hpp"

namespace headway::runtime {

struct HeadShape {
    std::int64_t tokens = 0;
    int width = 0, vocabulary = 0;
    float scale = 1.0f;  // of the loss of a token: one over all tokens of a step
};

struct HeadCall {
    const __nv_bfloat16* x = nullptr;       // [T, d], normed
    const __nv_bfloat16* weight = nullptr;  // [V, d]
    const std::int32_t* target = nullptr;
    float* loss = nullptr;        // of all tokens here
    __nv_bfloat16* dx = nullptr;  // may be x
    float* dweight = nullptr;
    bool accumulate = false;  // dweight is added to
};

class StepHead {
  public:
    StepHead(DeviceContext& context, const HeadShape& shape);

    void run(const HeadCall& call);

  private:
    using bf16 = __nv_bfloat16;
    // Products of a chunk.
    struct Plans {
        std::int64_t rows;
        kernels::DenseGemm logits, dgrad, wgrad;
    };
    Plans plans_of(std::int64_t rows) const;
    std::size_t workspace_bytes() const;
    void run_chunk(const Plans& plans, const HeadCall& call, std::int64_t begin, bf16* logits,
                   float* log_sum, float* losses, void* workspace);

    DeviceContext& context_;
    HeadShape shape_;
    Plans chunk_;
    std::optional<Plans> rest_;  // of the last, shorter chunk
};

}  // namespace headway::runtime
