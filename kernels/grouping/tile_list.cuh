// Offsets and tiles of a head's groups, written by one block, and the block-wide sums for them.
#pragma once

#include <cuda_runtime.h>

#include "kernels/grouping/grouping.hpp"

namespace headway::kernels::grouping {

// Two sums at once, below 2^32 each.
struct SumPair {
    unsigned low, high;
    __device__ SumPair operator+(const SumPair& o) const { return {low + o.low, high + o.high}; }
};

struct BlockSums {
    SumPair before, total;  // over the threads below this one; over all
};

/// `warp_sum`: 32 places of shared memory.
__device__ inline BlockSums block_sums(const SumPair& value, SumPair* warp_sum) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    SumPair sum = value;
    for (int step = 1; step < 32; step *= 2) {
        const SumPair below{__shfl_up_sync(~0u, sum.low, step),
                            __shfl_up_sync(~0u, sum.high, step)};
        if (lane >= step) sum = sum + below;
    }
    __syncthreads();  // an earlier call's readers
    if (lane == 31) warp_sum[warp] = sum;
    __syncthreads();
    BlockSums out{{sum.low - value.low, sum.high - value.high}, {0, 0}};
    for (int w = 0; w < int(blockDim.x) / 32; ++w) {
        if (w < warp) out.before = out.before + warp_sum[w];
        out.total = out.total + warp_sum[w];
    }
    return out;
}

__device__ inline unsigned tiles_of(int rows) {
    return unsigned(rows + expert_tile_rows - 1) / expert_tile_rows;
}

/// A head has T_b k rows, so its first row is known; its first tile follows from all heads before.
__device__ inline void write_tiles(const GroupingShape& shape, const int32_t* group_size,
                                   const GroupingOutput& out, SumPair* scratch) {
    const int experts = shape.num_experts, head = blockIdx.y, first_group = head * experts;
    unsigned earlier = 0;
    for (int g = threadIdx.x; g < first_group; g += blockDim.x) earlier += tiles_of(group_size[g]);
    SumPair at{unsigned(head) * unsigned(shape.num_tokens) * unsigned(shape.top_k),
               block_sums({earlier, 0}, scratch).total.low};
    for (int base = 0; base < experts; base += blockDim.x) {
        const int e = base + int(threadIdx.x);
        const int32_t rows = e < experts ? group_size[first_group + e] : 0;
        const BlockSums of_block = block_sums({unsigned(rows), tiles_of(rows)}, scratch);
        if (e < experts) {
            const SumPair begin = at + of_block.before;
            out.expert_offset[first_group + e] = int32_t(begin.low);
            out.tile_offset[first_group + e] = int32_t(begin.high);
        }
        at = at + of_block.total;
    }
    if (threadIdx.x == 0 && head + 1 == shape.num_heads) {
        out.expert_offset[shape.num_groups()] = int32_t(at.low);
        out.tile_offset[shape.num_groups()] = *out.num_tiles = int32_t(at.high);
    }
    __syncthreads();
    for (int e = threadIdx.x / 32; e < experts; e += blockDim.x / 32) {
        const int group = first_group + e, rows = group_size[group];
        const int row_begin = out.expert_offset[group], tile_begin = out.tile_offset[group];
        for (int tile = threadIdx.x % 32; tile * expert_tile_rows < rows; tile += 32) {
            const int begin = tile * expert_tile_rows;
            out.tiles[tile_begin + tile] = {group, row_begin + begin,
                                            min(rows - begin, expert_tile_rows)};
        }
    }
}

}  // namespace headway::kernels::grouping
