// First backward kernel on Hopper, row-stationary: recomputes the hidden activations and yields
//   dA = dy W2^T, dgate = <act(S), dA>, dH = gate dA act'(S), dx = dH W1, with S = x W1^T,
// per 128-row tile. dH and gate*act(S) leave as bf16 tile images for the weight-gradient kernel:
// each thread stores its accumulator columns as they lie, so within a 64-wide image hidden unit
//   32 h + 8 j + 2 q + e  sits at position  32 h + 8 q + 2 j + e   (h < 2, j < 4, q < 4, e < 2).
// Structure as the forward kernel: producer warps, two consumer warpgroups of 64 rows in turns.
#include <algorithm>

#include "kernels/experts/hopper.hpp"
#include "kernels/experts/hopper_device.cuh"

namespace headway::kernels::hopper {
namespace {

template <int D>
struct RowsLayout {
    static constexpr int num_row_slots = D == 64 ? 6 : (D == 128 ? 4 : 2);
    static constexpr int num_slots1 = D == 64 ? 8 : (D == 128 ? 4 : 2);
    static constexpr int num_slots2 = D == 64 ? 8 : (D == 128 ? 2 : 1);
    static constexpr uint32_t half_bytes = 128 * D;             // 64 rows of x or dy, or a slice
    static constexpr uint32_t row_slot_bytes = 2 * half_bytes;  // x, then dy
    static constexpr uint32_t rows_bytes = num_row_slots * row_slot_bytes;
    static constexpr uint32_t slots1_bytes = num_slots1 * half_bytes;
    static constexpr uint32_t slots2_bytes = num_slots2 * half_bytes;
    static constexpr uint32_t smem_bytes = rows_bytes + slots1_bytes + slots2_bytes + 1024 + 512;
    static_assert(smem_bytes <= max_smem_bytes);
};

template <int D>
struct RowsBarriers {
    using Layout = RowsLayout<D>;
    uint64_t rows_full[Layout::num_row_slots];
    uint64_t rows_empty[Layout::num_row_slots];
    uint64_t full1[Layout::num_slots1];
    uint64_t empty1[Layout::num_slots1];
    uint64_t full2[Layout::num_slots2];
    uint64_t empty2[Layout::num_slots2];
};

struct RowsParams {
    RowGrouping rows;
    const __nv_bfloat16* x;
    const __nv_bfloat16* dy_token;
    __nv_bfloat16* dx_row;
    float* dgate;
    unsigned char* hidden_gradient;
    unsigned char* gated_hidden;
    int hidden;
};

template <int D>
__device__ void init_barriers(RowsBarriers<D>& bars) {
    using Layout = RowsLayout<D>;
    if (threadIdx.x == 0) {
        for (int i = 0; i < Layout::num_row_slots; ++i) {
            ptx::mbarrier_init(&bars.rows_full[i], gather_arrivals);
            ptx::mbarrier_init(&bars.rows_empty[i], 4);
        }
        for (int i = 0; i < Layout::num_slots1; ++i) {
            ptx::mbarrier_init(&bars.full1[i], 1);
            ptx::mbarrier_init(&bars.empty1[i], 8);
        }
        for (int i = 0; i < Layout::num_slots2; ++i) {
            ptx::mbarrier_init(&bars.full2[i], 1);
            ptx::mbarrier_init(&bars.empty2[i], 8);
        }
        ptx::mbarrier_init_fence();
        ptx::fence_proxy_async();
    }
    __syncthreads();
}

// At d = 256 weights always stream and runs are of one tile: the consumers' registers hold neither
// the next tile's descriptor nor what finds it in a longer run.
template <int D>
inline constexpr bool streams_always = D == 256;

// W1 slices a chunk: 1, or 2 (gate, up) when gated.
template <int D, int Slices1>
__device__ __forceinline__ bool fits_ring(int num_chunks) {
    return !streams_always<D> && num_chunks * Slices1 <= RowsLayout<D>::num_slots1 &&
           num_chunks <= RowsLayout<D>::num_slots2;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int D, int Slices1>
__device__ void stream_weights(const RowsParams& p, const CUtensorMap* map1,
                               const CUtensorMap* map2, unsigned char* slots, RowsBarriers<D>& bars,
                               const TileWalk& walk) {
    using Layout = RowsLayout<D>;
    const int num_chunks = p.hidden / 64;
    const bool resident = fits_ring<D, Slices1>(num_chunks);
    uint32_t load1 = 0;
    uint32_t load2 = 0;
    int group = -1;
#pragma unroll 1
    for (int t = 0; t < walk.count; ++t) {
        const TileDescriptor tile = walk.load(p.rows.tiles, t);
        if (resident && tile.group == group) continue;
        group = tile.group;
#pragma unroll 1
        for (int c = 0; c < num_chunks; ++c) {
#pragma unroll 1
            for (int s = 0; s < Slices1; ++s, ++load1) {
                const auto at = ring_position<Layout::num_slots1>(load1);
                ptx::mbarrier_wait(&bars.empty1[at.slot], at.phase ^ 1);
                load_weight_slot<D>(slots + at.slot * Layout::half_bytes, map1,
                                    &bars.full1[at.slot],
                                    (group * Slices1 + s) * p.hidden + c * 64);
            }
            const auto at = ring_position<Layout::num_slots2>(load2++);
            ptx::mbarrier_wait(&bars.empty2[at.slot], at.phase ^ 1);
            load_weight_slot<D>(slots + Layout::slots1_bytes + at.slot * Layout::half_bytes, map2,
                                &bars.full2[at.slot], group * p.hidden + c * 64);
        }
    }
}

template <int D, int Slices1>
struct WeightRings {
    using Layout = RowsLayout<D>;
    RowsBarriers<D>& bars;
    uint32_t slots;
    uint32_t chunk_base;  // chunks streamed before this tile
    bool release;

    __device__ __forceinline__ RingPosition at1(int chunk, int slice) const {
        return ring_position<Layout::num_slots1>((chunk_base + chunk) * Slices1 + slice);
    }
    __device__ __forceinline__ RingPosition at2(int chunk) const {
        return ring_position<Layout::num_slots2>(chunk_base + chunk);
    }
    __device__ __forceinline__ uint32_t w1(int chunk, int slice) const {
        return slots + at1(chunk, slice).slot * Layout::half_bytes;
    }
    __device__ __forceinline__ uint32_t w2(int chunk) const {
        return slots + Layout::slots1_bytes + at2(chunk).slot * Layout::half_bytes;
    }
    __device__ __forceinline__ void wait1(int chunk) const {
#pragma unroll
        for (int s = 0; s < Slices1; ++s)
            ptx::mbarrier_wait(&bars.full1[at1(chunk, s).slot], at1(chunk, s).phase);
    }
    __device__ __forceinline__ void wait2(int chunk) const {
        ptx::mbarrier_wait(&bars.full2[at2(chunk).slot], at2(chunk).phase);
    }
    __device__ __forceinline__ void free1(int chunk) const {
        if (!release || threadIdx.x % 32 != 0) return;
#pragma unroll
        for (int s = 0; s < Slices1; ++s) ptx::mbarrier_arrive(&bars.empty1[at1(chunk, s).slot]);
    }
    __device__ __forceinline__ void free2(int chunk) const {
        if (release && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&bars.empty2[at2(chunk).slot]);
    }
};

// Whether the registers cannot hold dx, S, dA and the fragments of dH at once.
template <int D, int Slices1>
inline constexpr bool frees_fragments_early = D == 256 || (D == 128 && Slices1 == 2);
// Whether dA of the next chunk starts behind dx of this one: where dx must be done before S can
// start, the tensor cores have work meanwhile.
template <int D>
inline constexpr bool starts_gradient_early = D == 256;

// Start dA, and S, of a chunk. At d = 256 the rings hold two W1 slices and one of W2, so each is
// waited for as late and freed as early as can be: W2 after dA, W1 after dx += dH W1.
template <int D, int Slices1>
__device__ __forceinline__ void start_gradient(float (&da)[32], uint32_t dy,
                                               const WeightRings<D, Slices1>& ring, int chunk) {
    uint32_t w2 = ring.w2(chunk);
    keep_in_loop(w2);
    keep_in_loop(dy);
    ring.wait2(chunk);
    ptx::wgmma_fence();
    multiply_rows<D>(da, dy, w2);
    ptx::wgmma_commit();
}
template <int D, int Slices1>
__device__ __forceinline__ void start_hidden(float (&pre)[Slices1][32], uint32_t x,
                                             const WeightRings<D, Slices1>& ring, int chunk) {
    keep_in_loop(x);
    ring.wait1(chunk);
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < Slices1; ++s) {
        uint32_t w1 = ring.w1(chunk, s);
        keep_in_loop(w1);
        multiply_rows<D>(pre[s], x, w1);
    }
    ptx::wgmma_commit();
}

template <int D, Activation Act, int Slices1>
__device__ __forceinline__ void multiply_tile(float (&dx)[D / 2], RowPair& row_pair, uint32_t x,
                                              uint32_t dy, const WeightRings<D, Slices1>& ring,
                                              const RowsParams& p, unsigned char* dh_images,
                                              unsigned char* gated_images, uint64_t* rows_empty,
                                              int warpgroup, bool take_turns) {
    const int num_chunks = p.hidden / 64;
    const uint32_t offset = image_offset((threadIdx.x / 32 % 4) * 16);
    float pre[Slices1][32];
    float da[32];
    uint32_t dh[Slices1][4][4];

    if (take_turns) wait_turn(warpgroup);
    start_gradient<D, Slices1>(da, dy, ring, 0);
    start_hidden<D, Slices1>(pre, x, ring, 0);
    if (take_turns) pass_turn(warpgroup);
    ptx::wgmma_wait<1>();
    ring.free2(0);
    ptx::wgmma_wait<0>();

#pragma unroll 1
    for (int c = 0;; ++c) {
        const bool last = c + 1 == num_chunks;
        if (last && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(rows_empty);
        uint32_t gated[4][4];
        differentiate_slice<Act, Slices1>(pre, da, row_pair, dh, gated);
        store_image(gated_images + c * block_bytes, gated, offset);
#pragma unroll
        for (int s = 0; s < Slices1; ++s)
            store_image(dh_images + (s * num_chunks + c) * block_bytes, dh[s], offset);

        if (take_turns) wait_turn(warpgroup);
        ptx::wgmma_fence();
#pragma unroll
        for (int s = 0; s < Slices1; ++s)
            multiply_hidden<D>(dx, dh[s], ring.w1(c, s), c > 0 || s > 0);
        ptx::wgmma_commit();
        if (last) break;
        if constexpr (starts_gradient_early<D>) {
            start_gradient<D, Slices1>(da, dy, ring, c + 1);
            ptx::wgmma_wait<1>();
            ring.free1(c);
        } else {
            if constexpr (frees_fragments_early<D, Slices1>) {
                ptx::wgmma_wait<0>();
                ring.free1(c);
            }
            start_gradient<D, Slices1>(da, dy, ring, c + 1);
        }
        start_hidden<D, Slices1>(pre, x, ring, c + 1);
        if (take_turns) pass_turn(warpgroup);
        if constexpr (!frees_fragments_early<D, Slices1>) {
            ptx::wgmma_wait<2>();
            ring.free1(c);
        }
        ptx::wgmma_wait<1>();
        ring.free2(c + 1);
        ptx::wgmma_wait<0>();
    }
    if (take_turns) pass_turn(warpgroup);
    ptx::wgmma_wait<0>();
    ring.free1(num_chunks - 1);
}

template <int D, Activation Act, int Slices1>
__device__ void consume_tiles(const RowsParams& p, uint32_t stages, uint32_t slots,
                              RowsBarriers<D>& bars, const TileWalk& walk, int warpgroup) {
    using Layout = RowsLayout<D>;
    const int num_chunks = p.hidden / 64;
    const bool resident = fits_ring<D, Slices1>(num_chunks);
    const int first_row = warpgroup * 64 + (threadIdx.x / 32 % 4) * 16;
    const int lane = threadIdx.x % 32;
    WeightRings<D, Slices1> ring{bars, slots, 0, false};
    if (warpgroup == 1) pass_turn(1);

    TileDescriptor next{};
    if constexpr (!streams_always<D>) next = walk.load(p.rows.tiles, 0);
    for (int t = 0; t < walk.count; ++t) {
        TileDescriptor tile = next;
        if constexpr (streams_always<D>) {
            tile = walk.load(p.rows.tiles, t);
            walk.prefetch(p.rows.tiles, t + 1);
            ring.release = true;
        } else {
            next = walk.load(p.rows.tiles, t + 1);
            ring.release = !resident || next.group != tile.group;
        }
        const bool take_turns = tile.num_rows > 64;  // else the second half is all padding
        const auto at = ring_position<Layout::num_row_slots>(2 * t + warpgroup);
        uint64_t* rows_empty = &bars.rows_empty[at.slot];

        if (warpgroup == 1 && !take_turns) {
            ptx::mbarrier_wait(&bars.rows_full[at.slot], at.phase);
            if (lane == 0) ptx::mbarrier_arrive(rows_empty);
            for (int c = 0; c < num_chunks; ++c) {
                ring.wait1(c);
                ring.wait2(c);
                ring.free1(c);
                ring.free2(c);
            }
        } else {
            RowPair row_pair(
                RowPair::load(p.rows.row_gate + tile.row_begin, first_row, tile.num_rows));
            ptx::mbarrier_wait(&bars.rows_full[at.slot], at.phase);
            ptx::fence_proxy_async();
            float dx[D / 2];
            const uint32_t x = stages + at.slot * Layout::row_slot_bytes;
            const int64_t image = (int64_t{walk.idx(t)} * 2 + warpgroup) * num_chunks * block_bytes;
            multiply_tile<D, Act, Slices1>(dx, row_pair, x, x + Layout::half_bytes, ring, p,
                                           p.hidden_gradient + image * Slices1,
                                           p.gated_hidden + image, rows_empty, warpgroup,
                                           take_turns);
            store_rows<D>(dx, p.dx_row + static_cast<int64_t>(tile.row_begin) * D, first_row,
                          tile.num_rows);
            row_pair.store(p.dgate + tile.row_begin, first_row, tile.num_rows);
        }
        if (ring.release) ring.chunk_base += num_chunks;
    }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int D, Activation Act>
__global__ void __launch_bounds__(num_threads, 1)
    backward_rows_kernel(const __grid_constant__ CUtensorMap map1,
                         const __grid_constant__ CUtensorMap map2, const RowsParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    using Layout = RowsLayout<D>;
    constexpr int slices1 = Act == Activation::swiglu ? 2 : 1;
    constexpr bool narrow = !frees_fragments_early<D, slices1>;
    extern __shared__ unsigned char raw_smem[];
    __shared__ RowsBarriers<D> bars;
    unsigned char* smem = raw_smem + (1024 - ptx::smem_addr(raw_smem) % 1024) % 1024;
    const uint32_t stages = ptx::smem_addr(smem);
    init_barriers<D>(bars);

    const int num_tiles = __ldg(p.rows.num_tiles);
    const bool resident = fits_ring<D, slices1>(p.hidden / 64);
    const TileWalk walk = tile_walk(num_tiles, run_length(num_tiles, resident));
    const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (warpgroup == 0) {
        ptx::lower_registers<narrow ? 56 : 40>();
        const int warp = threadIdx.x / 32;
        if (warp > 0)
            gather_halves<Layout::num_row_slots, 1>(
                p.rows, walk, bars.rows_full, bars.rows_empty, warp - 1,
                [&](uint32_t slot, RowTokens tokens, int) {
                    const uint32_t x = stages + slot * Layout::row_slot_bytes;
                    gather_rows<D, 1>(x, p.x, tokens, 0);
                    gather_rows<D, 1>(x + Layout::half_bytes, p.dy_token, tokens, 0);
                });
        else if (threadIdx.x == 0)
            stream_weights<D, slices1>(p, &map1, &map2, smem + Layout::rows_bytes, bars, walk);
    } else {
        ptx::raise_registers<narrow ? 224 : 232>();
        consume_tiles<D, Act, slices1>(p, stages, stages + Layout::rows_bytes, bars, walk,
                                       warpgroup - 1);
    }
#endif
}

template <int D, Activation Act>
void launch(const RowsArguments& a, const RowsParams& params, cudaStream_t stream) {
    using Layout = RowsLayout<D>;
    const auto kernel = backward_rows_kernel<D, Act>;
    HEADWAY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Layout::smem_bytes));
    const int64_t groups = a.shape.num_groups;
    const CUtensorMap map1 = weight_map(a.weights.w1, groups * a.shape.hidden_rows(), D);
    const CUtensorMap map2 = weight_map(a.weights.w2, groups * a.shape.hidden, D);
    const int grid =
        static_cast<int>(std::min<int64_t>(num_multiprocessors(), a.shape.max_tiles()));
    kernel<<<grid, num_threads, Layout::smem_bytes, stream>>>(map1, map2, params);
    check_launch();
}

template <int D>
void launch_activation(const RowsArguments& a, const RowsParams& params, cudaStream_t stream) {
    switch (a.shape.activation) {
        case Activation::gelu_erf:
            return launch<D, Activation::gelu_erf>(a, params, stream);
        case Activation::gelu_tanh:
            return launch<D, Activation::gelu_tanh>(a, params, stream);
        case Activation::swiglu:
            if constexpr (D < 256) return launch<D, Activation::swiglu>(a, params, stream);
    }
}

}  // namespace

void backward_rows(const RowsArguments& a, cudaStream_t stream) {
    const RowsParams params{a.rows,
                            a.x,
                            a.dy_token,
                            a.gradients.dx_row,
                            a.gradients.dgate,
                            static_cast<unsigned char*>(a.scratch.hidden_gradient),
                            static_cast<unsigned char*>(a.scratch.gated_hidden),
                            a.shape.hidden};
    if (a.shape.width == 64) launch_activation<64>(a, params, stream);
    if (a.shape.width == 128) launch_activation<128>(a, params, stream);
    if (a.shape.width == 256) launch_activation<256>(a, params, stream);
}

}  // namespace headway::kernels::hopper
