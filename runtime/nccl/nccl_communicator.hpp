// NcclCommunicator: the collectives of a rank over NCCL. HP's exchange is one ncclAlltoAll; EP's
// ragged one and that of planes, for which NCCL has no call, are grouped sends and receives, with
// the own block copied on a stream beside: through NCCL it would occupy the channels that the
// network needs, before it it would delay them. NCCL never blocks the host here: calls are polled
// beside the side channel, so that the failure of any rank ends the wait, and the communicator is
// aborted then.
#pragma once

#include <nccl.h>

#include <memory>
#include <optional>
#include <thread>

#include "models/vocab/units.hpp"
#include "runtime/cuda/device_communicator.hpp"
#include "runtime/cuda/own_stream.hpp"
#include "runtime/process/side_channel.hpp"

namespace headway::runtime {

class DirectPlanes;

struct NcclOptions {
    int max_ctas = 0;  // thread blocks that NCCL may use; 0: its own choice
};

class NcclCommunicator final : public DeviceCommunicator {
  public:
    // Collective. The device must have been set; `channel` must outlive this.
    explicit NcclCommunicator(SideChannel& channel, NcclOptions options = {});
    ~NcclCommunicator() override;
    NcclCommunicator(const NcclCommunicator&) = delete;
    NcclCommunicator& operator=(const NcclCommunicator&) = delete;

    int rank() const override { return channel_.rank(); }
    int size() const override { return channel_.size(); }
    void enter(CallSite site) override;

    void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes, void* receive,
                      std::span<const std::int64_t> receive_bytes, cudaStream_t stream) override;
    void all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair,
                    cudaStream_t stream) override;
    bool stores_directly() const override { return direct_ != nullptr; }
    void store_planes(const void* send, PlaneStrides from, void* receive, PlaneStrides to,
                      int num_planes, std::int64_t plane_bytes, cudaStream_t stream) override;
    void all_reduce_sum(float* values, std::int64_t count, cudaStream_t stream) override;
    std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) override;
    void exchange_counts(const std::int32_t* send, std::int32_t* receive,
                         std::int64_t counts_per_pair, cudaStream_t stream) override;
    void meet(cudaStream_t stream) override;
    void barrier() override { channel_.barrier(); }
    const TrafficLedger& traffic() const override { return ledger_; }
    void wait(cudaStream_t stream) override;

    // While it lives, NCCL may use the memory without copies where the path allows it (NVLink,
    // network cards with access to device memory); of no effect on others. It must end before the
    // memory does, and before the communicator.
    class Registration {
      public:
        Registration(NcclCommunicator& communicator, void* base, std::size_t bytes);
        Registration(const Registration&) = delete;
        Registration& operator=(const Registration&) = delete;
        ~Registration();

      private:
        NcclCommunicator& communicator_;
        void* handle_ = nullptr;
        int num_exceptions_;
    };

    // While it lives, ranks store into each other's `base`, memory of `bytes` from
    // symmetric_allocator(), as large on all ranks. Collective. InputError where NCCL does not map
    // all ranks' memory into each other (another node, no NVLink, ranks that share a GPU).
    class DirectMemory {
      public:
        DirectMemory(NcclCommunicator& communicator, void* base, std::size_t bytes);
        DirectMemory(const DirectMemory&) = delete;
        DirectMemory& operator=(const DirectMemory&) = delete;
        ~DirectMemory();

      private:
        NcclCommunicator& communicator_;
        std::unique_ptr<DirectPlanes> planes_;
        int num_exceptions_;
    };

  private:
    // Runs `wait`; if it throws, aborts NCCL first: its kernels would hold up every cudaFree on
    // the way out. Beside the way out, as NCCL waits for the graphs that it was captured in.
    template <class Wait>
    void or_abort(Wait&& wait);
    // Copies the own block beside what `exchange` enqueues on the stream; both are done for what
    // follows there.
    template <class Copy, class Exchange>
    void beside(cudaStream_t stream, Copy&& copy, Exchange&& exchange);
    void settle(ncclResult_t result, const char* call);  // polls until NCCL has taken the call
    void poll();                                         // throws if NCCL or a rank has failed
    [[noreturn]] void fail(ncclResult_t result, const char* call);
    void book(int destination, std::int64_t bytes);

    SideChannel& channel_;
    ncclComm_t comm_ = nullptr;
    std::jthread aborting_;
    int num_exceptions_;
    OwnStream copies_;
    OwnEvent forked_, joined_;
    float* token_ = nullptr;          // what meet() sums
    DirectPlanes* direct_ = nullptr;  // of the DirectMemory that lives
    std::optional<CallSite> site_;
    TrafficLedger ledger_;
};

// NCCL's own estimate of the time of a call, as it is made for this rank (ncclGroupSimulateEnd): a
// baseline of the accuracy table. Nothing is sent. It needs a blocking communicator, made for it:
// NCCL ignores the question on others.
class NcclEstimator {
  public:
    explicit NcclEstimator(SideChannel& channel);  // collective
    ~NcclEstimator();
    NcclEstimator(const NcclEstimator&) = delete;
    NcclEstimator& operator=(const NcclEstimator&) = delete;

    // Buffers of device memory; their contents do not matter. None where NCCL gives no estimate,
    // which 2.28 does for collectives only, not for sends and receives.
    std::optional<Seconds> all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes,
                                        void* receive, std::span<const std::int64_t> receive_bytes,
                                        cudaStream_t stream);
    std::optional<Seconds> all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair,
                                      cudaStream_t stream);
    std::optional<Seconds> all_reduce_sum(float* values, std::int64_t count, cudaStream_t stream);

  private:
    template <class Call>
    std::optional<Seconds> estimate(Call&& call);

    SideChannel& channel_;
    ncclComm_t comm_ = nullptr;
};

std::string nccl_version();  // of the library that is loaded

}  // namespace headway::runtime
