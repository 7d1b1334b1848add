// A rank's planes to itself, in an all-to-all of planes.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/check.hpp"
#include "runtime/cuda/device_communicator.hpp"

namespace headway::runtime {

inline void copy_planes(const void* send, PlaneStrides from, void* receive, PlaneStrides to,
                        int rank, int num_planes, std::int64_t plane_bytes, cudaStream_t stream) {
    HEADWAY_CUDA_CHECK(cudaMemcpy2DAsync(
        static_cast<std::byte*>(receive) + rank * to.rank, static_cast<std::size_t>(to.plane),
        static_cast<const std::byte*>(send) + rank * from.rank,
        static_cast<std::size_t>(from.plane), static_cast<std::size_t>(plane_bytes),
        static_cast<std::size_t>(num_planes), cudaMemcpyDeviceToDevice, stream));
}

}  // namespace headway::runtime
