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
    const int columns = C::kAct != GroupedActivation::swiglu ? p.out_n
                        : C::kForm == GroupedForm::forward   ? p.out_n / 2
                                                             : p.out_n * 2;
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
                    pack_bf16(Silu::value(v[at]) * v[at + 4], Silu::value(v[at + 1]) * v[at + 5]);
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

// dgrad with an activation: a warpgroup's pieces of `pre`, which arrive in slots of the ring (one,
// gated two) behind the tile's last k block and are overwritten in place by the pieces of dA made
// from them. Piece n is number n % kPrePieces of 64-row line n / kPrePieces.
struct SlopePieces {
    int row0, column0;  // within the group, of `pre`
    int lines, per_row;

    template <class C>
    __device__ __forceinline__ bool has(int piece) const {
        return piece / C::kPrePieces < lines && piece % C::kPrePieces < per_row;
    }
    template <class C>
    __device__ __forceinline__ int row(int piece) const {
        return row0 + 64 * (piece / C::kPrePieces);
    }
    template <class C>
    __device__ __forceinline__ int column(int piece) const {
        return column0 + 64 * (piece % C::kPrePieces);
    }
};
template <class C>
__device__ __forceinline__ SlopePieces slope_pieces(const HopperParams& p, const GroupTile& tile,
                                                    int consumer) {
    static_assert(C::kSlotPieces * C::kStagingBytes <= C::kStageBytes);
    const int row0 = tile.m_tile * C::kTileM + consumer * (C::kTileM / 2);
    const int column0 = tile.n_tile * C::kTileN * C::kPreColumns;
    return {row0, column0, max(0, min(C::kSubtiles, (tile.num_rows - row0 + 63) / 64)),
            min(C::kPrePieces, (p.out_n * C::kPreColumns - column0 + 63) / 64)};
}

// Those of a warpgroup's `part`th slot.
template <class C>
__device__ __forceinline__ void load_slope_pieces(const HopperParams& p, const GroupTile& tile,
                                                  int consumer, int part, uint8_t* slot,
                                                  uint64_t* full) {
    const SlopePieces pieces = slope_pieces<C>(p, tile, consumer);
    int count = 0;
    for (int i = 0; i < C::kSlotPieces; ++i)
        count += pieces.has<C>(part * C::kSlotPieces + i) ? 1 : 0;
    ptx::mbarrier_arrive_expect_tx(full, count * C::kStagingBytes);
    // NOTE: unrolled by nvcc 13.0 these loads take wrong operands or are illegal instructions.
#pragma unroll 1
    for (int i = 0; i < C::kSlotPieces; ++i) {
        const int piece = part * C::kSlotPieces + i;
        if (pieces.has<C>(piece))
            ptx::tma_load_3d(slot + i * C::kStagingBytes, &p.pre, full, pieces.column<C>(piece),
                             tile.row_begin + pieces.row<C>(piece), 0);
    }
}

// bf16 pairs.
__device__ __forceinline__ float low_half(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float high_half(uint32_t pair) {
    return __uint_as_float(pair & 0xFFFF0000u);
}

// A piece of `pre` holds 8 columns of the gate, then 8 of up, for 8 of the product's.
__device__ __forceinline__ void multiply_by_gates(uint32_t (&words)[16], const float* v,
                                                  const uint8_t* pre, int thread) {
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
        uint32_t x[4];
        ptx::ldmatrix_x4(x, matrices_at(pre, thread, pair));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* both = v + 4 * pair + 2 * half;
            const ValueSlope low = Silu::value_slope(low_half(x[half]), 0.5f);
            const ValueSlope high = Silu::value_slope(high_half(x[half]), 0.5f);
            words[4 * pair + half] = pack_bf16(both[0] * low_half(x[2 + half]) * low.slope,
                                               both[1] * high_half(x[2 + half]) * high.slope);
            words[4 * pair + 2 + half] = pack_bf16(both[0] * low.value, both[1] * high.value);
        }
    }
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
            words[4 * pair + i] = pack_bf16(both[0] * activation_slope<C::kAct>(low_half(x[i])),
                                            both[1] * activation_slope<C::kAct>(high_half(x[i])));
        }
    }
}

// One slot's pieces. `before_stores` runs when they are made and none has left.
template <class C, typename BeforeStores>
__device__ __forceinline__ void store_slope_slot(const HopperParams& p, const GroupTile& tile,
                                                 const float (&d)[C::kSubtiles][C::kTileN / 2],
                                                 int consumer, int part, uint8_t* slot,
                                                 const Staging& staging,
                                                 BeforeStores before_stores) {
    const SlopePieces pieces = slope_pieces<C>(p, tile, consumer);
    const auto for_each = [&](auto&& act) {
#pragma unroll
        for (int i = 0; i < C::kSlotPieces; ++i) {
            const int piece = part * C::kSlotPieces + i;
            if (pieces.has<C>(piece)) act(piece, slot + i * C::kStagingBytes);
        }
    };
    for_each([&](int piece, uint8_t* buffer) {
        constexpr int kValues = 32 / C::kPreColumns;
        uint32_t words[16];
        const float* v = d[piece / C::kPrePieces] + kValues * (piece % C::kPrePieces);
        if constexpr (C::kAct == GroupedActivation::swiglu)
            multiply_by_gates(words, v, buffer, staging.thread);
        else
            multiply_by_slope<C>(words, v, buffer, staging.thread);
        __syncwarp();  // a warp reads and writes only its own 16 rows of the buffer
        stage_bf16(buffer, staging.thread, words);
    });
    ptx::fence_proxy_async();
    ptx::named_barrier_sync(staging.barrier_id, 128);
    before_stores();
    for_each([&](int piece, const uint8_t* buffer) {
        write_piece<2>(staging, buffer,
                       piece_target<C>(p, tile, pieces.row<C>(piece), pieces.column<C>(piece)));
    });
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace headway::kernels
