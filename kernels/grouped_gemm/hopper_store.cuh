// What the Hopper grouped GEMM does with a finished tile: activation, gating or the derivative of
// the activation, then the pieces leave through the staging buffers.
#pragma once

#include "kernels/grouped_gemm/hopper_epilogue.cuh"
#include "kernels/grouped_gemm/tile_walk.cuh"
#include "kernels/ptx/mma.cuh"

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
    to.accumulate = p.accumulate;
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

// dgrad with an activation: a warpgroup's pieces of `pre`, which arrive in one slot of the ring
// behind the tile's last k block and are overwritten in place by the pieces of dA made from them.
struct SlopePieces {
    int row0, column0;  // within the group
    int lines, per_row;
};
template <class C>
__device__ __forceinline__ SlopePieces slope_pieces(const HopperParams& p, const GroupTile& tile,
                                                    int consumer) {
    static_assert(C::kSubtiles * (C::kTileN / 64) * C::kStagingBytes <= C::kStageBytes);
    const int row0 = tile.m_tile * C::kTileM + consumer * (C::kTileM / 2);
    const int column0 = tile.n_tile * C::kTileN;
    return {row0, column0, max(0, min(C::kSubtiles, (tile.num_rows - row0 + 63) / 64)),
            min(C::kTileN / 64, (p.out_n - column0 + 63) / 64)};
}
template <class C>
__device__ __forceinline__ int piece_offset(int line, int piece) {
    return (line * (C::kTileN / 64) + piece) * C::kStagingBytes;
}

template <class C>
__device__ __forceinline__ void load_slope_pieces(const HopperParams& p, const GroupTile& tile,
                                                  int consumer, uint8_t* slot, uint64_t* full) {
    const SlopePieces pieces = slope_pieces<C>(p, tile, consumer);
    ptx::mbarrier_arrive_expect_tx(full, pieces.lines * pieces.per_row * C::kStagingBytes);
    for (int i = 0; i < pieces.lines; ++i)
        for (int piece = 0; piece < pieces.per_row; ++piece)
            ptx::tma_load_3d(slot + piece_offset<C>(i, piece), &p.pre, full,
                             pieces.column0 + 64 * piece, tile.row_begin + pieces.row0 + 64 * i, 0);
}

template <class C>
__device__ __forceinline__ void multiply_by_slope(uint32_t (&words)[16], const float* v,
                                                  const uint8_t* pre, int thread) {
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
        uint32_t x[4];
        ptx::ldmatrix_x4(x, matrices_at(pre, thread, pair));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float* both = v + 8 * pair + 2 * i;
            const float low = __uint_as_float(x[i] << 16);
            const float high = __uint_as_float(x[i] & 0xFFFF0000u);
            words[4 * pair + i] = pack_bf16(both[0] * activation_slope<C::kAct>(low),
                                            both[1] * activation_slope<C::kAct>(high));
        }
    }
}

template <class C>
__device__ __forceinline__ void store_tile_with_slope(const HopperParams& p, const GroupTile& tile,
                                                      const float (&d)[C::kSubtiles][C::kTileN / 2],
                                                      int consumer, uint8_t* slot,
                                                      const Staging& staging) {
    const SlopePieces pieces = slope_pieces<C>(p, tile, consumer);
    const auto for_each = [&](auto&& act) {
#pragma unroll
        for (int i = 0; i < C::kSubtiles; ++i)
#pragma unroll
            for (int piece = 0; piece < C::kTileN / 64; ++piece)
                if (i < pieces.lines && piece < pieces.per_row)
                    act(i, piece, slot + piece_offset<C>(i, piece));
    };
    for_each([&](int i, int piece, uint8_t* buffer) {
        uint32_t words[16];
        multiply_by_slope<C>(words, d[i] + 32 * piece, buffer, staging.thread);
        __syncwarp();  // a warp reads and writes only its own 16 rows of the buffer
        stage_bf16(buffer, staging.thread, words);
    });
    ptx::fence_proxy_async();
    ptx::named_barrier_sync(staging.barrier_id, 128);
    for_each([&](int i, int piece, const uint8_t* buffer) {
        write_piece<2>(staging, buffer,
                       piece_target<C>(p, tile, pieces.row0 + 64 * i, pieces.column0 + 64 * piece));
    });
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace headway::kernels
