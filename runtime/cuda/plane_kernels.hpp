// Planes from one layout to another on a device: what NCCL's exchange of one block a rank needs
// before or behind it.
#pragma once

#include <cuda_runtime.h>

#include "runtime/cuda/device_communicator.hpp"

namespace headway::runtime {

// Strides and plane_bytes are multiples of 16.
void move_planes(const void* send, PlaneStrides from, void* receive, PlaneStrides to, int num_ranks,
                 int num_planes, std::int64_t plane_bytes, cudaStream_t stream);

}  // namespace headway::runtime
