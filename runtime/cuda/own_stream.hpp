// OwnStream: a CUDA stream beside the default one, for as long as this lives.
#pragma once

#include <cuda_runtime.h>

#include "kernels/check.hpp"

namespace headway::runtime {

struct OwnStream {
    OwnStream() { HEADWAY_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)); }
    ~OwnStream() { cudaStreamDestroy(stream); }
    OwnStream(const OwnStream&) = delete;
    OwnStream& operator=(const OwnStream&) = delete;
    cudaStream_t stream = nullptr;
};

}  // namespace headway::runtime
