// Fused expert forward on Hopper: y = act(x W1^T) W2 without the hidden activations ever leaving
// registers. A persistent block walks its share of the 128-row tiles; producer warps gather x rows
// (cp.async) and stream slices of 32 to 128 hidden units of W1 and W2 (TMA); each of two consumer
// warpgroups owns 64 rows: S = x W1^T (wgmma), activation in registers, O += act(S) W2 (wgmma, A
// from registers). Slices of one group that fit the rings stay there until the group ends. A gated
// slice of W1 holds the gate's rows, then up's of the same units: one product yields both.
// The consumers see all slices of all their tiles as one sequence of steps, and start S of the next
// step, whatever its tile, together with O of this one. They issue these products in turns, so that
// one warpgroup multiplies while the other activates and, where a tile ends, stores.
#include <algorithm>

#include "kernels/experts/hopper.hpp"
#include "kernels/experts/hopper_device.cuh"

namespace headway::kernels::hopper {
namespace {

template <int D, int Units, Activation Act>
struct ForwardLayout {
    static constexpr bool gated = Act == Activation::swiglu;
    static constexpr int num_row_slots = D == 64 ? 12 : (D == 128 ? 6 : 3);
    static constexpr int slice_rows1 = (gated ? 2 : 1) * Units;
    static constexpr uint32_t row_slot_bytes = 128 * D;  // 64 rows of x
    static constexpr uint32_t slot1_bytes = 2 * slice_rows1 * D;
    static constexpr uint32_t slot2_bytes = 2 * Units * D;
    static constexpr int weight_bytes = 128 * 1024;
    static constexpr int num_slots2 = weight_bytes / (slot1_bytes + slot2_bytes);
    static constexpr int num_slots1 = (weight_bytes - num_slots2 * slot2_bytes) / slot1_bytes;
    static constexpr uint32_t slots1_at = num_row_slots * row_slot_bytes;
    static constexpr uint32_t slots2_at = slots1_at + num_slots1 * slot1_bytes;
    static constexpr uint32_t smem_bytes = slots1_at + weight_bytes + 1024 + 512;
    static_assert(smem_bytes <= max_smem_bytes && num_slots1 >= num_slots2);

    __device__ static bool fits(int num_chunks) { return num_chunks <= num_slots2; }
};

// With an odd ring a slot serves the two warpgroups alternately, so both watch every load: a
// warpgroup that skipped the other's would take an old phase of the slot for its own.
template <typename Layout>
inline constexpr bool shared_slots = Layout::num_row_slots % 2 == 1;

// Warps that gather a slot together: two where not all of a tile's rows fit a tile ahead.
template <int D>
inline constexpr int warps_a_slot = D == 256 ? 2 : 1;

struct ForwardParams {
    RowGrouping rows;
    const __nv_bfloat16* x;
    __nv_bfloat16* y;
    int hidden;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int D, int Units, Activation Act>
__device__ void stream_weights(const ForwardParams& p, const CUtensorMap* map1,
                               const CUtensorMap* map2, unsigned char* smem,
                               RingBarriers<ForwardLayout<D, Units, Act>>& bars,
                               const TileWalk& walk) {
    using Layout = ForwardLayout<D, Units, Act>;
    const int num_chunks = p.hidden / Units;
    const bool resident = Layout::fits(num_chunks);
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
            load_slice1<D, Units, Layout::gated>(
                smem + Layout::slots1_at + at1.slot * Layout::slot1_bytes, map1,
                &bars.full1[at1.slot], group, p.hidden, c * Units);
            const auto at2 = ring_position<Layout::num_slots2>(load);
            ptx::mbarrier_wait(&bars.empty2[at2.slot], at2.phase ^ 1);
            load_weight_slot<D, Units>(smem + Layout::slots2_at + at2.slot * Layout::slot2_bytes,
                                       map2, &bars.full2[at2.slot], group * p.hidden + c * Units);
        }
    }
}

// Where a consumer stands in the sequence of steps: slice `chunk` of this block's tile `tile`.
// S runs ahead of the activation by a step, so a consumer has two of these.
struct Place {
    int tile = 0;
    int chunk = 0;
    uint32_t load = 0;  // of the step's slices of W1 and W2
    bool last = false;  // no tile after this one has these weights in the rings
    int row_begin = 0;  // of the tile
    int num_rows = 0;
};

template <int D, int Units, Activation Act>
struct Consumer {
    using Layout = ForwardLayout<D, Units, Act>;
    using Pre = float[Layout::slice_rows1 / Units][Units / 2];  // gate and up, or S

    const ForwardParams& p;
    RingBarriers<Layout>& bars;
    const TileWalk& walk;
    uint32_t stages;
    int warpgroup;
    int num_chunks;
    bool resident;
    bool elected;
    TileDescriptor ahead{}, second_ahead{};  // of the tiles after s.tile
    Place s, o;  // the step whose S is issued next, the step activated next

    __device__ __forceinline__ void arrive(uint64_t* bar, bool when = true) const {
        if (when && elected) ptx::mbarrier_arrive(bar);
    }
    // Takes the descriptor `ahead` for tile s.tile. What it loads is looked at a tile later.
    __device__ __forceinline__ void enter_tile() {
        s.row_begin = ahead.row_begin;
        s.num_rows = ahead.num_rows;
        s.last = !resident || second_ahead.group != ahead.group;
        ahead = second_ahead;
        second_ahead = walk.load(p.rows.tiles, s.tile + 2);
    }
    __device__ __forceinline__ void start() {
        ahead = walk.load(p.rows.tiles, 0);
        second_ahead = walk.load(p.rows.tiles, 1);
        enter_tile();
        o = s;
    }
    __device__ __forceinline__ uint32_t row_slot(int tile) const {
        return ring_position<Layout::num_row_slots>(2 * tile + warpgroup).slot;
    }
    __device__ __forceinline__ void wait_rows(uint32_t load) const {
        const auto at = ring_position<Layout::num_row_slots>(load);
        ptx::mbarrier_wait(&bars.rows_full[at.slot], at.phase);
    }
    __device__ __forceinline__ uint32_t slot1(uint32_t load) const {
        return ring_position<Layout::num_slots1>(load).slot;
    }
    __device__ __forceinline__ uint32_t wait_second(uint32_t load) const {
        const auto at = ring_position<Layout::num_slots2>(load);
        ptx::mbarrier_wait(&bars.full2[at.slot], at.phase);
        return stages + Layout::slots2_at + at.slot * Layout::slot2_bytes;
    }
    __device__ __forceinline__ void free_second(uint32_t load, bool last) const {
        arrive(&bars.empty2[ring_position<Layout::num_slots2>(load).slot], last);
    }

    // Waits for the operands of the next S.
    __device__ __forceinline__ void await_hidden() {
        if (s.chunk == 0) {
            wait_rows(2 * s.tile + warpgroup);
            ptx::fence_proxy_async();
        }
        const auto at = ring_position<Layout::num_slots1>(s.load);
        ptx::mbarrier_wait(&bars.full1[at.slot], at.phase);
    }
    // Starts it, and steps on.
    __device__ __forceinline__ void start_hidden(Pre& pre) {
        multiply_rows<D, Layout::slice_rows1>(
            flat(pre), stages + row_slot(s.tile) * Layout::row_slot_bytes,
            stages + Layout::slots1_at + slot1(s.load) * Layout::slot1_bytes);
    }
    __device__ __forceinline__ void step_hidden() {
        ++s.load;
        if (++s.chunk < num_chunks) return;
        s.chunk = 0;
        if (!s.last) s.load -= num_chunks;
        ++s.tile;
        enter_tile();
    }
    // After S of step `o` is complete.
    __device__ __forceinline__ void release_hidden() const {
        arrive(&bars.empty1[slot1(o.load)], o.last);
        const bool last_chunk = o.chunk + 1 == num_chunks;
        if (last_chunk) arrive(&bars.rows_empty[row_slot(o.tile)]);
        if constexpr (shared_slots<Layout>) {
            // The first half's slot is the next tile's second half's: it waits for its reader
            // alone.
            if (warpgroup == 1 ? o.chunk > 0 : !last_chunk) return;
            const uint32_t other = 2 * o.tile + 1 - warpgroup;
            wait_rows(other);
            arrive(&bars.rows_empty[ring_position<Layout::num_row_slots>(other).slot]);
        }
    }
    __device__ __forceinline__ void store(const float (&out)[D / 2], int row_begin,
                                          int num_rows) const {
        store_output<D, Act>(out, p.y + static_cast<int64_t>(row_begin) * D,
                             warpgroup * 64 + (threadIdx.x / 32) % 4 * 16, num_rows);
    }

    struct Before {  // the step before `o`
        uint32_t load = 0;
        bool last = false;
        int row_begin = 0, num_rows = 0;
    };
    Before before;

    // Waits for S of step `o`, activates it and starts O += act(S) W2 and S of the next step.
    __device__ __forceinline__ void step(float (&out)[D / 2], Pre& pre, bool first, bool more) {
        const Place of_s = s;
        ptx::wgmma_wait<0>();
        release_hidden();
        if (!first) {
            free_second(before.load, before.last);
            if (o.chunk == 0) store(out, before.row_begin, before.num_rows);
        }
        uint32_t hidden[Units / 16][4];
        activate_slice<Act, Layout::gated, Units>(pre, hidden);
        const uint32_t w2 = wait_second(o.load);
        if (more) await_hidden();
        wait_turn(warpgroup);
        ptx::wgmma_fence();
        multiply_hidden<D, Units>(out, hidden, w2, o.chunk > 0);
        start_hidden(pre);  // after the last step a repetition that nobody reads
        ptx::wgmma_commit();
        pass_turn(warpgroup);
        before = {o.load, o.last, o.row_begin, o.num_rows};
        o = of_s;
        if (more) step_hidden();
    }

    __device__ __forceinline__ void run() {
        const int num_steps = walk.count * num_chunks;
        if (num_steps == 0) return;
        float out[D / 2];
        Pre pre;
        start();
        await_hidden();
        if (warpgroup == 1) pass_turn(1);
        wait_turn(warpgroup);
        ptx::wgmma_fence();
        start_hidden(pre);
        ptx::wgmma_commit();
        pass_turn(warpgroup);
        step_hidden();
#pragma unroll 1
        for (int i = 0; i < num_steps; ++i) step(out, pre, i == 0, i + 1 < num_steps);
        ptx::wgmma_wait<0>();
        free_second(before.load, before.last);
        store(out, before.row_begin, before.num_rows);
    }
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int D, int Units, Activation Act>
__global__ void __launch_bounds__(num_threads, 1)
    forward_kernel(const __grid_constant__ CUtensorMap map1,
                   const __grid_constant__ CUtensorMap map2, const ForwardParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    using Layout = ForwardLayout<D, Units, Act>;
    extern __shared__ unsigned char raw_smem[];
    __shared__ RingBarriers<Layout> bars;
    unsigned char* smem = raw_smem + (1024 - ptx::smem_addr(raw_smem) % 1024) % 1024;
    const uint32_t stages = ptx::smem_addr(smem);
    init_barriers(bars, warps_a_slot<D> * gather_arrivals, shared_slots<Layout> ? 8 : 4);

    const int num_tiles = __ldg(p.rows.num_tiles);
    const int num_chunks = p.hidden / Units;
    const bool resident = Layout::fits(num_chunks);
    const TileWalk walk = tile_walk(num_tiles, run_length(num_tiles, resident));
    const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (warpgroup == 0) {
        ptx::lower_registers<40>();
        const int warp = threadIdx.x / 32;
        if (warp > 0)
            gather_halves<Layout::num_row_slots, warps_a_slot<D>>(
                p.rows, walk, bars.rows_full, bars.rows_empty, warp - 1,
                [&](uint32_t slot, RowTokens tokens, int share) {
                    gather_rows<D, warps_a_slot<D>>(stages + slot * Layout::row_slot_bytes, p.x,
                                                    tokens, share);
                });
        else if (threadIdx.x == 0)
            stream_weights<D, Units, Act>(p, &map1, &map2, smem, bars, walk);
    } else {
        ptx::raise_registers<232>();
        Consumer<D, Units, Act>{
            p, bars, walk, stages, warpgroup - 1, num_chunks, resident, threadIdx.x % 32 == 0}
            .run();
    }
#endif
}

template <int D, int Units, Activation Act>
void launch(const ExpertShape& shape, const ExpertWeights& weights, const ForwardParams& params,
            cudaStream_t stream) {
    using Layout = ForwardLayout<D, Units, Act>;
    const auto kernel = forward_kernel<D, Units, Act>;
    HEADWAY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Layout::smem_bytes));
    const int64_t groups = shape.num_groups;
    const CUtensorMap map1 = weight_map(weights.w1, groups * shape.hidden_rows(), D, Units);
    const CUtensorMap map2 = weight_map(weights.w2, groups * shape.hidden, D, Units);
    const int grid = static_cast<int>(std::min<int64_t>(num_multiprocessors(), shape.max_tiles()));
    kernel<<<grid, num_threads, Layout::smem_bytes, stream>>>(map1, map2, params);
    check_launch();
}

// Slices of as many hidden units as registers hold beside the output: S then reads less shared
// memory.
template <int D, Activation Act>
void launch_slices(const ExpertShape& shape, const ExpertWeights& weights,
                   const ForwardParams& params, cudaStream_t stream) {
    constexpr bool gated = Act == Activation::swiglu;
    if constexpr (D <= 128 && !gated) {
        if (shape.hidden % 128 == 0) return launch<D, 128, Act>(shape, weights, params, stream);
    }
    launch<D, D == 256 && gated ? 32 : 64, Act>(shape, weights, params, stream);
}

template <int D>
void launch_activation(const ExpertShape& shape, const ExpertWeights& weights,
                       const ForwardParams& params, cudaStream_t stream) {
    switch (shape.activation) {
        case Activation::gelu_erf:
            return launch_slices<D, Activation::gelu_erf>(shape, weights, params, stream);
        case Activation::gelu_tanh:
            return launch_slices<D, Activation::gelu_tanh>(shape, weights, params, stream);
        case Activation::swiglu:
            return launch_slices<D, Activation::swiglu>(shape, weights, params, stream);
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
