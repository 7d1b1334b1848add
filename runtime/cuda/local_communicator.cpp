#include "runtime/cuda/local_communicator.hpp"

#include <cassert>

#include "kernels/check.hpp"

namespace headway::runtime {

void LocalDeviceCommunicator::book(std::int64_t bytes) {
    assert(site_.has_value());
    std::vector<std::int64_t>& sent = ledger_[*site_];
    sent.resize(1);
    sent[0] += bytes;
}

void LocalDeviceCommunicator::all_to_all_v(const void* send,
                                           std::span<const std::int64_t> send_bytes, void* receive,
                                           std::span<const std::int64_t> receive_bytes,
                                           cudaStream_t stream) {
    assert(send_bytes.size() == 1 && receive_bytes.size() == 1);
    assert(send_bytes[0] == receive_bytes[0]);
    all_to_all(send, receive, send_bytes[0], stream);
}

void LocalDeviceCommunicator::all_to_all(const void* send, void* receive,
                                         std::int64_t bytes_per_pair, cudaStream_t stream) {
    book(bytes_per_pair);
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(receive, send, static_cast<std::size_t>(bytes_per_pair),
                                       cudaMemcpyDeviceToDevice, stream));
}

void LocalDeviceCommunicator::exchange_counts(const std::int32_t* send, std::int32_t* receive,
                                              std::int64_t counts_per_pair, cudaStream_t stream) {
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(receive, send,
                                       static_cast<std::size_t>(counts_per_pair) * sizeof(*send),
                                       cudaMemcpyDeviceToDevice, stream));
}

void LocalDeviceCommunicator::wait(cudaStream_t stream) {
    HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
}

}  // namespace headway::runtime
