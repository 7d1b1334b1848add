// Pieces shared by the three Hopper kernels: rings, wgmma loops over a tile, turns, weight loads.
// wgmma reads a tile block K-major or MN-major, so one copy of x, dy, W1 and W2 serves all products
// and nothing is ever transposed in memory.
#pragma once

#include <cuda_bf16.h>

#include "kernels/check.hpp"
#include "kernels/experts/tiles.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tensor_map.hpp"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace headway::kernels::hopper {

inline constexpr int num_threads = 384;     // one producer and two consumer warpgroups
inline constexpr int gather_arrivals = 32;  // one warp fills a slot of gathered rows
inline constexpr int max_smem_bytes = 232448;

// Rings of gathered rows and of slices of both weights, as forward and the backward by rows have
// them.
template <typename Layout>
struct RingBarriers {
    uint64_t rows_full[Layout::num_row_slots];
    uint64_t rows_empty[Layout::num_row_slots];
    uint64_t full1[Layout::num_slots1];
    uint64_t empty1[Layout::num_slots1];
    uint64_t full2[Layout::num_slots2];
    uint64_t empty2[Layout::num_slots2];
};
// Arrivals that fill a slot of rows, and that empty it.
template <typename Layout>
__device__ void init_barriers(RingBarriers<Layout>& bars, int row_fills, int row_empties) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < Layout::num_row_slots; ++i) {
            ptx::mbarrier_init(&bars.rows_full[i], row_fills);
            ptx::mbarrier_init(&bars.rows_empty[i], row_empties);
        }
        for (int i = 0; i < Layout::num_slots1; ++i) {
            ptx::mbarrier_init(&bars.full1[i], 1);
            ptx::mbarrier_init(&bars.empty1[i], 8);
        }
        for (int i = 0; i < Layout::num_slots2; ++i) {
            ptx::mbarrier_init(&bars.full2[i], 1);
            ptx::mbarrier_init(&bars.empty2[i], 8);
        }
        ptx::mbarrier_init_fence();
        ptx::fence_proxy_async();
    }
    __syncthreads();
}

// Producer warps 1..3 gather rows (warp 0 streams weights or images), dealing the loads of a ring
// in turn. NOTE: a parity wait cannot tell a phase from the one two before it, so a warp must meet
// the same slots again and again: the number of warps divides the number of slots.
constexpr int num_gather_warps(int num_slots) {
    return num_slots % 3 == 0 ? 3 : 2 - num_slots % 2;
}
constexpr int slots_for_gather(int num_slots) {
    return num_gather_warps(num_slots) > 1 ? num_slots : num_slots - 1;
}

// A ring of equal shared-memory slots: load number `n` goes to slot n % size in phase n / size.
struct RingPosition {
    uint32_t slot;
    uint32_t phase;
};
template <int Size>
__device__ __forceinline__ RingPosition ring_position(uint32_t n) {
    return {n % Size, (n / Size) & 1};
}

// The tiles of this block: runs of `run` neighbours, dealt to the blocks in turn. Blocks thus work
// on neighbouring groups at any time, whose weights and sub-tokens stay in the L2 cache.
struct TileWalk {
    int run;
    int first;
    int stride;
    int num_tiles;
    int count;

    __device__ __forceinline__ int idx(int i) const { return first + i / run * stride + i % run; }
    __device__ __forceinline__ TileDescriptor load(const TileDescriptor* tiles, int i) const {
        return i < count ? load_tile(tiles, idx(i), num_tiles) : TileDescriptor{-1, 0, 0};
    }
    __device__ __forceinline__ void prefetch(const TileDescriptor* tiles, int i) const {
        if (i < count) asm volatile("prefetch.global.L1 [%0];" ::"l"(tiles + idx(i)));
    }
};
__device__ __forceinline__ TileWalk tile_walk(int num_tiles, int run) {
    const int grid = static_cast<int>(gridDim.x);
    const int first = static_cast<int>(blockIdx.x) * run;
    const int stride = grid * run;
    const int rest = num_tiles % stride - first;
    return {run, first, stride, num_tiles, num_tiles / stride * run + min(max(rest, 0), run)};
}

// Runs of one tile when the weights stream. When a group's weights stay resident: the length, about
// a group's tiles, that leaves the busiest block the fewest tiles.
__device__ __forceinline__ int run_length(int num_tiles, bool resident) {
    if (!resident) return 1;
    int best = 1;
    int best_load = 1 << 30;
    for (int run = 12; run >= 6; --run) {
        const int stride = run * static_cast<int>(gridDim.x);
        const int load = (num_tiles + stride - 1) / stride * run;
        if (load < best_load) {
            best = run;
            best_load = load;
        }
    }
    return best;
}

// Producer warp's share of the half tiles (number h is half h % 2 of this block's tile h / 2):
// every third one, or with Sharing warps a slot its rows of each, filled by `fill(slot, tokens,
// share)`. Descriptors and sub-tokens are fetched ahead.
template <int NumSlots, int Sharing, typename Fill>
__device__ __forceinline__ void gather_halves(const RowGrouping& rows, const TileWalk& walk,
                                              uint64_t* full, uint64_t* empty, int gather_warp,
                                              Fill fill) {
    const auto tokens_of = [&](const TileDescriptor& tile, int h) {
        return load_tokens(rows.row_token, int64_t{tile.row_begin} + h % 2 * 64,
                           tile.num_rows - h % 2 * 64);
    };
    constexpr int step = Sharing > 1 ? 1 : num_gather_warps(NumSlots);
    if (gather_warp >= step * Sharing) return;
    int h = Sharing > 1 ? 0 : gather_warp;
    RowTokens tokens = tokens_of(walk.load(rows.tiles, h / 2), h);
    TileDescriptor ahead = walk.load(rows.tiles, (h + step) / 2);
#pragma unroll 1
    for (; h < 2 * walk.count; h += step) {
        const RowTokens next = tokens_of(ahead, h + step);
        ahead = walk.load(rows.tiles, (h + 2 * step) / 2);
        const auto at = ring_position<NumSlots>(h);
        ptx::mbarrier_wait(&empty[at.slot], at.phase ^ 1);
        fill(at.slot, tokens, Sharing > 1 ? gather_warp : 0);
        ptx::cp_async_arrive(&full[at.slot]);
        tokens = next;
    }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Stops the compiler from computing a loop's operand descriptors ahead of it and spilling them.
__device__ __forceinline__ void keep_in_loop(uint32_t& smem_address) {
    asm volatile("" : "+r"(smem_address));
}

// The accumulators of gate and up, or what is made of them, as the one product sees them.
template <typename T, int Parts, int Count>
__device__ __forceinline__ T (&flat(T (&parts)[Parts][Count]))[Parts * Count] {
    return reinterpret_cast<T(&)[Parts * Count]>(parts);
}

// acc[64, N] = a[64, D] * b[N, D]^T, both K-major: blocks of [64 or N rows][64 elements].
template <int D, int N = 64>
__device__ __forceinline__ void multiply_rows(float (&acc)[N / 2], uint32_t a, uint32_t b) {
    const uint32_t left = ptx::wgmma_operand(a), right = ptx::wgmma_operand(b);
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
        ptx::WgmmaSs<N, false, false>::mma(
            acc, ptx::wgmma_at(left, (k / 4) * block_bytes + (k % 4) * 32),
            ptx::wgmma_at(right, (k / 4) * (N * 128) + (k % 4) * 32), k > 0);
}

// acc[64, D] (+)= hidden[64, Units] * b[Units, D]; hidden in registers, b MN-major: blocks of
// [Units rows][64 elements].
template <int D, int Units = 64>
__device__ __forceinline__ void multiply_hidden(float (&acc)[D / 2],
                                                const uint32_t (&hidden)[Units / 16][4], uint32_t b,
                                                bool accumulate) {
    const uint32_t right = ptx::wgmma_operand(b, Units * 128);
#pragma unroll
    for (int k = 0; k < Units / 16; ++k)
        ptx::WgmmaRs<D, true>::mma(acc, hidden[k], ptx::wgmma_at(right, k * 2048),
                                   accumulate || k > 0);
}

// Stores a thread's fragments of a 64 x 64 slice into an image in shared memory, units in order.
// `at`: where lane l's 16 bytes begin, row l % 16 of the warp's 16, chunk l / 16.
__device__ __forceinline__ void store_fragments(uint32_t at, const uint32_t (&v)[4][4]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) ptx::stmatrix_x4(at ^ (k * 32), v[k][0], v[k][1], v[k][2], v[k][3]);
}

// Lets the two consumer warpgroups issue their products in turns, so that one multiplies while the
// other runs its activation. Barrier 1 + w is warpgroup w's turn.
__device__ __forceinline__ void wait_turn(int warpgroup) {
    ptx::named_barrier_sync(1 + warpgroup, 256);
}
__device__ __forceinline__ void pass_turn(int warpgroup) {
    ptx::named_barrier_arrive(2 - warpgroup, 256);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Map of weights seen as [rows, D], loaded `box_rows` rows by 64 columns at a time.
inline CUtensorMap weight_map(const __nv_bfloat16* weights, int64_t rows, int width,
                              uint32_t box_rows = 64) {
    return make_tensor_map(weights,
                           {.rank = 2,
                            .extent = {static_cast<uint64_t>(width), static_cast<uint64_t>(rows)},
                            .box = {64, box_rows}});
}

// Rows `row` on of a matrix of D columns into a slot; `boxes` of them are stacked in each of its
// blocks of 64 columns, this is number `box`.
template <int D, int Units, int Boxes = 1>
__device__ __forceinline__ void load_box(unsigned char* slot, const CUtensorMap* map, uint64_t* bar,
                                         int row, int box = 0) {
#pragma unroll
    for (int block = 0; block < D / 64; ++block)
        ptx::tma_load_2d(slot + (block * Boxes + box) * (128 * Units), map, bar, block * 64, row);
}

template <int D, int Units = 64>
__device__ __forceinline__ void load_weight_slot(unsigned char* slot, const CUtensorMap* map,
                                                 uint64_t* bar, int row) {
    ptx::mbarrier_arrive_expect_tx(bar, 2 * Units * D);
    load_box<D, Units>(slot, map, bar, row);
}

// A slice of a group's W1: its Units rows from `unit`, when gated those of the gate, then of up.
template <int D, int Units, bool Gated>
__device__ __forceinline__ void load_slice1(unsigned char* slot, const CUtensorMap* map,
                                            uint64_t* bar, int group, int hidden, int unit) {
    if constexpr (Gated) {
        ptx::mbarrier_arrive_expect_tx(bar, 4 * Units * D);
        load_box<D, Units, 2>(slot, map, bar, 2 * group * hidden + unit, 0);
        load_box<D, Units, 2>(slot, map, bar, (2 * group + 1) * hidden + unit, 1);
    } else {
        load_weight_slot<D, Units>(slot, map, bar, group * hidden + unit);
    }
}

inline int num_multiprocessors() {
    int device = 0;
    int count = 0;
    HEADWAY_CUDA_CHECK(cudaGetDevice(&device));
    HEADWAY_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
}

}  // namespace headway::kernels::hopper
