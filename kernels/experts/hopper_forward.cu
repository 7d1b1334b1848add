// Fused expert forward on Hopper: y = act(x W1^T) W2 without the hidden activations ever leaving
// registers. A persistent block walks its share of the 128-row tiles; producer warps gather x rows
// (cp.async) and stream 64-hidden-unit slices of W1 and W2 (TMA); each of two consumer warpgroups
// owns 64 rows: S = x W1^T (wgmma), activation in registers, O += act(S) W2 (wgmma, A from
// registers). Slices of one group that fit the ring stay there until the group ends.
#include <algorithm>

#include "kernels/experts/hopper.hpp"
#include "kernels/experts/hopper_device.cuh"

namespace headway::kernels::hopper {
namespace {

template <int D>
struct ForwardLayout {
    static constexpr int num_row_slots = D == 64 ? 12 : (D == 128 ? 6 : 3);
    static constexpr int num_weight_slots = D == 64 ? 16 : (D == 128 ? 8 : 4);
    static constexpr uint32_t half_bytes = 128 * D;  // 64 rows of x, or 64 hidden units
    static constexpr uint32_t rows_bytes = num_row_slots * half_bytes;
    static constexpr uint32_t weights_bytes = num_weight_slots * half_bytes;
    static constexpr uint32_t smem_bytes = rows_bytes + weights_bytes + 1024 + 512;
    static_assert(smem_bytes <= max_smem_bytes);
    // With an odd ring a slot serves the two warpgroups alternately, so both watch every load: a
    // warpgroup that skipped the other's would take an old phase of the slot for its own.
    static constexpr bool shared_slots = num_row_slots % 2 == 1;
};

template <int D>
struct ForwardBarriers {
    uint64_t rows_full[ForwardLayout<D>::num_row_slots];
    uint64_t rows_empty[ForwardLayout<D>::num_row_slots];
    uint64_t weights_full[ForwardLayout<D>::num_weight_slots];
    uint64_t weights_empty[ForwardLayout<D>::num_weight_slots];
};

struct ForwardParams {
    RowGrouping rows;
    const __nv_bfloat16* x;
    __nv_bfloat16* y;
    int hidden;
};

template <int D>
__device__ void init_barriers(ForwardBarriers<D>& bars) {
    using Layout = ForwardLayout<D>;
    if (threadIdx.x == 0) {
        for (int i = 0; i < Layout::num_row_slots; ++i) {
            ptx::mbarrier_init(&bars.rows_full[i], gather_arrivals);
            ptx::mbarrier_init(&bars.rows_empty[i], Layout::shared_slots ? 8 : 4);
        }
        for (int i = 0; i < Layout::num_weight_slots; ++i) {
            ptx::mbarrier_init(&bars.weights_full[i], 1);
            ptx::mbarrier_init(&bars.weights_empty[i], 8);
        }
        ptx::mbarrier_init_fence();
        ptx::fence_proxy_async();
    }
    __syncthreads();
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int D, bool Gated>
__device__ void stream_weights(const ForwardParams& p, const CUtensorMap* map1,
                               const CUtensorMap* map2, unsigned char* slots,
                               ForwardBarriers<D>& bars, const TileWalk& walk) {
    using Layout = ForwardLayout<D>;
    constexpr int slices = Gated ? 3 : 2;
    const int num_chunks = p.hidden / 64;
    const bool resident = num_chunks * slices <= Layout::num_weight_slots;
    uint32_t load = 0;
    int group = -1;
#pragma unroll 1
    for (int t = 0; t < walk.count; ++t) {
        const TileDescriptor tile = walk.load(p.rows.tiles, t);
        if (resident && tile.group == group) continue;
        group = tile.group;
#pragma unroll 1
        for (int c = 0; c < num_chunks; ++c) {
#pragma unroll 1
            for (int s = 0; s < slices; ++s, ++load) {
                const auto at = ring_position<Layout::num_weight_slots>(load);
                ptx::mbarrier_wait(&bars.weights_empty[at.slot], at.phase ^ 1);
                const bool second = s == slices - 1;
                const int row = second ? group * p.hidden + c * 64
                                       : group * p.hidden * (slices - 1) + s * p.hidden + c * 64;
                load_weight_slot<D>(slots + at.slot * Layout::half_bytes, second ? map2 : map1,
                                    &bars.weights_full[at.slot], row);
            }
        }
    }
}

// One warpgroup's rows of a tile, and how it hands their slot back.
template <int D>
struct RowHalf {
    using Layout = ForwardLayout<D>;
    ForwardBarriers<D>& bars;
    uint32_t load;        // its half tile
    uint32_t other_load;  // the other warpgroup's

    __device__ __forceinline__ uint32_t slot() const {
        return ring_position<Layout::num_row_slots>(load).slot;
    }
    __device__ __forceinline__ static void wait(ForwardBarriers<D>& bars, uint32_t load) {
        const auto at = ring_position<Layout::num_row_slots>(load);
        ptx::mbarrier_wait(&bars.rows_full[at.slot], at.phase);
    }
    __device__ __forceinline__ void wait() const { wait(bars, load); }
    __device__ __forceinline__ void release() const {
        if constexpr (Layout::shared_slots) wait(bars, other_load);
        if (threadIdx.x % 32 != 0) return;
        ptx::mbarrier_arrive(&bars.rows_empty[slot()]);
        if constexpr (Layout::shared_slots)
            ptx::mbarrier_arrive(
                &bars.rows_empty[ring_position<Layout::num_row_slots>(other_load).slot]);
    }
};

// One warpgroup's view of the weight ring while it works through a tile.
template <int D, int Slices>
struct WeightRing {
    using Layout = ForwardLayout<D>;
    ForwardBarriers<D>& bars;
    uint32_t slots;
    uint32_t first_load;
    bool release;

    __device__ __forceinline__ RingPosition at(int chunk, int slice) const {
        return ring_position<Layout::num_weight_slots>(first_load + chunk * Slices + slice);
    }
    __device__ __forceinline__ uint32_t address(int chunk, int slice) const {
        return slots + at(chunk, slice).slot * Layout::half_bytes;
    }
    __device__ __forceinline__ void wait(int chunk, int slice) const {
        const RingPosition position = at(chunk, slice);
        ptx::mbarrier_wait(&bars.weights_full[position.slot], position.phase);
    }
    __device__ __forceinline__ void free(int chunk, int slice) const {
        if (release && threadIdx.x % 32 == 0)
            ptx::mbarrier_arrive(&bars.weights_empty[at(chunk, slice).slot]);
    }
};

template <int D, int Slices>
__device__ __forceinline__ void skip_tile(const WeightRing<D, Slices>& ring, int num_chunks) {
    for (int c = 0; c < num_chunks; ++c) {
        for (int s = 0; s < Slices; ++s) {
            ring.wait(c, s);
            ring.free(c, s);
        }
    }
}

template <int D, Activation Act, int Slices>
__device__ __forceinline__ void multiply_tile(float (&out)[D / 2], uint32_t rows,
                                              const WeightRing<D, Slices>& ring, int num_chunks,
                                              const RowHalf<D>& half, int warpgroup,
                                              bool take_turns) {
    constexpr bool gated = Slices == 3;
    float pre[Slices - 1][32];
    uint32_t hidden[4][4];

#pragma unroll
    for (int s = 0; s < Slices - 1; ++s) ring.wait(0, s);
    if (take_turns) wait_turn(warpgroup);
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < Slices - 1; ++s) multiply_rows<D>(pre[s], rows, ring.address(0, s));
    ptx::wgmma_commit();
    if (take_turns) pass_turn(warpgroup);
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int s = 0; s < Slices - 1; ++s) ring.free(0, s);
    activate_slice<Act, gated>(pre, hidden);

#pragma unroll 1
    for (int c = 1; c < num_chunks; ++c) {
        keep_in_loop(rows);
        ring.wait(c - 1, Slices - 1);
#pragma unroll
        for (int s = 0; s < Slices - 1; ++s) ring.wait(c, s);
        if (take_turns) wait_turn(warpgroup);
        ptx::wgmma_fence();
        multiply_hidden<D>(out, hidden, ring.address(c - 1, Slices - 1), c > 1);
#pragma unroll
        for (int s = 0; s < Slices - 1; ++s) multiply_rows<D>(pre[s], rows, ring.address(c, s));
        ptx::wgmma_commit();
        if (take_turns) pass_turn(warpgroup);
        ptx::wgmma_wait<0>();
        ring.free(c - 1, Slices - 1);
#pragma unroll
        for (int s = 0; s < Slices - 1; ++s) ring.free(c, s);
        activate_slice<Act, gated>(pre, hidden);
    }

    half.release();
    ring.wait(num_chunks - 1, Slices - 1);
    if (take_turns) wait_turn(warpgroup);
    ptx::wgmma_fence();
    multiply_hidden<D>(out, hidden, ring.address(num_chunks - 1, Slices - 1), num_chunks > 1);
    ptx::wgmma_commit();
    if (take_turns) pass_turn(warpgroup);
    ptx::wgmma_wait<0>();
    ring.free(num_chunks - 1, Slices - 1);
}

// Whether registers hold two slices of S and two sets of activation fragments beside the output.
template <int D, int Slices>
inline constexpr bool pipelined = D <= 128 && Slices == 2;

// Step c of a tile: starts S(c+1) into `next`, activates `pre` = S(c) while it and O += A(c-1) W2
// run, and starts O += A(c) W2.
template <int D, Activation Act, bool Last>
__device__ __forceinline__ void pipeline_step(float (&out)[D / 2], float (&pre)[1][32],
                                              float (&next)[1][32], uint32_t (&hidden)[4][4],
                                              uint32_t rows, const WeightRing<D, 2>& ring, int c) {
    if constexpr (!Last) {
        keep_in_loop(rows);
        ring.wait(c + 1, 0);
        ptx::wgmma_fence();
        multiply_rows<D>(next[0], rows, ring.address(c + 1, 0));
        ptx::wgmma_commit();
    }
    ptx::wgmma_wait<Last ? 1 : 2>();
    ring.free(c, 0);
    if (c >= 2) ring.free(c - 2, 1);
    activate_slice<Act, false>(pre, hidden);
    ring.wait(c, 1);
    ptx::wgmma_fence();
    multiply_hidden<D>(out, hidden, ring.address(c, 1), c > 0);
    ptx::wgmma_commit();
}

// As multiply_tile, with the next slice's S in flight during every activation, so that one
// warpgroup alone keeps the tensor cores busy.
template <int D, Activation Act>
__device__ __forceinline__ void multiply_tile_pipelined(float (&out)[D / 2], uint32_t rows,
                                                        const WeightRing<D, 2>& ring,
                                                        int num_chunks, const RowHalf<D>& half) {
    float even[1][32];
    float odd[1][32];
    uint32_t hidden[2][4][4];
    ring.wait(0, 0);
    ptx::wgmma_fence();
    multiply_rows<D>(even[0], rows, ring.address(0, 0));
    ptx::wgmma_commit();
    ptx::wgmma_commit();  // an empty group in the place of O += A(-1) W2, for the counts of the
                          // waits

    int c = 0;
#pragma unroll 1
    for (; c + 2 < num_chunks; c += 2) {
        pipeline_step<D, Act, false>(out, even, odd, hidden[0], rows, ring, c);
        pipeline_step<D, Act, false>(out, odd, even, hidden[1], rows, ring, c + 1);
    }
    if (c + 1 < num_chunks) {
        pipeline_step<D, Act, false>(out, even, odd, hidden[0], rows, ring, c);
        pipeline_step<D, Act, true>(out, odd, even, hidden[1], rows, ring, c + 1);
    } else {
        pipeline_step<D, Act, true>(out, even, odd, hidden[0], rows, ring, c);
    }
    half.release();
    ptx::wgmma_wait<0>();
    if (num_chunks > 1) ring.free(num_chunks - 2, 1);
    ring.free(num_chunks - 1, 1);
}

template <int D, Activation Act>
__device__ void consume_tiles(const ForwardParams& p, uint32_t stages, uint32_t slots,
                              ForwardBarriers<D>& bars, const TileWalk& walk, int warpgroup) {
    using Layout = ForwardLayout<D>;
    constexpr int slices = Act == Activation::swiglu ? 3 : 2;
    const int num_chunks = p.hidden / 64;
    const bool resident = num_chunks * slices <= Layout::num_weight_slots;
    const int warp = (threadIdx.x / 32) % 4;
    WeightRing<D, slices> ring{bars, slots, 0, false};
    if (!pipelined<D, slices> && warpgroup == 1) pass_turn(1);

    TileDescriptor next = walk.load(p.rows.tiles, 0);
    for (int t = 0; t < walk.count; ++t) {
        const TileDescriptor tile = next;
        next = walk.load(p.rows.tiles, t + 1);
        ring.release = !resident || next.group != tile.group;
        const bool take_turns = tile.num_rows > 64;  // else the second half is all padding
        const RowHalf<D> half{bars, uint32_t(2 * t + warpgroup), uint32_t(2 * t + 1 - warpgroup)};
        const uint32_t rows = stages + half.slot() * Layout::half_bytes;
        half.wait();
        ptx::fence_proxy_async();

        if (warpgroup == 1 && !take_turns) {
            half.release();
            skip_tile<D, slices>(ring, num_chunks);
        } else {
            float out[D / 2];
            if constexpr (pipelined<D, slices>)
                multiply_tile_pipelined<D, Act>(out, rows, ring, num_chunks, half);
            else
                multiply_tile<D, Act, slices>(out, rows, ring, num_chunks, half, warpgroup,
                                              take_turns);
            store_rows<D>(out, p.y + static_cast<int64_t>(tile.row_begin) * D,
                          warpgroup * 64 + warp * 16, tile.num_rows);
        }
        if (ring.release) ring.first_load += num_chunks * slices;
    }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int D, Activation Act>
__global__ void __launch_bounds__(num_threads, 1)
    forward_kernel(const __grid_constant__ CUtensorMap map1,
                   const __grid_constant__ CUtensorMap map2, const ForwardParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    using Layout = ForwardLayout<D>;
    constexpr bool narrow = D < 256;
    extern __shared__ unsigned char raw_smem[];
    __shared__ ForwardBarriers<D> bars;
    unsigned char* smem = raw_smem + (1024 - ptx::smem_addr(raw_smem) % 1024) % 1024;
    const uint32_t stages = ptx::smem_addr(smem);
    init_barriers<D>(bars);

    constexpr bool gated = Act == Activation::swiglu;
    const int num_tiles = __ldg(p.rows.num_tiles);
    const bool resident = p.hidden / 64 * (gated ? 3 : 2) <= Layout::num_weight_slots;
    const TileWalk walk = tile_walk(num_tiles, run_length(num_tiles, resident));
    const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (warpgroup == 0) {
        ptx::lower_registers<narrow ? 56 : 40>();
        const int warp = threadIdx.x / 32;
        if (warp > 0)
            gather_halves<Layout::num_row_slots>(
                p.rows, walk, bars.rows_full, bars.rows_empty, warp - 1,
                [&](uint32_t slot, RowTokens tokens) {
                    gather_rows<D, 1>(stages + slot * Layout::half_bytes, p.x, tokens, 0);
                });
        else if (threadIdx.x == 0)
            stream_weights<D, gated>(p, &map1, &map2, smem + Layout::rows_bytes, bars, walk);
    } else {
        ptx::raise_registers<narrow ? 224 : 232>();
        consume_tiles<D, Act>(p, stages, stages + Layout::rows_bytes, bars, walk, warpgroup - 1);
    }
#endif
}

template <int D, Activation Act>
void launch(const ExpertShape& shape, const ExpertWeights& weights, const ForwardParams& params,
            cudaStream_t stream) {
    using Layout = ForwardLayout<D>;
    const auto kernel = forward_kernel<D, Act>;
    HEADWAY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Layout::smem_bytes));
    const int64_t groups = shape.num_groups;
    const CUtensorMap map1 = weight_map(weights.w1, groups * shape.hidden_rows(), D);
    const CUtensorMap map2 = weight_map(weights.w2, groups * shape.hidden, D);
    const int grid = static_cast<int>(std::min<int64_t>(num_multiprocessors(), shape.max_tiles()));
    kernel<<<grid, num_threads, Layout::smem_bytes, stream>>>(map1, map2, params);
    check_launch();
}

template <int D>
void launch_activation(const ExpertShape& shape, const ExpertWeights& weights,
                       const ForwardParams& params, cudaStream_t stream) {
    switch (shape.activation) {
        case Activation::gelu_erf:
            return launch<D, Activation::gelu_erf>(shape, weights, params, stream);
        case Activation::gelu_tanh:
            return launch<D, Activation::gelu_tanh>(shape, weights, params, stream);
        case Activation::swiglu:
            return launch<D, Activation::swiglu>(shape, weights, params, stream);
    }
}

}  // namespace

void forward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
             const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream) {
    const ForwardParams params{rows, x, y, shape.hidden};
    if (shape.width == 64) launch_activation<64>(shape, weights, params, stream);
    if (shape.width == 128) launch_activation<128>(shape, weights, params, stream);
    if (shape.width == 256) launch_activation<256>(shape, weights, params, stream);
}

}  // namespace headway::kernels::hopper
