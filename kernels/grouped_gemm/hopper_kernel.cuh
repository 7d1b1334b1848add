// Persistent wgmma kernel of the grouped GEMM. Warpgroup 0 loads tiles by TMA (one thread),
// warpgroups 1 and 2 multiply; they meet at `full` and `empty` barriers. Loads may read rows of the
// next expert: forward and dgrad never store them, wgrad clears them in shared memory. NOTE:
// clusters of two blocks sharing A by multicast were 20-30 % slower on an H200 at every shape
// tried.
#pragma once

#include "kernels/grouped_gemm/hopper_epilogue.cuh"
#include "kernels/grouped_gemm/tile_walk.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace headway::kernels {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
__device__ __forceinline__ TileWalk make_walk(const HopperParams& p) {
    const bool wgrad = C::kForm == GroupedForm::wgrad;
    TileWalk walk{};
    walk.offsets = p.offsets;
    walk.num_groups = p.num_groups;
    walk.rows_per_tile = wgrad ? 0 : C::kTileM;
    walk.fixed_m_tiles = wgrad ? (p.out_m + C::kTileM - 1) / C::kTileM : 0;
    walk.num_n_tiles = (p.out_n + C::kTileN - 1) / C::kTileN;
    walk.window = -32;
    return walk;
}

template <class C>
__device__ __forceinline__ int num_k_blocks(const HopperParams& p, const GroupTile& tile) {
    const int length = C::kForm == GroupedForm::wgrad ? tile.num_rows : p.reduction;
    return (length + C::kTileK - 1) / C::kTileK;
}

struct PipelineSlot {
    int stage = 0;
    uint32_t phase = 0;
    template <int Stages>
    __device__ __forceinline__ void advance() {
        if (++stage == Stages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

// Loads one k block of A and B into a slot; `full` counts the bytes.
template <class C>
__device__ __forceinline__ void load_slot(const HopperParams& p, const GroupTile& tile,
                                          uint8_t* slot, uint64_t* full, int k_block) {
    constexpr int kBoxBytes = 64 * 128;
    const int k0 = k_block * C::kTileK;
    const int m0 = tile.m_tile * C::kTileM;
    const int n0 = tile.n_tile * C::kTileN;
    if constexpr (C::kAMnMajor) {
#pragma unroll
        for (int i = 0; i < C::kTileM / 64; ++i)
            ptx::tma_load_2d(slot + i * kBoxBytes, &p.a, full, m0 + 64 * i, tile.row_begin + k0);
    } else {
        ptx::tma_load_2d(slot, &p.a, full, k0, tile.row_begin + m0);
    }
    uint8_t* b = slot + C::kABytes;
    if constexpr (C::kForm == GroupedForm::forward) {
        ptx::tma_load_3d(b, &p.b, full, k0, n0, tile.group);
    } else {
#pragma unroll
        for (int i = 0; i < C::kTileN / 64; ++i) {
            if constexpr (C::kForm == GroupedForm::dgrad)
                ptx::tma_load_3d(b + i * kBoxBytes, &p.b, full, n0 + 64 * i, k0, tile.group);
            else
                ptx::tma_load_2d(b + i * kBoxBytes, &p.b, full, n0 + 64 * i, tile.row_begin + k0);
        }
    }
}

template <class C>
__device__ __forceinline__ void produce(const HopperParams& p, uint8_t* smem, uint64_t* full,
                                        uint64_t* empty) {
    TileWalk walk = make_walk<C>(p);
    GroupTile tile;
    PipelineSlot at;
    for (int t = blockIdx.x; walk.find(t, tile); t += gridDim.x) {
        if (threadIdx.x % 32 == 0) {
            const int blocks = num_k_blocks<C>(p, tile);
            for (int kb = 0; kb < blocks; ++kb) {
                ptx::mbarrier_wait(&empty[at.stage], at.phase ^ 1);
                ptx::mbarrier_arrive_expect_tx(&full[at.stage], C::kStageBytes);
                load_slot<C>(p, tile, smem + at.stage * C::kStageBytes, &full[at.stage], kb);
                at.advance<C::kStages>();
            }
        }
        __syncwarp();
    }
}

// wgrad's last k block: rows beyond the group are another expert's; clear them in this warpgroup's
// part of A and in all of B (both warpgroups write the same zeros there).
template <class C>
__device__ __forceinline__ void clear_tail_rows(uint8_t* slot, int valid, int consumer,
                                                int thread) {
    const auto clear = [&](uint8_t* box) {
        for (int i = thread; i < (C::kTileK - valid) * 8; i += 128)
            reinterpret_cast<uint4*>(box + valid * 128)[i] = make_uint4(0, 0, 0, 0);
    };
    for (int i = 0; i < C::kSubtiles; ++i) clear(slot + (consumer * C::kSubtiles + i) * 64 * 128);
    for (int i = 0; i < C::kTileN / 64; ++i) clear(slot + C::kABytes + i * 64 * 128);
    ptx::fence_proxy_async();
    ptx::named_barrier_sync(1 + consumer, 128);
}

template <class C>
__device__ __forceinline__ void multiply_slot(float (&d)[C::kSubtiles][C::kTileN / 2],
                                              const uint8_t* slot, int consumer, bool accumulate) {
    constexpr int kAStep = C::kAMnMajor ? 128 : 2, kBStep = C::kBMnMajor ? 128 : 2;
    constexpr int kLeading = C::kTileK * 128;
    const uint32_t a0 = ptx::smem_addr(slot) + consumer * (C::kABytes / 2);
    const uint64_t b = ptx::wgmma_descriptor(ptx::smem_addr(slot) + C::kABytes,
                                             C::kBMnMajor ? kLeading : 16, 1024);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < C::kSubtiles; ++i) {
        const uint64_t a =
            ptx::wgmma_descriptor(a0 + i * 64 * 128, C::kAMnMajor ? kLeading : 16, 1024);
#pragma unroll
        for (int k = 0; k < C::kTileK / 16; ++k)
            ptx::WgmmaSs<C::kTileN, C::kAMnMajor, C::kBMnMajor>::mma(
                d[i], a + k * kAStep, b + k * kBStep, accumulate || k > 0);
    }
    ptx::wgmma_commit();
}

__device__ __forceinline__ void free_slot(uint64_t* empty) {
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(empty);
}

// One piece of 64 rows x 64 columns (32 in fp32) at accumulator column 64 * piece.
template <class C>
__device__ __forceinline__ void store_rows(const HopperParams& p, float (&d)[C::kTileN / 2],
                                           PieceTarget to, Staging& staging) {
    constexpr int kStagingBytes = C::kStagingBytes;
    const int n0 = to.column0;
    const int lane = staging.thread % 32, warp = staging.thread / 32;
    if constexpr (C::kFp32Out) {
#pragma unroll
        for (int piece = 0; piece < C::kTileN / 32; ++piece) {
            to.column0 = n0 + 32 * piece;
            if (to.column0 >= p.out_n) break;
            uint8_t* buffer = staging.acquire(kStagingBytes);
            stage_fp32(buffer, staging.thread, d, 4 * piece);
            release_piece<4>(staging, buffer, to);
        }
        return;
    }
    constexpr bool kGated = C::kAct == GroupedActivation::swiglu;
#pragma unroll
    for (int piece = 0; piece < C::kTileN / 64; ++piece) {
        if (n0 + 64 * piece >= p.out_n) break;
        float* v = d + 32 * piece;
        uint32_t words[16];
        if (C::kForm == GroupedForm::forward && C::kAct != GroupedActivation::none &&
            p.pre_out != nullptr) {
#pragma unroll
            for (int i = 0; i < 16; ++i) words[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
            PieceTarget pre = to;
            pre.map = &p.pre;
            pre.base = p.pre_out;
            pre.column0 = n0 + 64 * piece;
            pre.num_columns = p.out_n;
            uint8_t* buffer = staging.acquire(kStagingBytes);
            stage_bf16(buffer, staging.thread, words);
            release_piece<2>(staging, buffer, pre);
        }
        if constexpr (kGated) {
            // Blocks of 8 columns alternate gate, up: two pieces of accumulators make one of
            // output.
            if (piece % 2 == 1) continue;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const int at = 8 * (i / 2) + 2 * (i % 2);
                words[i] =
                    pack_bf16(silu_fast(v[at]) * v[at + 4], silu_fast(v[at + 1]) * v[at + 5]);
            }
            to.column0 = (n0 + 64 * piece) / 2;
        } else if constexpr (C::kForm == GroupedForm::dgrad && C::kAct != GroupedActivation::none) {
            const auto* pre = p.pre_in + static_cast<int64_t>(to.row0) * p.out_n + n0 + 64 * piece;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const int row = 16 * warp + 8 * (i % 2) + lane / 4,
                          column = 8 * (i / 2) + 2 * (lane % 4);
                float2 x = make_float2(0.0f, 0.0f);
                if (row < to.num_valid && n0 + 64 * piece + column < p.out_n)
                    x = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(
                        pre + static_cast<int64_t>(row) * p.out_n + column));
                words[i] = pack_bf16(v[2 * i] * activation_slope<C::kAct>(x.x),
                                     v[2 * i + 1] * activation_slope<C::kAct>(x.y));
            }
            to.column0 = n0 + 64 * piece;
        } else {
#pragma unroll
            for (int i = 0; i < 16; ++i)
                words[i] = pack_bf16(activate<C::kAct>(v[2 * i]), activate<C::kAct>(v[2 * i + 1]));
            to.column0 = n0 + 64 * piece;
        }
        uint8_t* buffer = staging.acquire(kStagingBytes);
        stage_bf16(buffer, staging.thread, words);
        release_piece<2>(staging, buffer, to);
    }
}

template <class C>
__device__ __forceinline__ void store_tile(const HopperParams& p, const GroupTile& tile,
                                           float (&d)[C::kSubtiles][C::kTileN / 2], int consumer,
                                           Staging& staging) {
#pragma unroll
    for (int i = 0; i < C::kSubtiles; ++i) {
        const int row = tile.m_tile * C::kTileM + consumer * (C::kTileM / 2) + 64 * i;
        PieceTarget to{};
        to.map = &p.c;
        to.base = p.c_ptr;
        to.column0 = tile.n_tile * C::kTileN;
        to.num_columns = C::kAct == GroupedActivation::swiglu ? p.out_n / 2 : p.out_n;
        if (C::kForm == GroupedForm::wgrad) {
            to.row0 = row;
            to.num_valid = p.out_m - row;
            to.group = tile.group;
        } else {
            to.row0 = tile.row_begin + row;
            to.num_valid = tile.num_rows - row;
            to.group = -1;
        }
        if (to.num_valid > 0) store_rows<C>(p, d[i], to, staging);
    }
}

template <class C>
__device__ __forceinline__ void consume(const HopperParams& p, uint8_t* smem, uint64_t* full,
                                        uint64_t* empty, int consumer) {
    TileWalk walk = make_walk<C>(p);
    GroupTile tile;
    PipelineSlot at;
    Staging staging{smem + C::kStagingOffset + consumer * 2 * C::kStagingBytes, 1 + consumer,
                    static_cast<int>(threadIdx.x) % 128};
    for (int t = blockIdx.x; walk.find(t, tile); t += gridDim.x) {
        float d[C::kSubtiles][C::kTileN / 2];
        const int blocks = num_k_blocks<C>(p, tile);
        if (C::kForm == GroupedForm::wgrad && blocks == 0) {
#pragma unroll
            for (int i = 0; i < C::kSubtiles * C::kTileN / 2; ++i)
                d[i / (C::kTileN / 2)][i % (C::kTileN / 2)] = 0;
        }
        int previous = 0;
        for (int kb = 0; kb < blocks; ++kb) {
            ptx::mbarrier_wait(&full[at.stage], at.phase);
            uint8_t* slot = smem + at.stage * C::kStageBytes;
            if constexpr (C::kForm == GroupedForm::wgrad) {
                const int valid = tile.num_rows - kb * C::kTileK;
                if (valid < C::kTileK) clear_tail_rows<C>(slot, valid, consumer, staging.thread);
            }
            multiply_slot<C>(d, slot, consumer, kb > 0);
            if (kb > 0) {
                ptx::wgmma_wait<1>();
                free_slot(&empty[previous]);
            }
            previous = at.stage;
            at.advance<C::kStages>();
        }
        ptx::wgmma_wait<0>();
        if (blocks > 0) free_slot(&empty[previous]);
#pragma unroll
        for (int i = 0; i < C::kSubtiles; ++i) ptx::wgmma_pin(d[i]);
        store_tile<C>(p, tile, d, consumer, staging);
    }
    if (staging.thread == 0) ptx::tma_store_wait_all();
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ HopperParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t raw_smem[];
    uint8_t* smem = raw_smem + (1024 - ptx::smem_addr(raw_smem) % 1024) % 1024;
    auto* full = reinterpret_cast<uint64_t*>(smem + C::kBarrierOffset);
    auto* empty = full + C::kStages;
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < C::kStages; ++i) {
            ptx::mbarrier_init(&full[i], 1);
            ptx::mbarrier_init(&empty[i], 8);  // one arrival of each consumer warp
        }
        ptx::mbarrier_init_fence();
    }
    __syncthreads();
    if (warp < 4) {
        ptx::lower_registers<40>();
        if (warp == 0) produce<C>(p, smem, full, empty);
    } else {
        ptx::raise_registers<232>();
        consume<C>(p, smem, full, empty, warp / 4 - 1);
    }
#endif
}

}  // namespace headway::kernels
