#include "kernels/attention/attention.hpp"

#include <stdexcept>

#include "kernels/attention/implementations.hpp"

namespace headway::kernels {

bool attention_available(AttentionImpl impl) {
    return impl == AttentionImpl::cublaslt || cudnn_available();
}

std::unique_ptr<Attention> make_attention(AttentionImpl impl, cublasLtHandle_t handle,
                                          const AttentionShape& s) {
    if (s.num_sequences <= 0 || s.sequence_length <= 0 || s.num_heads <= 0 || s.head_dim <= 0 ||
        s.head_dim % 8 != 0 || s.num_kv_heads < 0 || s.num_heads % s.kv_heads() != 0)
        throw std::invalid_argument(
            "attention: sequences, length and heads must be positive, the head width a multiple "
            "of 8, the heads one of those of keys and values");
    return impl == AttentionImpl::cudnn ? make_cudnn_attention(s)
                                        : make_cublaslt_attention(handle, s);
}

}  // namespace headway::kernels
