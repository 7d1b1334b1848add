// Output side of the Hopper grouped GEMM: a 64 x (128 bytes) piece of the accumulators is
// converted, staged in swizzled shared memory, and leaves by TMA when all its 64 rows belong to the
// expert; otherwise by masked 16-byte stores, so that a tile never touches the next expert's rows.
#pragma once

#include "kernels/grouped_gemm/hopper_config.cuh"
#include "kernels/ptx/tma.cuh"

namespace headway::kernels {

// One consumer warpgroup's two staging buffers and where they go.
struct Staging {
    uint8_t* buffers;
    int barrier_id;
    int thread;  // within the warpgroup
    int turn = 0;

    __device__ __forceinline__ uint8_t* acquire(int buffer_bytes) {
        uint8_t* buffer = buffers + turn * buffer_bytes;
        turn ^= 1;
        if (thread == 0) ptx::tma_store_wait_read<1>();
        ptx::named_barrier_sync(barrier_id, 128);
        return buffer;
    }
};

// Where a 64-row piece goes: rows row0 .. row0 + num_valid - 1. `plane` is the group (dW) or the
// head (head-major C); column0 counts within the plane. Rows beyond num_valid belong to another
// expert unless the map itself ends there (`clipped`).
struct PieceTarget {
    const CUtensorMap* map;
    void* base;
    int row0, num_valid;
    int column0, num_columns;
    int plane, plane_rows;
    bool clipped;
    bool accumulate;  // of fp32 pieces that are clipped
};

// Called by the whole warpgroup behind a fence and a barrier.
template <int ElementBytes>
__device__ __forceinline__ void write_piece(const Staging& staging, const uint8_t* buffer,
                                            const PieceTarget& to) {
    constexpr int kPerChunk = 16 / ElementBytes;
    if (to.num_valid >= 64 || to.clipped) {
        if (staging.thread == 0) {
            if (ElementBytes == 4 && to.accumulate)
                ptx::tma_add_3d(to.map, buffer, to.column0, to.row0, to.plane);
            else
                ptx::tma_store_3d(to.map, buffer, to.column0, to.row0, to.plane);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = staging.thread / 8 + 16 * i, chunk = staging.thread % 8;
            const int column = to.column0 + chunk * kPerChunk;
            if (row < to.num_valid && column < to.num_columns) {
                const auto value = *reinterpret_cast<const uint4*>(buffer + row * 128 +
                                                                   ((chunk ^ (row & 7)) << 4));
                const int64_t line_idx = int64_t{to.plane} * to.plane_rows + to.row0 + row;
                auto* line = static_cast<uint8_t*>(to.base) +
                             (line_idx * to.num_columns + column) * ElementBytes;
                *reinterpret_cast<uint4*>(line) = value;
            }
        }
    }
    if (staging.thread == 0)
        ptx::tma_store_commit();  // also when empty: keeps the two buffers' turns
}
template <int ElementBytes>
__device__ __forceinline__ void release_piece(const Staging& staging, const uint8_t* buffer,
                                              const PieceTarget& to) {
    ptx::fence_proxy_async();
    ptx::named_barrier_sync(staging.barrier_id, 128);
    write_piece<ElementBytes>(staging, buffer, to);
}

// Where a lane's row of the four 8x8 matrices lies that hold columns 16 pair .. 16 pair + 15 of a
// warp's 16 rows, in the order of an accumulator: matrix i is rows 8 (i%2) on, columns 8 (i/2) on.
__device__ __forceinline__ uint32_t matrices_at(const uint8_t* buffer, int thread, int pair) {
    const int lane = thread % 32, warp = thread / 32;
    const int row = 16 * warp + ((lane / 8) & 1) * 8 + lane % 8;
    const int chunk = 2 * pair + lane / 16;
    return ptx::smem_addr(buffer) + row * 128 + ((chunk ^ (row & 7)) << 4);
}

// 64 columns of bf16: words[i] packs columns 8 (i/2) + 2 (lane%4) .. +1 of row 16 warp + 8 (i%2) +
// lane/4.
__device__ __forceinline__ void stage_bf16(uint8_t* buffer, int thread,
                                           const uint32_t (&words)[16]) {
#pragma unroll
    for (int pair = 0; pair < 4; ++pair)
        ptx::stmatrix_x4(matrices_at(buffer, thread, pair), words[4 * pair], words[4 * pair + 1],
                         words[4 * pair + 2], words[4 * pair + 3]);
}

// 32 columns of fp32, from accumulators 4 * first_block ...
template <int Count>
__device__ __forceinline__ void stage_fp32(uint8_t* buffer, int thread, const float (&d)[Count],
                                           int first_block) {
    const int lane = thread % 32, warp = thread / 32;
#pragma unroll
    for (int block = 0; block < 4; ++block) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = 16 * warp + 8 * half + lane / 4;
            const int chunk = 2 * block + (lane % 4) / 2;
            auto* at = buffer + row * 128 + ((chunk ^ (row & 7)) << 4) + (lane % 2) * 8;
            const int i = 4 * (first_block + block) + 2 * half;
            *reinterpret_cast<float2*>(at) = make_float2(d[i], d[i + 1]);
        }
    }
}

}  // namespace headway::kernels
