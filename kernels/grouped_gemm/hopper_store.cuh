// What the Hopper grouped GEMM does with a finished tile: activation, gating or the derivative of
// the activation, then the pieces leave through the staging buffers.
#pragma once

#include "kernels/grouped_gemm/hopper_epilogue.cuh"
#include "kernels/grouped_gemm/tile_walk.cuh"

namespace headway::kernels {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Rows `row` .. row + 63 of the tile's group, 64 columns from `column` of C (or dW).
template <class C>
__device__ __forceinline__ PieceTarget piece_target(const HopperParams& p, const GroupTile& tile,
                                                    int row, int column) {
    constexpr bool kWgrad = C::kForm == GroupedForm::wgrad;
    const int columns = C::kAct == GroupedActivation::swiglu ? p.out_n / 2 : p.out_n;
    PieceTarget to{};
    to.map = &p.c;
    to.base = p.c_ptr;
    to.row0 = kWgrad ? row : tile.row_begin + row;
    to.num_valid = kWgrad ? p.out_m - row : tile.num_rows - row;
    if constexpr (kWgrad) to.plane = tile.group;
    to.column0 = column;
    to.num_columns = columns;
    if constexpr (!kWgrad && C::kAct == GroupedActivation::none) {  // the forms with head-major C
        to.plane = column / p.c_width;
        to.column0 = column - to.plane * p.c_width;
        to.num_columns = min(columns, p.c_width);
    }
    to.plane_rows = p.rows;
    to.clipped = kWgrad;
    return to;
}

// Rows `row` .. row + 63 of the group, all the tile's columns.
template <class C>
__device__ __forceinline__ void store_rows(const HopperParams& p, const GroupTile& tile, int row,
                                           float (&d)[C::kTileN / 2], Staging& staging) {
    const int n0 = tile.n_tile * C::kTileN;
    const auto leave = [&](const uint32_t(&words)[16], const PieceTarget& to) {
        uint8_t* buffer = staging.acquire(C::kStagingBytes);
        stage_bf16(buffer, staging.thread, words);
        release_piece<2>(staging, buffer, to);
    };
#pragma unroll
    for (int piece = 0; piece < C::kTileN / 64; ++piece) {
        const int column = n0 + 64 * piece;
        if (column >= p.out_n) break;
        float* v = d + 32 * piece;
        uint32_t words[16];
        if (C::kAct != GroupedActivation::none && p.pre_out != nullptr) {
#pragma unroll
            for (int i = 0; i < 16; ++i) words[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
            PieceTarget pre = piece_target<C>(p, tile, row, column);
            pre.map = &p.pre;
            pre.base = p.pre_out;
            pre.num_columns = p.out_n;
            leave(words, pre);
        }
        if constexpr (C::kAct == GroupedActivation::swiglu) {
            // Blocks of 8 columns alternate gate, up: two pieces of accumulators make one of
            // output.
            if (piece % 2 == 1) continue;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const int at = 8 * (i / 2) + 2 * (i % 2);
                words[i] =
                    pack_bf16(silu_fast(v[at]) * v[at + 4], silu_fast(v[at + 1]) * v[at + 5]);
            }
            leave(words, piece_target<C>(p, tile, row, column / 2));
        } else {
#pragma unroll
            for (int i = 0; i < 16; ++i)
                words[i] = pack_bf16(activate<C::kAct>(v[2 * i]), activate<C::kAct>(v[2 * i + 1]));
            leave(words, piece_target<C>(p, tile, row, column));
        }
    }
}

template <class C>
__device__ __forceinline__ void store_rows_fp32(const HopperParams& p, const GroupTile& tile,
                                                int row, float (&d)[C::kTileN / 2],
                                                Staging& staging) {
#pragma unroll
    for (int piece = 0; piece < C::kTileN / 32; ++piece) {
        const int column = tile.n_tile * C::kTileN + 32 * piece;
        if (column >= p.out_n) break;
        uint8_t* buffer = staging.acquire(C::kStagingBytes);
        stage_fp32(buffer, staging.thread, d, 4 * piece);
        release_piece<4>(staging, buffer, piece_target<C>(p, tile, row, column));
    }
}

template <class C>
__device__ __forceinline__ void store_tile(const HopperParams& p, const GroupTile& tile,
                                           float (&d)[C::kSubtiles][C::kTileN / 2], int consumer,
                                           Staging& staging) {
    const int end = C::kForm == GroupedForm::wgrad ? p.out_m : tile.num_rows;
#pragma unroll
    for (int i = 0; i < C::kSubtiles; ++i) {
        const int row = tile.m_tile * C::kTileM + consumer * (C::kTileM / 2) + 64 * i;
        if (row >= end) continue;
        if constexpr (C::kFp32Out)
            store_rows_fp32<C>(p, tile, row, d[i], staging);
        else
            store_rows<C>(p, tile, row, d[i], staging);
    }
}

// dgrad with an activation: the pieces of `pre` are loaded ahead into the staging buffers, piece q
// of a tile into buffer q % 2, and each is overwritten in place by the piece of dA made from it.
template <class C>
struct SlopePieces {
    uint64_t* ready;  // of this warpgroup, one per buffer
    uint32_t phases = 0;
    int row0 = 0, column0 = 0, per_row = 0, count = 0;

    // Called by the whole warpgroup before the tile's products: asks for the first two pieces.
    __device__ __forceinline__ void begin(const HopperParams& p, const GroupTile& tile,
                                          int consumer, const Staging& staging) {
        row0 = tile.m_tile * C::kTileM + consumer * (C::kTileM / 2);
        column0 = tile.n_tile * C::kTileN;
        per_row = min(C::kTileN / 64, (p.out_n - column0 + 63) / 64);
        const int lines = min(C::kSubtiles, (tile.num_rows - row0 + 63) / 64);
        count = lines > 0 ? lines * per_row : 0;
        if (staging.thread == 0) ptx::tma_store_wait_read<0>();
        ptx::named_barrier_sync(staging.barrier_id, 128);
        if (staging.thread != 0) return;
        for (int q = 0; q < min(2, count); ++q) request(p, tile, staging, q);
    }

    __device__ __forceinline__ void request(const HopperParams& p, const GroupTile& tile,
                                            const Staging& staging, int q) const {
        const int line = q / per_row, buffer = q % 2;
        ptx::mbarrier_arrive_expect_tx(&ready[buffer], C::kStagingBytes);
        ptx::tma_load_3d(staging.buffers + buffer * C::kStagingBytes, &p.pre, &ready[buffer],
                         column0 + 64 * (q - line * per_row), tile.row_begin + row0 + 64 * line, 0);
    }
};

template <class C>
__device__ __forceinline__ void multiply_by_slope(uint32_t (&words)[16], const float* v,
                                                  const uint8_t* pre, int thread) {
    const int lane = thread % 32, warp = thread / 32;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const int row = 16 * warp + 8 * (i % 2) + lane / 4;
        const auto* at = pre + row * 128 + (((i / 2) ^ (row & 7)) << 4) + (lane % 4) * 4;
        const float2 x = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(at));
        words[i] = pack_bf16(v[2 * i] * activation_slope<C::kAct>(x.x),
                             v[2 * i + 1] * activation_slope<C::kAct>(x.y));
    }
}

template <class C>
__device__ __forceinline__ void store_tile_with_slope(const HopperParams& p, const GroupTile& tile,
                                                      float (&d)[C::kSubtiles][C::kTileN / 2],
                                                      const Staging& staging,
                                                      SlopePieces<C>& pieces) {
    int q = 0;
#pragma unroll
    for (int i = 0; i < C::kSubtiles; ++i) {
#pragma unroll
        for (int piece = 0; piece < C::kTileN / 64; ++piece) {
            if (q >= pieces.count || piece >= pieces.per_row) continue;
            const int buffer_idx = q % 2;
            uint8_t* buffer = staging.buffers + buffer_idx * C::kStagingBytes;
            ptx::mbarrier_wait(&pieces.ready[buffer_idx], (pieces.phases >> buffer_idx) & 1);
            pieces.phases ^= 1u << buffer_idx;
            uint32_t words[16];
            multiply_by_slope<C>(words, d[i] + 32 * piece, buffer, staging.thread);
            __syncwarp();  // a warp reads and writes only its own 16 rows of the buffer
            stage_bf16(buffer, staging.thread, words);
            release_piece<2>(
                staging, buffer,
                piece_target<C>(p, tile, pieces.row0 + 64 * i, pieces.column0 + 64 * piece));
            // All threads are past the previous piece here, so its buffer may be refilled.
            if (staging.thread == 0 && q > 0 && q + 1 < pieces.count) {
                ptx::tma_store_wait_read<1>();
                pieces.request(p, tile, staging, q + 1);
            }
            ++q;
        }
    }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace headway::kernels
