// Pieces of the portable kernels: products of one warp's 16 rows with a tile of 64 rows, through
// ldmatrix and mma.sync, on the tile layout of tiles.cuh. Blocks of four warps own 64 rows.
#pragma once

#include "kernels/check.hpp"
#include "kernels/experts/tiles.cuh"
#include "kernels/ptx/mma.cuh"

namespace headway::kernels::portable {

inline constexpr int num_warps = 4;
inline constexpr int num_threads = 32 * num_warps;

// Address of 16-byte chunk `chunk` of a row of a D-wide tile.
__device__ __forceinline__ uint32_t tile_chunk(uint32_t tile, int row, int chunk) {
    return tile + (chunk / 8) * block_bytes + row * 128 + ((chunk ^ row) & 7) * 16;
}

// acc[16 rows, 64] = rows[16 of the tile's 64, D] * weights[64, D]^T.
template <int D>
__device__ __forceinline__ void multiply_rows(float (&acc)[32], uint32_t rows, uint32_t weights) {
    const int lane = threadIdx.x % 32;
    const int first_row = (threadIdx.x / 32) * 16;
#pragma unroll
    for (int n = 0; n < 32; ++n) acc[n] = 0.0f;
#pragma unroll 4
    for (int k = 0; k < D / 16; ++k) {
        uint32_t a[4];
        ptx::ldmatrix_x4(a, tile_chunk(rows, first_row + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            uint32_t b[4];
            ptx::ldmatrix_x4(b, tile_chunk(weights, 16 * n + lane % 8 + (lane / 16) * 8,
                                           2 * k + (lane / 8) % 2));
            ptx::mma_m16n8k16(acc + 8 * n, a, b[0], b[1]);
            ptx::mma_m16n8k16(acc + 8 * n + 4, a, b[2], b[3]);
        }
    }
}

// acc[16, D] += a[16, 16] * tile[rows 16 k .. 16 k + 15, D].
template <int D>
__device__ __forceinline__ void multiply_step(float (&acc)[D / 2], const uint32_t (&a)[4],
                                              uint32_t tile, int k) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        ptx::ldmatrix_x4_transposed(b, tile_chunk(tile, 16 * k + lane % 16, 2 * n + lane / 16));
        ptx::mma_m16n8k16(acc + 8 * n, a, b[0], b[1]);
        ptx::mma_m16n8k16(acc + 8 * n + 4, a, b[2], b[3]);
    }
}

// acc[16 rows, D] += hidden[16 rows, 64] * weights[64, D].
template <int D>
__device__ __forceinline__ void multiply_hidden(float (&acc)[D / 2], const uint32_t (&hidden)[4][4],
                                                uint32_t weights) {
#pragma unroll
    for (int k = 0; k < 4; ++k) multiply_step<D>(acc, hidden[k], weights, k);
}

// Copies 64 consecutive rows of a [*, D] matrix into a tile.
template <int D>
__device__ __forceinline__ void load_slice(uint32_t tile, const __nv_bfloat16* source) {
#pragma unroll 4
    for (int n = threadIdx.x; n < 64 * D / 8; n += num_threads)
        ptx::cp_async_16(tile_chunk(tile, n / (D / 8), n % (D / 8)), source + int64_t{n} * 8, true);
}

// The tile and half of this block; num_rows <= 0: nothing to do.
struct HalfTile {
    int idx;
    int half;
    int group;
    int64_t row_begin;
    int num_rows;
};
__device__ __forceinline__ HalfTile half_tile(const RowGrouping& rows) {
    const int idx = blockIdx.x / 2;
    const int half = blockIdx.x % 2;
    if (idx >= __ldg(rows.num_tiles)) return {idx, half, -1, 0, 0};
    const TileDescriptor tile = load_tile(rows.tiles, idx, idx + 1);
    return {idx, half, tile.group, int64_t{tile.row_begin} + half * 64, tile.num_rows - half * 64};
}

template <typename Kernel>
void allow_shared_memory(Kernel kernel, uint32_t bytes) {
    HEADWAY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(bytes)));
}

}  // namespace headway::kernels::portable
