// Groups the (token, choice) pairs of a routing by expert: a stable counting sort on the device.
// Row p of group g = head * E + e holds sub-token row_token[p]; rows of a group ascend in the
// token, so the order is unique.
//   row(s, j) = offset[g] + #{s' < s of the same head : s' chose e}
// Every head's groups hold exactly T_b * k rows, so heads are independent. Nothing returns to the
// host.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/experts/experts.hpp"

namespace headway::kernels {

/// Tokens counted together: the fused router counts the choices of this many tokens per block.
inline constexpr int tokens_per_count = 256;

struct GroupingShape {
    int num_heads = 1;
    int num_tokens = 0;  // T_b, per head
    int num_experts = 1;
    int top_k = 1;

    [[nodiscard]] constexpr int64_t num_subtokens() const {
        return int64_t(num_heads) * num_tokens;
    }
    [[nodiscard]] constexpr int64_t num_rows() const { return num_subtokens() * top_k; }
    [[nodiscard]] constexpr int num_groups() const { return num_heads * num_experts; }
    [[nodiscard]] constexpr int counts_per_head() const {
        return (num_tokens + tokens_per_count - 1) / tokens_per_count;
    }
    /// Elements of the counts of token blocks [H, counts_per_head, E].
    [[nodiscard]] constexpr int64_t num_block_counts() const {
        return int64_t(num_heads) * counts_per_head() * num_experts;
    }
    /// Elements of the count array: those, then the sizes of the groups, which the grouping writes.
    [[nodiscard]] constexpr int64_t num_counts() const { return num_block_counts() + num_groups(); }
    /// What the tile list must hold at most, whatever the routing.
    [[nodiscard]] constexpr int64_t max_tiles() const {
        return (num_rows() + expert_tile_rows - 1) / expert_tile_rows + num_groups();
    }
};

/// Device pointers, caller-owned.
struct GroupingOutput {
    int32_t* row_token = nullptr;      // [P] sub-token s of each row
    float* row_gate = nullptr;         // [P]
    int32_t* token_row = nullptr;      // [S, k] the inverse: row of choice j of sub-token s
    int32_t* expert_offset = nullptr;  // [G + 1]
    int32_t* tile_offset = nullptr;    // [G + 1] first tile of each group
    TileDescriptor* tiles = nullptr;   // [max_tiles]
    int32_t* num_tiles = nullptr;      // [1]
};

/// Choices of each expert among each block of tokens_per_count tokens: counts [H, counts_per_head,
/// E]. The fused router writes the same array itself.
void count_choices(const GroupingShape& shape, const int32_t* index, int32_t* counts,
                   cudaStream_t stream);

/// `counts`, of num_counts() elements, is turned into exclusive prefixes in place. index [S, k] in
/// [0, E), distinct within a row; gate [S, k]. Asynchronous, capturable, the same bits on every
/// run. Throws std::invalid_argument on a shape outside int32 row ids or 52 E + 2048 k > 160 KiB.
void group_rows(const GroupingShape& shape, const int32_t* index, const float* gate,
                int32_t* counts, const GroupingOutput& out, cudaStream_t stream);

/// The same on the host, by the definition above.
struct HostGrouping {
    std::vector<int32_t> row_token, token_row, expert_offset, tile_offset;
    std::vector<float> row_gate;
    std::vector<TileDescriptor> tiles;
};
HostGrouping group_rows_reference(const GroupingShape& shape, const std::vector<int32_t>& index,
                                  const std::vector<float>& gate);

}  // namespace headway::kernels
