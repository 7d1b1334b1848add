#include "runtime/cuda/group_communicator.hpp"

#include <algorithm>
#include <stdexcept>

namespace headway::runtime {

std::vector<std::int64_t> GroupCommunicator::of_parent(std::span<const std::int64_t> own) const {
    std::vector<std::int64_t> all(static_cast<std::size_t>(parent_.size()), 0);
    std::copy(own.begin(), own.end(), all.begin() + first());
    return all;
}

void GroupCommunicator::all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes,
                                     void* receive, std::span<const std::int64_t> receive_bytes,
                                     cudaStream_t stream) {
    parent_.all_to_all_v(send, of_parent(send_bytes), receive, of_parent(receive_bytes), stream);
}

void GroupCommunicator::all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair,
                                   cudaStream_t stream) {
    const std::vector<std::int64_t> bytes(static_cast<std::size_t>(size_), bytes_per_pair);
    all_to_all_v(send, bytes, receive, bytes, stream);
}

void GroupCommunicator::all_reduce_sum(float*, std::int64_t, cudaStream_t) {
    throw std::logic_error("all_reduce_sum over a group of ranks");
}

std::vector<std::int64_t> GroupCommunicator::all_gather_counts(std::span<const std::int64_t> own) {
    const std::vector<std::int64_t> all = parent_.all_gather_counts(own);
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(own.size()) * first();
    return {begin, begin + static_cast<std::ptrdiff_t>(own.size()) * size_};
}

void GroupCommunicator::exchange_counts(const std::int32_t* send, std::int32_t* receive,
                                        std::int64_t counts_per_pair, cudaStream_t stream) {
    const auto bytes = counts_per_pair * static_cast<std::int64_t>(sizeof(std::int32_t));
    all_to_all(send, receive, bytes, stream);
}

}  // namespace headway::runtime
