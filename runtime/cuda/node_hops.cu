#include "kernels/check.hpp"
#include "runtime/cuda/node_hops.hpp"

namespace headway::runtime {
namespace {

constexpr int kThreads = 256;

template <typename Kernel, typename... Args>
void launch(std::int64_t count, cudaStream_t stream, Kernel kernel, Args... args) {
    if (count == 0) return;
    const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
    kernel<<<blocks, kThreads, 0, stream>>>(count, args...);
    kernels::check_launch();
}

__global__ void first_hops_kernel(std::int64_t count, NodeHops h, const std::int32_t* index,
                                  std::int32_t* hop_index) {
    const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (i >= count) return;
    const int expert = index[i], home = expert / h.experts_per_rank;
    const int node = home / h.ranks_per_node, own = h.rank / h.ranks_per_node;
    const int peer = node == own ? home : node * h.ranks_per_node + h.rank % h.ranks_per_node;
    const int per_node = h.ranks_per_node * h.experts_per_rank;
    hop_index[i] = peer * per_node + expert % per_node;
}

__global__ void second_hops_kernel(std::int64_t count, int first_expert, std::int32_t* records) {
    const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (i < count && records[i] >= 0) records[i] = -2 - (records[i] - first_expert);
}

__global__ void stay_keys_kernel(std::int64_t count, const std::int32_t* records,
                                 std::int32_t* keys) {
    const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (i < count) keys[i] = records[i] <= -2 ? -2 - records[i] : -1;
}

}  // namespace

void first_hops(const NodeHops& hops, std::int64_t count, const std::int32_t* index,
                std::int32_t* hop_index, cudaStream_t stream) {
    launch(count, stream, first_hops_kernel, hops, index, hop_index);
}

// Those from other nodes are by rank and expert as they came.
void second_hops(const NodeHops& hops, std::array<std::int64_t, 2> own, std::int32_t* records,
                 cudaStream_t stream) {
    const int first_expert = hops.rank % hops.ranks_per_node * hops.experts_per_rank;
    launch(own[1] - own[0], stream, second_hops_kernel, first_expert, records + own[0]);
}

void stay_keys(std::int64_t count, const std::int32_t* records, std::int32_t* keys,
               cudaStream_t stream) {
    launch(count, stream, stay_keys_kernel, records, keys);
}

}  // namespace headway::runtime
