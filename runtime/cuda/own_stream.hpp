// OwnStream: a CUDA stream beside the default one, and OwnEvent: an event without a time, for as
// long as they live.
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

struct OwnEvent {
    OwnEvent() { HEADWAY_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)); }
    ~OwnEvent() { cudaEventDestroy(event); }
    OwnEvent(const OwnEvent&) = delete;
    OwnEvent& operator=(const OwnEvent&) = delete;
    cudaEvent_t event = nullptr;
};

}  // namespace headway::runtime
