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
inline constexpr int num_gather_warps = 3;  // producer warps 1..3; warp 0 streams weights
inline constexpr int gather_arrivals = 32 * num_gather_warps;
inline constexpr int max_smem_bytes = 232448;

// A ring of equal shared-memory slots: load number `n` goes to slot n % size in phase n / size.
struct RingPosition {
    uint32_t slot;
    uint32_t phase;
};
template <int Size>
__device__ __forceinline__ RingPosition ring_position(uint32_t n) {
    return {n % Size, (n / Size) & 1};
}

// Contiguous share of the tiles, so that a block meets each group's weights once.
struct TileRange {
    int begin;
    int end;
};
__device__ __forceinline__ TileRange tile_range(int num_tiles) {
    const int64_t n = num_tiles;
    return {static_cast<int>(n * blockIdx.x / gridDim.x),
            static_cast<int>(n * (blockIdx.x + 1) / gridDim.x)};
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Stops the compiler from computing a loop's operand descriptors ahead of it and spilling them.
__device__ __forceinline__ void keep_in_loop(uint32_t& smem_address) {
    asm volatile("" : "+r"(smem_address));
}

// acc[64 rows, 64] = rows[64, D] * weights[64, D]^T, both K-major.
template <int D>
__device__ __forceinline__ void multiply_rows(float (&acc)[32], uint32_t rows, uint32_t weights) {
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        const uint32_t offset = (k / 4) * block_bytes + (k % 4) * 32;
        ptx::WgmmaSs<64, false, false>::mma(acc, ptx::wgmma_descriptor(rows + offset, 0, 1024),
                                            ptx::wgmma_descriptor(weights + offset, 0, 1024),
                                            k > 0);
    }
}

// acc[64 rows, D] (+)= hidden[64 rows, 64] * weights[64, D]; hidden in registers, weights MN-major.
template <int D>
__device__ __forceinline__ void multiply_hidden(float (&acc)[D / 2], const uint32_t (&hidden)[4][4],
                                                uint32_t weights, bool accumulate) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
        ptx::WgmmaRs<D, true>::mma(acc, hidden[k],
                                   ptx::wgmma_descriptor(weights + k * 2048, block_bytes, 1024),
                                   accumulate || k > 0);
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

// Map of weights seen as [rows, D], loaded 64 rows by 64 columns at a time.
inline CUtensorMap weight_map(const __nv_bfloat16* weights, int64_t rows, int width) {
    return make_tensor_map(weights,
                           {.rank = 2,
                            .extent = {static_cast<uint64_t>(width), static_cast<uint64_t>(rows)},
                            .box = {64, 64}});
}

template <int D>
__device__ __forceinline__ void load_weight_slot(unsigned char* slot, const CUtensorMap* map,
                                                 uint64_t* bar, int row) {
    ptx::mbarrier_arrive_expect_tx(bar, 128 * D);
#pragma unroll
    for (int block = 0; block < D / 64; ++block)
        ptx::tma_load_2d(slot + block * block_bytes, map, bar, block * 64, row);
}

inline int num_multiprocessors() {
    int device = 0;
    int count = 0;
    HEADWAY_CUDA_CHECK(cudaGetDevice(&device));
    HEADWAY_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
}

}  // namespace headway::kernels::hopper
