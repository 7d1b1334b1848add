// The DeviceCommunicator of a rank that is alone: every exchange is a copy on the device.
#pragma once

#include <optional>

#include "runtime/cuda/device_communicator.hpp"

namespace headway::runtime {

class LocalDeviceCommunicator final : public DeviceCommunicator {
  public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    void enter(CallSite site) override { site_ = site; }

    void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes, void* receive,
                      std::span<const std::int64_t> receive_bytes, cudaStream_t stream) override;
    void all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair,
                    cudaStream_t stream) override;
    void all_reduce_sum(float*, std::int64_t, cudaStream_t) override {}
    std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) override {
        return {own.begin(), own.end()};
    }
    void exchange_counts(const std::int32_t* send, std::int32_t* receive,
                         std::int64_t counts_per_pair, cudaStream_t stream) override;

    void meet(cudaStream_t) override {}
    void barrier() override {}
    const TrafficLedger& traffic() const override { return ledger_; }
    void wait(cudaStream_t stream) override;

  private:
    void book(std::int64_t bytes);

    std::optional<CallSite> site_;
    TrafficLedger ledger_;
};

}  // namespace headway::runtime
