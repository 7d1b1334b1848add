// The implementations behind make_attention. attention_cudnn.cpp is compiled where CMake finds
// cuDNN and its frontend, attention_without_cudnn.cpp elsewhere.
#pragma once

#include "kernels/attention/attention.hpp"

namespace headway::kernels {

[[nodiscard]] std::unique_ptr<Attention> make_cublaslt_attention(cublasLtHandle_t handle,
                                                                 const AttentionShape& shape);
[[nodiscard]] std::unique_ptr<Attention> make_cudnn_attention(const AttentionShape& shape);
[[nodiscard]] bool cudnn_available();

}  // namespace headway::kernels
