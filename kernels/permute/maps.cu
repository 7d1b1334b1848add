// Stable counting sort in three launches: histogram per block of items, one exclusive scan over
// (key, block), and placement: within a block, warps own consecutive items, and match_any gives the
// order among equal keys.
#include "kernels/permute/maps.hpp"

#include <algorithm>
#include <cub/block/block_scan.cuh>
#include <cub/device/device_scan.cuh>
#include <stdexcept>

#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kItems = 2048,
              kItemsPerWarp = kItems / kWarps;

std::int64_t num_blocks(std::int64_t items) {
    return (items + kItems - 1) / kItems;
}

std::size_t align256(std::size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

std::size_t scan_bytes(std::int64_t count) {
    std::size_t bytes = 0;
    HEADWAY_CUDA_CHECK(cub::DeviceScan::ExclusiveSum(nullptr, bytes,
                                                     static_cast<std::int32_t*>(nullptr),
                                                     static_cast<std::int32_t*>(nullptr), count));
    return bytes;
}

__global__ void __launch_bounds__(kThreads)
    histogram_kernel(KeySortShape s, const std::int32_t* keys, std::int32_t* counts) {
    extern __shared__ std::int32_t histogram[];
    for (int key = threadIdx.x; key < s.num_keys; key += kThreads) histogram[key] = 0;
    __syncthreads();
    const std::int64_t first = std::int64_t{blockIdx.x} * kItems;
#pragma unroll
    for (int i = 0; i < kItems / kThreads; ++i) {
        const std::int64_t item = first + i * kThreads + threadIdx.x;
        const int key = item < s.num_items ? keys[item] : -1;
        if (key >= 0) atomicAdd(&histogram[key], 1);
    }
    __syncthreads();
    for (int key = threadIdx.x; key < s.num_keys; key += kThreads)
        counts[std::int64_t{key} * gridDim.x + blockIdx.x] = histogram[key];
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[std::int64_t{s.num_keys} * gridDim.x] = 0;
}

__global__ void __launch_bounds__(kThreads)
    place_kernel(KeySortShape s, const std::int32_t* keys, const std::int32_t* scanned,
                 std::int32_t* place, std::int32_t* offsets) {
    extern __shared__ std::int32_t next[];  // [warp][key]
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = threadIdx.x; i < kWarps * s.num_keys; i += kThreads) next[i] = 0;
    if (blockIdx.x == 0)
        for (int key = threadIdx.x; key <= s.num_keys; key += kThreads)
            offsets[key] = scanned[std::int64_t{key} * gridDim.x];
    __syncthreads();
    const std::int64_t first = std::int64_t{blockIdx.x} * kItems + warp * kItemsPerWarp + lane;
    int key[kItemsPerWarp / 32];
#pragma unroll
    for (int i = 0; i < kItemsPerWarp / 32; ++i) {
        key[i] = first + 32 * i < s.num_items ? keys[first + 32 * i] : -1;
        if (key[i] >= 0) atomicAdd(&next[warp * s.num_keys + key[i]], 1);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < s.num_keys; k += kThreads) {
        int sum = scanned[std::int64_t{k} * gridDim.x + blockIdx.x];
        for (int w = 0; w < kWarps; ++w) {
            const int count = next[w * s.num_keys + k];
            next[w * s.num_keys + k] = sum;
            sum += count;
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kItemsPerWarp / 32; ++i) {
        const unsigned equal = __match_any_sync(~0u, key[i]);
        const int before = __popc(equal & ((1u << lane) - 1));
        int base = 0;
        if (key[i] >= 0) base = next[warp * s.num_keys + key[i]];
        __syncwarp();
        if (key[i] >= 0 && before == 0) next[warp * s.num_keys + key[i]] = base + __popc(equal);
        __syncwarp();
        if (first + 32 * i < s.num_items) place[first + 32 * i] = key[i] >= 0 ? base + before : -1;
    }
}

__global__ void dedup_keys_kernel(DedupShape s, const std::int32_t* index, std::int32_t* rank_key) {
    const std::int64_t pair = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (pair >= s.num_tokens * s.top_k) return;
    const int choice = static_cast<int>(pair % s.top_k);
    const std::int32_t* chosen = index + (pair - choice);
    const int expert = chosen[choice];
    int rank = expert < 0 ? -1 : expert / s.experts_per_rank;
    for (int j = 0; j < choice; ++j)
        if (chosen[j] >= 0 && chosen[j] / s.experts_per_rank == rank) rank = -1;
    rank_key[pair] = rank;
}

__global__ void dedup_records_kernel(DedupShape s, const std::int32_t* index, const float* gate,
                                     const std::int32_t* place, std::int32_t* record_expert,
                                     float* record_gate) {
    const std::int64_t pair = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (pair >= s.num_tokens * s.top_k || place[pair] < 0) return;
    const std::int64_t token = pair / s.top_k, copy = place[pair];
    const int rank = index[pair] / s.experts_per_rank;
    for (int j = 0; j < s.top_k; ++j) {
        const int expert = index[token * s.top_k + j];
        const bool here = expert >= 0 && expert / s.experts_per_rank == rank;
        record_expert[copy * s.top_k + j] = here ? expert - rank * s.experts_per_rank : -1;
        record_gate[copy * s.top_k + j] = here ? gate[token * s.top_k + j] : 0.0f;
    }
}

// Exclusive sums of `count` values into sums[0..count]; value(i) gives the i-th.
template <typename Value>
__device__ void block_prefix(std::int32_t* sums, int count, Value value) {
    using Scan = cub::BlockScan<int, kThreads>;
    __shared__ typename Scan::TempStorage storage;
    int carry = 0;
    for (int first = 0; first < count; first += kThreads) {
        const int i = first + threadIdx.x;
        const int x = i < count ? value(i) : 0;
        int before = 0, total = 0;
        Scan(storage).ExclusiveSum(x, before, total);
        if (i < count) sums[i] = carry + before;
        carry += total;
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[count] = carry;
    __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    regroup_kernel(int num_ranks, int num_experts, std::int64_t capacity,
                   const std::int32_t* counts, std::int32_t* place, std::int32_t* offsets) {
    __shared__ std::int32_t by_source[max_regroup_chunks + 1], by_expert[max_regroup_chunks + 1];
    const int chunks = num_ranks * num_experts;
    block_prefix(by_source, chunks, [&](int i) { return counts[i]; });
    block_prefix(by_expert, chunks,
                 [&](int i) { return counts[i % num_ranks * num_experts + i / num_ranks]; });
    if (blockIdx.x == 0)
        for (int e = threadIdx.x; e <= num_experts; e += kThreads)
            offsets[e] = by_expert[e * num_ranks];
    const std::int64_t first = std::int64_t{blockIdx.x} * kItems;
    for (int i = threadIdx.x; i < kItems; i += kThreads) {
        const std::int64_t row = first + i;
        if (row >= capacity) break;
        if (row >= by_source[chunks]) {
            place[row] = -1;
            continue;
        }
        int low = 0, high = chunks;  // last chunk that begins at or before the row and is not empty
        while (high - low > 1) {
            const int mid = (low + high) / 2;
            if (by_source[mid] <= row)
                low = mid;
            else
                high = mid;
        }
        const int source = low / num_experts, expert = low % num_experts;
        place[row] =
            by_expert[expert * num_ranks + source] + static_cast<int>(row - by_source[low]);
    }
}

}  // namespace

std::size_t key_sort_workspace_bytes(const KeySortShape& s) {
    const std::int64_t counts = num_blocks(s.num_items) * s.num_keys + 1;
    return align256(counts * sizeof(std::int32_t)) + scan_bytes(counts);
}

void key_sort(const KeySortShape& s, const std::int32_t* keys, std::int32_t* place,
              std::int32_t* offsets, void* workspace, cudaStream_t stream) {
    if (s.num_keys < 1 || s.num_keys > max_sort_keys)
        throw std::invalid_argument("key_sort: 1 to 1024 keys");
    if (s.num_items == 0) {
        HEADWAY_CUDA_CHECK(
            cudaMemsetAsync(offsets, 0, (s.num_keys + 1) * sizeof(*offsets), stream));
        return;
    }
    const std::int64_t blocks = num_blocks(s.num_items), num_counts = blocks * s.num_keys + 1;
    auto* counts = static_cast<std::int32_t*>(workspace);
    const std::size_t counts_bytes = align256(num_counts * sizeof(std::int32_t));
    auto* scan_space = static_cast<char*>(workspace) + counts_bytes;
    std::size_t scan_size = scan_bytes(num_counts);
    const auto grid = static_cast<unsigned>(blocks);
    histogram_kernel<<<grid, kThreads, s.num_keys * sizeof(std::int32_t), stream>>>(s, keys,
                                                                                    counts);
    check_launch();
    HEADWAY_CUDA_CHECK(
        cub::DeviceScan::ExclusiveSum(scan_space, scan_size, counts, counts, num_counts, stream));
    place_kernel<<<grid, kThreads, kWarps * s.num_keys * sizeof(std::int32_t), stream>>>(
        s, keys, counts, place, offsets);
    check_launch();
}

void dedup_keys(const DedupShape& s, const std::int32_t* index, std::int32_t* rank_key,
                cudaStream_t stream) {
    if (s.num_tokens == 0) return;
    const auto grid = static_cast<unsigned>((s.num_tokens * s.top_k + kThreads - 1) / kThreads);
    dedup_keys_kernel<<<grid, kThreads, 0, stream>>>(s, index, rank_key);
    check_launch();
}

void dedup_records(const DedupShape& s, const std::int32_t* index, const float* gate,
                   const std::int32_t* place, std::int32_t* record_expert, float* record_gate,
                   cudaStream_t stream) {
    if (s.num_tokens == 0) return;
    const auto grid = static_cast<unsigned>((s.num_tokens * s.top_k + kThreads - 1) / kThreads);
    dedup_records_kernel<<<grid, kThreads, 0, stream>>>(s, index, gate, place, record_expert,
                                                        record_gate);
    check_launch();
}

void regroup_map(int num_ranks, int num_experts, std::int64_t capacity, const std::int32_t* counts,
                 std::int32_t* place, std::int32_t* offsets, cudaStream_t stream) {
    if (num_ranks < 1 || num_experts < 1 || num_ranks * num_experts > max_regroup_chunks)
        throw std::invalid_argument("regroup_map: ranks * local experts must be 1 to 4096");
    const auto grid = static_cast<unsigned>(std::max<std::int64_t>(1, num_blocks(capacity)));
    regroup_kernel<<<grid, kThreads, 0, stream>>>(num_ranks, num_experts, capacity, counts, place,
                                                  offsets);
    check_launch();
}

}  // namespace headway::kernels
