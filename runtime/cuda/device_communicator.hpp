// DeviceCommunicator: the collectives of the EP and HP layers on device memory, as one rank sees
// them. Work is enqueued on the caller's stream; blocks lie one after the other in rank order.
// Payload bytes are booked on the call site that the rank said it is in, as in Communicator, so
// that the traffic of a run on GPUs is compared with the Workload's matrix byte for byte.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "runtime/communicator.hpp"

namespace headway::runtime {

// Where the planes of an all-to-all lie: plane i for (or from) rank r begins r * rank + i * plane
// bytes behind the base.
struct PlaneStrides {
    std::int64_t rank = 0, plane = 0;

    friend bool operator==(const PlaneStrides&, const PlaneStrides&) = default;
};

class DeviceCommunicator {
  public:
    virtual ~DeviceCommunicator() = default;

    virtual int rank() const = 0;
    virtual int size() const = 0;

    // What this rank does from here on: bytes are booked on it, and a failure names it.
    virtual void enter(CallSite site) = 0;

    // Sizes in bytes, [size()]. receive_bytes[s] must equal what rank s sends here.
    virtual void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes,
                              void* receive, std::span<const std::int64_t> receive_bytes,
                              cudaStream_t stream) = 0;
    virtual void all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair,
                            cudaStream_t stream) = 0;
    // Whether a rank can store into its peers' memory; where it can, store_planes is an all-to-all
    // of `num_planes` planes of `plane_bytes` (a multiple of 16) for every rank, each read and
    // written where its layout says. `receive` is in the arena, at the same place on all ranks.
    virtual bool stores_directly() const { return false; }
    virtual void store_planes(const void* /*send*/, PlaneStrides /*from*/, void* /*receive*/,
                              PlaneStrides /*to*/, int /*num_planes*/, std::int64_t /*plane_bytes*/,
                              cudaStream_t) {
        throw std::logic_error("this rank cannot store into its peers' memory");
    }
    virtual void all_reduce_sum(float* values, std::int64_t count, cudaStream_t stream) = 0;

    // On the host, and waits: every rank's counts in rank order. [size() * own.size()]
    virtual std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) = 0;
    // EP's metadata: `counts_per_pair` counts to every rank, in device memory. Not booked as
    // traffic.
    virtual void exchange_counts(const std::int32_t* send, std::int32_t* receive,
                                 std::int64_t counts_per_pair, cudaStream_t stream) = 0;

    // On the stream: no rank's stream goes on before all ranks' streams have come here. Not booked.
    virtual void meet(cudaStream_t stream) = 0;
    // Among the hosts, after the caller has synchronised its stream.
    virtual void barrier() = 0;
    // Bytes sent since the start.
    virtual const TrafficLedger& traffic() const = 0;
    // Waits for the stream under the run's deadline; throws RankFailure when it passes.
    virtual void wait(cudaStream_t stream) = 0;
};

}  // namespace headway::runtime
