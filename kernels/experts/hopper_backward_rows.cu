// First backward kernel on Hopper, row-stationary: recomputes the hidden activations and yields
//   dA = dy W2^T, dgate = <act(S), dA>, dH = gate dA act'(S), dx = dH W1, with S = x W1^T,
// per 128-row tile. dH and gate*act(S) leave as bf16 tile images for the weight-gradient kernel:
// each thread stores its accumulator columns as they lie, so within a 64-wide image hidden unit
//   32 h + 8 j + 2 q + e  sits at position  32 h + 8 q + 2 j + e   (h < 2, j < 4, q < 4, e < 2).
// Structure as the forward kernel: producer warps, two consumer warpgroups of 64 rows in turns, a
// gated slice of W1 as one operand of gate and up.
#include <algorithm>

#include "kernels/experts/hopper.hpp"
#include "kernels/experts/hopper_device.cuh"

namespace headway::kernels::hopper {
namespace {

// At d = 256 weights always stream and runs are of one tile: the consumers' registers hold neither
// the next tile's descriptor nor what finds it in a longer run.
template <int D>
inline constexpr bool streams_always = D == 256;

template <int D, Activation Act>
struct RowsLayout {
    static constexpr int parts = Act == Activation::swiglu ? 2 : 1;  // gate and up, or S
    // Hidden units of a chunk: registers hold no more of gate and up beside a wide dx.
    static constexpr int units = D >= 128 && parts == 2 ? 32 : 64;
    static constexpr int num_row_slots = D == 64 ? 6 : (D == 128 ? 4 : 2);
    static constexpr uint32_t half_bytes = 128 * D;             // 64 rows of x or dy
    static constexpr uint32_t row_slot_bytes = 2 * half_bytes;  // x, then dy
    static constexpr uint32_t slot1_bytes = 2 * parts * units * D;
    static constexpr uint32_t slot2_bytes = 2 * units * D;
    static constexpr int num_slots1 = (D == 256 ? 2 : 8 * 64 / D) * half_bytes / slot1_bytes;
    static constexpr int num_slots2 = (D == 64 ? 8 : 256 / D) * half_bytes / slot2_bytes;
    static constexpr uint32_t slots1_at = num_row_slots * row_slot_bytes;
    static constexpr uint32_t slots2_at = slots1_at + num_slots1 * slot1_bytes;
    static constexpr uint32_t smem_bytes = slots2_at + num_slots2 * slot2_bytes + 1024 + 512;
    static_assert(smem_bytes <= max_smem_bytes);

    __device__ static bool fits_rings(int num_chunks) {
        return !streams_always<D> && num_chunks <= num_slots1 && num_chunks <= num_slots2;
    }
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

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int D, Activation Act>
__device__ void stream_weights(const RowsParams& p, const CUtensorMap* map1,
                               const CUtensorMap* map2, unsigned char* smem,
                               RingBarriers<RowsLayout<D, Act>>& bars, const TileWalk& walk) {
    using Layout = RowsLayout<D, Act>;
    const int num_chunks = p.hidden / Layout::units;
    const bool resident = Layout::fits_rings(num_chunks);
    uint32_t load = 0;
    int group = -1;
#pragma unroll 1
    for (int t = 0; t < walk.count; ++t) {
        const TileDescriptor tile = walk.load(p.rows.tiles, t);
        if (resident && tile.group == group) continue;
        group = tile.group;
#pragma unroll 1
        for (int c = 0; c < num_chunks; ++c, ++load) {
            const auto at1 = ring_position<Layout::num_slots1>(load);
            ptx::mbarrier_wait(&bars.empty1[at1.slot], at1.phase ^ 1);
            load_slice1<D, Layout::units, Layout::parts == 2>(
                smem + Layout::slots1_at + at1.slot * Layout::slot1_bytes, map1,
                &bars.full1[at1.slot], group, p.hidden, c * Layout::units);
            const auto at2 = ring_position<Layout::num_slots2>(load);
            ptx::mbarrier_wait(&bars.empty2[at2.slot], at2.phase ^ 1);
            load_weight_slot<D, Layout::units>(
                smem + Layout::slots2_at + at2.slot * Layout::slot2_bytes, map2,
                &bars.full2[at2.slot], group * p.hidden + c * Layout::units);
        }
    }
}

template <typename Layout>
struct WeightRings {
    RingBarriers<Layout>& bars;
    uint32_t smem;
    uint32_t chunk_base;  // chunks streamed before this tile
    bool release;

    __device__ __forceinline__ RingPosition at1(int chunk) const {
        return ring_position<Layout::num_slots1>(chunk_base + chunk);
    }
    __device__ __forceinline__ RingPosition at2(int chunk) const {
        return ring_position<Layout::num_slots2>(chunk_base + chunk);
    }
    __device__ __forceinline__ uint32_t w1(int chunk) const {
        return smem + Layout::slots1_at + at1(chunk).slot * Layout::slot1_bytes;
    }
    __device__ __forceinline__ uint32_t w2(int chunk) const {
        return smem + Layout::slots2_at + at2(chunk).slot * Layout::slot2_bytes;
    }
    __device__ __forceinline__ void wait1(int chunk) const {
        ptx::mbarrier_wait(&bars.full1[at1(chunk).slot], at1(chunk).phase);
    }
    __device__ __forceinline__ void wait2(int chunk) const {
        ptx::mbarrier_wait(&bars.full2[at2(chunk).slot], at2(chunk).phase);
    }
    __device__ __forceinline__ void free1(int chunk) const {
        if (release && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&bars.empty1[at1(chunk).slot]);
    }
    __device__ __forceinline__ void free2(int chunk) const {
        if (release && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&bars.empty2[at2(chunk).slot]);
    }
};

// Whether the registers cannot hold dx, S, dA and the fragments of dH at once. dA of the next chunk
// then starts behind dx of this one: dx must be done before S can start, and the tensor cores have
// work meanwhile.
template <int D>
inline constexpr bool frees_fragments_early = D == 256;

// Start dA, and S, of a chunk. At d = 256 the rings hold two W1 slices and one or two of W2, so
// each is waited for as late and freed as early as can be: W2 after dA, W1 after dx += dH W1.
template <int D, int Units, typename Rings>
__device__ __forceinline__ void start_gradient(float (&da)[Units / 2], uint32_t dy,
                                               const Rings& ring, int chunk) {
    uint32_t w2 = ring.w2(chunk);
    keep_in_loop(w2);
    keep_in_loop(dy);
    ring.wait2(chunk);
    ptx::wgmma_fence();
    multiply_rows<D, Units>(da, dy, w2);
    ptx::wgmma_commit();
}
template <int D, int Parts, int Half, typename Rings>
__device__ __forceinline__ void start_hidden(float (&pre)[Parts][Half], uint32_t x,
                                             const Rings& ring, int chunk) {
    uint32_t w1 = ring.w1(chunk);
    keep_in_loop(x);
    keep_in_loop(w1);
    ring.wait1(chunk);
    ptx::wgmma_fence();
    multiply_rows<D, Parts * 2 * Half>(flat(pre), x, w1);
    ptx::wgmma_commit();
}

// Where a half tile's images of dH and of gate*act(S) begin.
struct Images {
    unsigned char* dh;
    unsigned char* gated;
};

// The `chunk`th slice's share of one matrix's images.
template <int Units>
__device__ __forceinline__ void store_chunk(unsigned char* images, int chunk,
                                            const uint32_t (&v)[Units / 16][4], uint32_t offset) {
    if constexpr (Units == 64)
        store_image(images + chunk * block_bytes, v, offset);
    else
        store_image<2>(images + chunk / 2 * block_bytes, v, offset, chunk % 2);
}

template <int D, Activation Act>
__device__ __forceinline__ void multiply_tile(float (&dx)[D / 2], RowPair& row_pair, uint32_t x,
                                              uint32_t dy,
                                              const WeightRings<RowsLayout<D, Act>>& ring,
                                              const RowsParams& p, const Images& images,
                                              uint64_t* rows_empty, int warpgroup,
                                              bool take_turns) {
    using Layout = RowsLayout<D, Act>;
    constexpr int parts = Layout::parts, units = Layout::units, rows1 = parts * units;
    const int num_chunks = p.hidden / units;
    const uint32_t offset = image_offset((threadIdx.x / 32 % 4) * 16);
    float pre[parts][units / 2];
    float da[units / 2];
    uint32_t dh[parts][units / 16][4];

    if (take_turns) wait_turn(warpgroup);
    start_gradient<D, units>(da, dy, ring, 0);
    start_hidden<D>(pre, x, ring, 0);
    if (take_turns) pass_turn(warpgroup);
    ptx::wgmma_wait<1>();
    ring.free2(0);
    ptx::wgmma_wait<0>();

#pragma unroll 1
    for (int c = 0;; ++c) {
        const bool last = c + 1 == num_chunks;
        if (last && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(rows_empty);
        uint32_t gated[units / 16][4];
        differentiate_slice<Act>(pre, da, row_pair, dh, gated);
        store_chunk<units>(images.gated, c, gated, offset);
#pragma unroll
        for (int s = 0; s < parts; ++s)
            store_chunk<units>(images.dh + s * (p.hidden / 64) * block_bytes, c, dh[s], offset);

        if (take_turns) wait_turn(warpgroup);
        ptx::wgmma_fence();
        multiply_hidden<D, rows1>(dx, flat(dh), ring.w1(c), c > 0);
        ptx::wgmma_commit();
        if (last) break;
        start_gradient<D, units>(da, dy, ring, c + 1);
        if constexpr (frees_fragments_early<D>) {
            ptx::wgmma_wait<1>();
            ring.free1(c);
        }
        start_hidden<D>(pre, x, ring, c + 1);
        if (take_turns) pass_turn(warpgroup);
        if constexpr (!frees_fragments_early<D>) {
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

template <int D, Activation Act>
__device__ void consume_tiles(const RowsParams& p, uint32_t smem,
                              RingBarriers<RowsLayout<D, Act>>& bars, const TileWalk& walk,
                              int warpgroup) {
    using Layout = RowsLayout<D, Act>;
    const int num_chunks = p.hidden / Layout::units;
    const bool resident = Layout::fits_rings(num_chunks);
    const int first_row = warpgroup * 64 + (threadIdx.x / 32 % 4) * 16;
    const int lane = threadIdx.x % 32;
    WeightRings<Layout> ring{bars, smem, 0, false};
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
            const uint32_t x = smem + at.slot * Layout::row_slot_bytes;
            const int64_t image =
                (int64_t{walk.idx(t)} * 2 + warpgroup) * (p.hidden / 64) * block_bytes;
            multiply_tile<D, Act>(
                dx, row_pair, x, x + Layout::half_bytes, ring, p,
                {p.hidden_gradient + image * Layout::parts, p.gated_hidden + image}, rows_empty,
                warpgroup, take_turns);
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
    using Layout = RowsLayout<D, Act>;
    constexpr bool narrow = !frees_fragments_early<D>;
    extern __shared__ unsigned char raw_smem[];
    __shared__ RingBarriers<Layout> bars;
    unsigned char* smem = raw_smem + (1024 - ptx::smem_addr(raw_smem) % 1024) % 1024;
    const uint32_t stages = ptx::smem_addr(smem);
    init_barriers(bars, gather_arrivals, 4);

    const int num_tiles = __ldg(p.rows.num_tiles);
    const bool resident = Layout::fits_rings(p.hidden / Layout::units);
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
            stream_weights<D, Act>(p, &map1, &map2, smem, bars, walk);
    } else {
        ptx::raise_registers<narrow ? 224 : 232>();
        consume_tiles<D, Act>(p, stages, bars, walk, warpgroup - 1);
    }
#endif
}

template <int D, Activation Act>
void launch(const RowsArguments& a, const RowsParams& params, cudaStream_t stream) {
    using Layout = RowsLayout<D, Act>;
    const auto kernel = backward_rows_kernel<D, Act>;
    HEADWAY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Layout::smem_bytes));
    const int64_t groups = a.shape.num_groups;
    const CUtensorMap map1 =
        weight_map(a.weights.w1, groups * a.shape.hidden_rows(), D, Layout::units);
    const CUtensorMap map2 = weight_map(a.weights.w2, groups * a.shape.hidden, D, Layout::units);
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
            return launch<D, Activation::swiglu>(a, params, stream);
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
