// Stands in for attention_cudnn.cpp in builds without cuDNN's frontend.
#include <stdexcept>

#include "kernels/attention/implementations.hpp"

namespace headway::kernels {

bool cudnn_available() {
    return false;
}

std::unique_ptr<Attention> make_cudnn_attention(const AttentionShape&) {
    throw std::runtime_error("attention: this build has no cuDNN frontend");
}

}  // namespace headway::kernels
