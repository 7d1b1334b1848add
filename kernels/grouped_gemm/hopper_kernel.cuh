// Persistent wgmma kernel of the grouped GEMM. Warpgroup 0 loads tiles by TMA (one thread),
// warpgroups 1 and 2 multiply; they meet at `full` and `empty` barriers. Loads may read rows of the
// next expert: forward and dgrad never store them, wgrad clears them in shared memory. NOTE:
// clusters of two blocks sharing A by multicast were 20-30 % slower on an H200 at every shape
// tried.
#pragma once

#include "kernels/grouped_gemm/hopper_store.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace headway::kernels {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
__device__ __forceinline__ TileWalk make_walk(const HopperParams& p) {
    const bool wgrad = C::kForm == GroupedForm::wgrad;
    TileWalk walk{};
    walk.offsets = p.offsets;
    walk.num_rows = p.rows;
    walk.slice_rows = p.slice_rows;
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

// A box whose first column is `column` of a matrix kept in planes of `width` columns.
__device__ __forceinline__ void load_columns(uint8_t* dst, const CUtensorMap* map, uint64_t* full,
                                             int column, int width, int row) {
    const int plane = column / width;
    ptx::tma_load_3d(dst, map, full, column - plane * width, row, plane);
}

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
            load_columns(slot + i * kBoxBytes, &p.a, full, m0 + 64 * i, p.a_width,
                         tile.row_begin + k0);
    } else {
        load_columns(slot, &p.a, full, k0, p.a_width, tile.row_begin + m0);
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
                load_columns(b + i * kBoxBytes, &p.b, full, n0 + 64 * i, p.b_width,
                             tile.row_begin + k0);
        }
    }
}

template <class C>
inline constexpr bool has_slope =
    C::kForm == GroupedForm::dgrad&& C::kAct != GroupedActivation::none;

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
            if constexpr (has_slope<C>) {
                for (int i = 0; i < 2 * C::kSlopeSlots; ++i) {
                    ptx::mbarrier_wait(&empty[at.stage], at.phase ^ 1);
                    load_slope_pieces<C>(p, tile, i % 2, i / 2, smem + at.stage * C::kStageBytes,
                                         &full[at.stage]);
                    at.advance<C::kStages>();
                }
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

// Frees the slot of the last pieces once its stores have read them: thread 0 issued the bulk ones,
// every warp its own masked ones. Put off until the next slot's pieces are made or, at a tile's
// end, the next tile's products run.
__device__ __forceinline__ void free_stored_slot(uint64_t*& empty, int thread) {
    if (empty == nullptr) return;
    if (thread == 0) ptx::tma_store_wait_read<0>();
    __syncwarp();
    free_slot(empty);
    empty = nullptr;
}

template <class C>
__device__ __forceinline__ void consume(const HopperParams& p, uint8_t* smem, uint64_t* full,
                                        uint64_t* empty, int consumer) {
    TileWalk walk = make_walk<C>(p);
    GroupTile tile;
    PipelineSlot at;
    Staging staging{smem + C::kStagingOffset + consumer * 2 * C::kStagingBytes, 1 + consumer,
                    static_cast<int>(threadIdx.x) % 128};
    uint64_t* stored_from = nullptr;  // `empty` of the slot that a tile's stores still read
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
            if constexpr (has_slope<C>) {
                if (kb == 0) free_stored_slot(stored_from, staging.thread);
            }
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
        if constexpr (has_slope<C>) {
#pragma unroll
            for (int part = 0; part < C::kSlopeSlots; ++part) {
                for (int owner = 0; owner < 2; ++owner) {
                    ptx::mbarrier_wait(&full[at.stage], at.phase);
                    if (owner == consumer) {
                        store_slope_slot<C>(p, tile, d, consumer, part,
                                            smem + at.stage * C::kStageBytes, staging, [&] {
                                                if constexpr (C::kSlopeSlots > 1)
                                                    free_stored_slot(stored_from, staging.thread);
                                            });
                        stored_from = &empty[at.stage];
                    } else {
                        free_slot(&empty[at.stage]);
                    }
                    at.advance<C::kStages>();
                }
            }
        } else {
            store_tile<C>(p, tile, d, consumer, staging);
        }
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
        ptx::lower_registers<56>();
        if (warp == 0) produce<C>(p, smem, full, empty);
    } else {
        ptx::raise_registers<224>();
        consume<C>(p, smem, full, empty, warp / 4 - 1);
    }
#endif
}

}  // namespace headway::kernels
