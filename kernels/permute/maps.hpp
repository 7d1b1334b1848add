// Device-built maps for EP: where each (token, choice) goes.
//   place(i) = offset[key(i)] + #{i' < i : key(i') = key(i)}      stable counting sort; key < 0:
//   place = -1
// Rank-dedup: only the first choice of a token that falls on a rank sends a copy there; the copy
// carries a record of all its choices on that rank.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace headway::kernels {

inline constexpr int max_sort_keys = 1024;
inline constexpr int max_regroup_chunks = 4096;

struct KeySortShape {
    std::int64_t num_items = 0;
    int num_keys = 0;  // at most max_sort_keys
};

std::size_t key_sort_workspace_bytes(const KeySortShape& shape);

/// keys [items] -> place [items], offsets [num_keys + 1].
void key_sort(const KeySortShape& shape, const std::int32_t* keys, std::int32_t* place,
              std::int32_t* offsets, void* workspace, cudaStream_t stream);

struct DedupShape {
    std::int64_t num_tokens = 0;
    int top_k = 1;  // at most 32
    int num_ranks = 1;
    int experts_per_rank = 1;
};

/// index [T,k] (expert of the whole layer, < 0: dropped) -> rank_key [T,k]: the destination rank at
/// the first choice on that rank, -1 elsewhere. key_sort of it gives the send place of every copy
/// and the rows per rank.
void dedup_keys(const DedupShape& shape, const std::int32_t* index, std::int32_t* rank_key,
                cudaStream_t stream);

/// Records that travel with the copies: record_expert [copies, k] holds the local expert of each
/// choice on that rank or -1, record_gate [copies, k] its gate. At the receiver they are the keys
/// of a key_sort and the weights of a collect.
void dedup_records(const DedupShape& shape, const std::int32_t* index, const float* gate,
                   const std::int32_t* place, std::int32_t* record_expert, float* record_gate,
                   cudaStream_t stream);

/// counts [ranks, experts] of received rows, source-rank-major -> place [capacity] of each received
/// row in expert-major order (sources ascending within an expert; -1 beyond the last row) and
/// offsets [experts + 1]. ranks * experts is at most max_regroup_chunks.
void regroup_map(int num_ranks, int num_experts, std::int64_t capacity, const std::int32_t* counts,
                 std::int32_t* place, std::int32_t* offsets, cudaStream_t stream);

}  // namespace headway::kernels
