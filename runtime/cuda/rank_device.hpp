// RankDevice: the GPU of one rank: its stream, its cuBLASLt handle and its arena.
#pragma once

#include "runtime/cuda/phase_clock.hpp"

namespace headway::runtime {

class RankDevice {
  public:
    // `arena_bytes` 0: nine tenths of what is free, shared by `ranks_on_device`.
    RankDevice(int device, int ranks_on_device, std::size_t arena_bytes = 0,
               DeviceAllocator allocator = plain_allocator());
    RankDevice(const RankDevice&) = delete;
    RankDevice& operator=(const RankDevice&) = delete;
    ~RankDevice();

    DeviceContext context(DeviceCommunicator& communicator) {
        return {.communicator = communicator, .arena = arena_, .stream = stream_, .blas = blas_};
    }
    cudaStream_t stream() const { return stream_; }

  private:
    DeviceArena arena_;
    cudaStream_t stream_ = nullptr;
    cublasLtHandle_t blas_ = nullptr;
};

}  // namespace headway::runtime
