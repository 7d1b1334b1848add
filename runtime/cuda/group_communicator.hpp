// GroupCommunicator: consecutive ranks of a communicator as a communicator of their own. All groups
// of the parent exchange in the same calls: to ranks outside the group go zero bytes.
#pragma once

#include "runtime/cuda/device_communicator.hpp"

namespace headway::runtime {

class GroupCommunicator final : public DeviceCommunicator {
  public:
    // The ranks [size * (r / size), + size) of the parent, r being the caller's there.
    GroupCommunicator(DeviceCommunicator& parent, int size) : parent_(parent), size_(size) {}

    int rank() const override { return parent_.rank() - first(); }
    int size() const override { return size_; }
    void enter(CallSite site) override { parent_.enter(site); }

    void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes, void* receive,
                      std::span<const std::int64_t> receive_bytes, cudaStream_t stream) override;
    void all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair,
                    cudaStream_t stream) override;
    // Sums over a group are no part of a layer: std::logic_error.
    void all_reduce_sum(float* values, std::int64_t count, cudaStream_t stream) override;
    std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) override;
    // Booked as traffic of the counts' call site, as an all-to-all of the parent.
    void exchange_counts(const std::int32_t* send, std::int32_t* receive,
                         std::int64_t counts_per_pair, cudaStream_t stream) override;

    void meet(cudaStream_t stream) override { parent_.meet(stream); }
    void barrier() override { parent_.barrier(); }
    const TrafficLedger& traffic() const override { return parent_.traffic(); }
    void wait(cudaStream_t stream) override { parent_.wait(stream); }

  private:
    int first() const { return parent_.rank() / size_ * size_; }
    std::vector<std::int64_t> of_parent(std::span<const std::int64_t> own) const;

    DeviceCommunicator& parent_;
    int size_;
};

}  // namespace headway::runtime
