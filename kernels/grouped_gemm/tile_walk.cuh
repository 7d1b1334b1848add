// Maps a running tile number to (expert, tile row, tile column) from device-side offsets. One warp
// looks at 32 experts at a time: a prefix sum of their tile counts, then a ballot. Columns run
// fastest, so that blocks working at the same time share rows of A and one expert's W in the L2.
#pragma once

#include "kernels/grouped_gemm/grouped_gemm.hpp"

namespace headway::kernels {

struct GroupTile {
    int group, m_tile, n_tile;
    int row_begin, num_rows;  // of the whole group
};

struct TileWalk {
    const int* offsets;  // null: equal slices of slice_rows of all num_rows
    int num_rows, slice_rows;
    int num_groups;
    int rows_per_tile;  // 0: every group has fixed_m_tiles, whatever its rows
    int fixed_m_tiles;
    int num_n_tiles;
    int window = -32, window_first = 0, window_tiles = 0;  // 32 groups under view
    int lane_begin = 0, lane_rows = 0, lane_last = 0;

    __device__ __forceinline__ void load_window() {
        const int lane = threadIdx.x % 32;
        const int group = window + lane;
        lane_begin = lane_rows = 0;
        if (group < num_groups) {
            lane_begin = offsets == nullptr ? min(group * slice_rows, num_rows) : offsets[group];
            lane_rows = offsets == nullptr ? min(slice_rows, num_rows - lane_begin)
                                           : offsets[group + 1] - lane_begin;
        }
        const int m_tiles =
            rows_per_tile > 0 ? (lane_rows + rows_per_tile - 1) / rows_per_tile : fixed_m_tiles;
        lane_last = group < num_groups ? m_tiles * num_n_tiles : 0;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int below = __shfl_up_sync(~0u, lane_last, step);
            if (lane >= step) lane_last += below;
        }
        window_tiles = __shfl_sync(~0u, lane_last, 31);
    }

    // All lanes of a warp call this with the same, never decreasing, tile number. False: no such
    // tile.
    __device__ __forceinline__ bool find(int tile, GroupTile& out) {
        while (tile >= window_first + window_tiles) {
            window_first += window_tiles;
            window += 32;
            if (window >= num_groups) {
                window_tiles = 0;
                window -= 32;
                return false;
            }
            load_window();
        }
        const int local = tile - window_first;
        const int lane = __ffs(__ballot_sync(~0u, local < lane_last)) - 1;
        const int before = __shfl_sync(~0u, lane_last, lane > 0 ? lane - 1 : 0);
        const int in_group = local - (lane > 0 ? before : 0);
        out.group = window + lane;
        out.m_tile = in_group / num_n_tiles;
        out.n_tile = in_group - out.m_tile * num_n_tiles;
        out.row_begin = __shfl_sync(~0u, lane_begin, lane);
        out.num_rows = __shfl_sync(~0u, lane_rows, lane);
        return true;
    }
};

}  // namespace headway::kernels
