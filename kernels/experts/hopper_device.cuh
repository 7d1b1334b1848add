// Pieces shared by the three Hopper kernels: tile layouts, the row gather, wgmma loops over a tile
// and register-to-global stores of an accumulator.
//
// Every operand tile in shared memory is a stack of 8 KiB blocks of [64 rows][64 elements], rows of
// 128 bytes with 128-byte swizzle; wgmma reads a block K-major or MN-major, so one copy of x, dy,
// W1 and W2 serves all products and nothing is ever transposed in memory.
#pragma once

#include <cuda_bf16.h>

#include "kernels/check.hpp"
#include "kernels/experts/activation.cuh"
#include "kernels/experts/experts.hpp"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tensor_map.hpp"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace headway::kernels::hopper {

inline constexpr uint32_t block_bytes = 8192;
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

__device__ __forceinline__ TileDescriptor load_tile(const TileDescriptor* tiles, int idx, int end) {
    if (idx >= end) return {-1, 0, 0};
    const int32_t* words = reinterpret_cast<const int32_t*>(tiles + idx);
    return {__ldg(words), __ldg(words + 1), __ldg(words + 2)};
}

// The sub-tokens of 64 consecutive pool rows, two a lane; -1 past the end.
struct TokenPair {
    int low;
    int high;
};
__device__ __forceinline__ TokenPair load_tokens(const int32_t* row_token, int64_t row_begin,
                                                 int num_rows) {
    const int lane = threadIdx.x % 32;
    TokenPair tokens{-1, -1};
    if (lane < num_rows) tokens.low = __ldg(row_token + row_begin + lane);
    if (lane + 32 < num_rows) tokens.high = __ldg(row_token + row_begin + lane + 32);
    return tokens;
}

// Gathers this warp's share (every third step) of 64 rows of `source` into D/64 blocks; rows
// without a token become zeros, which is what keeps padding out of every product.
template <int D>
__device__ __forceinline__ void gather_rows(uint32_t dst, const __nv_bfloat16* source,
                                            TokenPair tokens, int gather_warp) {
    constexpr int chunks_per_row = D / 8;
    constexpr int rows_per_step = 32 / chunks_per_row;
    const int lane = threadIdx.x % 32;
    const int chunk = lane % chunks_per_row;
    const uint32_t block = dst + (chunk / 8) * block_bytes;
#pragma unroll 2
    for (int step = gather_warp; step < 64 / rows_per_step; step += num_gather_warps) {
        const int row = step * rows_per_step + lane / chunks_per_row;
        const int low = __shfl_sync(0xffffffff, tokens.low, row % 32);
        const int high = __shfl_sync(0xffffffff, tokens.high, row % 32);
        const int token = row < 32 ? low : high;
        const __nv_bfloat16* src = source + static_cast<int64_t>(max(token, 0)) * D + chunk * 8;
        ptx::cp_async_16(block + row * 128 + ((chunk ^ row) & 7) * 16, src, token >= 0);
    }
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

// Writes this warp's 16 rows of a [64, D] accumulator as bf16; neighbouring lanes swap halves so
// that a quad writes whole 32-byte sectors.
template <int D>
__device__ __forceinline__ void store_rows(const float (&acc)[D / 2], __nv_bfloat16* dst,
                                           int first_row, int num_rows) {
    const int lane = threadIdx.x % 32;
    const bool odd = lane % 2 == 1;
    const int column = odd ? 8 + 2 * (lane % 4 - 1) : 2 * (lane % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = first_row + lane / 4 + 8 * half;
        __nv_bfloat16* out = dst + static_cast<int64_t>(row) * D + column;
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
            const uint32_t even_block = pack_bf16(acc[8 * i + 2 * half], acc[8 * i + 2 * half + 1]);
            const uint32_t odd_block =
                pack_bf16(acc[8 * i + 4 + 2 * half], acc[8 * i + 5 + 2 * half]);
            const uint32_t got = __shfl_xor_sync(0xffffffff, odd ? even_block : odd_block, 1);
            const uint2 pair = odd ? make_uint2(got, odd_block) : make_uint2(even_block, got);
            if (row < num_rows) *reinterpret_cast<uint2*>(out + 16 * i) = pair;
        }
    }
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
