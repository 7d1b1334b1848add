// DirectPlanes: an all-to-all of planes by stores into the peers' memory, through NCCL's device API
// over a symmetric window (NCCL 2.28 or later). A barrier of all ranks at both ends of the kernel:
// nobody stores before the receiver's stream has come to the exchange, nobody leaves before all has
// arrived. It takes no host and can be captured in a graph.
#pragma once

#include <nccl.h>

#include <functional>
#include <memory>

#include "runtime/cuda/device_arena.hpp"
#include "runtime/cuda/device_communicator.hpp"

namespace headway::runtime {

class DirectPlanes {
  public:
    using Check = std::function<void(ncclResult_t, const char* call)>;  // throws but for success

    // How many ranks of the communicator can store into each other's memory.
    static int ranks_reached(ncclComm_t comm);

    // Collective. Takes the communicator, which must be a blocking one.
    DirectPlanes(ncclComm_t comm, void* base, std::size_t bytes, int rank, int num_ranks,
                 const Check& check);
    DirectPlanes(const DirectPlanes&) = delete;
    DirectPlanes& operator=(const DirectPlanes&) = delete;
    ~DirectPlanes();

    void exchange(const void* send, PlaneStrides from, void* receive, PlaneStrides to,
                  int num_planes, std::int64_t plane_bytes, cudaStream_t stream) const;
    void abandon();  // a rank has failed: aborts instead of waiting for it

  private:
    struct Handles;

    std::unique_ptr<Handles> handles_;
    std::byte* base_ = nullptr;
    std::size_t bytes_ = 0;
    int rank_ = 0, num_ranks_ = 1;
};

// Memory that a window can be made of.
DeviceAllocator symmetric_allocator();

}  // namespace headway::runtime
