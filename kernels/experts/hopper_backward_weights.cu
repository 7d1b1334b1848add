// Second backward kernel on Hopper, expert-stationary: over the rows of a group,
//   dW1 = dH^T x,  dW2 = (gate act(S))^T dy,
// from the tile images the rows kernel left and rows of x and dy gathered again. A work item is one
// matrix's strip of 128 or 256 hidden units for at most `split_rows` rows of one group. Groups with
// more rows (hot experts) are split: the first part writes the gradient, the others write partial
// sums, and a last kernel adds those in order. Every sum has a fixed order, so results repeat
// bitwise. Groups without rows have one item of zero steps, which writes the zeros.
#include <algorithm>

#include "kernels/experts/hopper.hpp"
#include "kernels/experts/hopper_device.cuh"

namespace headway::kernels::hopper {
namespace {

// Blocks: one 64-hidden-unit image column per consumer warpgroup and per `Blocks`.
template <int D, int Blocks>
struct WeightsLayout {
    static constexpr int strip_blocks = 2 * Blocks;
    static constexpr uint32_t image_stage = strip_blocks * block_bytes;
    static constexpr uint32_t rows_stage = 128 * D;
    static constexpr uint32_t stage_bytes = image_stage + rows_stage;
    static constexpr int num_stages =
        slots_for_gather(std::min(9, static_cast<int>(220 * 1024 / stage_bytes)));
    static constexpr uint32_t smem_bytes = num_stages * stage_bytes + 1024;
    static_assert(smem_bytes + 512 <= max_smem_bytes);
};

template <int D, int Blocks>
struct WeightsBarriers {
    uint64_t full[WeightsLayout<D, Blocks>::num_stages];
    uint64_t empty[WeightsLayout<D, Blocks>::num_stages];
};

// One matrix's strip of one part. Items run from the last group to the first: what the rows kernel
// spilled last may still be in the L2 cache.
struct WorkItem {
    WorkPart part;
    int strip;
    bool second;     // dW2
    int num_blocks;  // image columns of the matrix
};

template <int Blocks>
__device__ __forceinline__ WorkItem work_item(const WeightsParams& p, int idx) {
    const int strips1 = (p.hidden_rows / 64 + 2 * Blocks - 1) / (2 * Blocks);
    const int strips2 = (p.hidden / 64 + 2 * Blocks - 1) / (2 * Blocks);
    const int32_t* words = reinterpret_cast<const int32_t*>(p.parts + idx / (strips1 + strips2));
    const int rest = idx % (strips1 + strips2);
    const bool second = rest >= strips1;
    return {{__ldg(words), __ldg(words + 1), __ldg(words + 2), __ldg(words + 3), __ldg(words + 4)},
            second ? rest - strips1 : rest,
            second,
            (second ? p.hidden : p.hidden_rows) / 64};
}

template <int Blocks>
__device__ __forceinline__ int num_work_items(const WeightsParams& p) {
    const int strips1 = (p.hidden_rows / 64 + 2 * Blocks - 1) / (2 * Blocks);
    const int strips2 = (p.hidden / 64 + 2 * Blocks - 1) / (2 * Blocks);
    return __ldg(&p.counts->num_parts) * (strips1 + strips2);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int D, int Blocks>
__device__ void stream_images(const WeightsParams& p, uint32_t stages,
                              WeightsBarriers<D, Blocks>& bars) {
    using Layout = WeightsLayout<D, Blocks>;
    const int num_items = num_work_items<Blocks>(p);
    [[maybe_unused]] const uint64_t policy = ptx::evict_first_policy();
    uint32_t load = 0;
    for (int i = blockIdx.x; i < num_items; i += gridDim.x) {
        const WorkItem item = work_item<Blocks>(p, num_items - 1 - i);
        const int first = item.strip * Layout::strip_blocks;
        const uint32_t bytes = min(Layout::strip_blocks, item.num_blocks - first) * block_bytes;
        const unsigned char* image =
            (item.second ? p.gated_hidden : p.hidden_gradient) +
            (int64_t{item.part.first_block} * item.num_blocks + first) * block_bytes;
        const int num_steps = (item.part.num_rows + 63) / 64;
        for (int k = 0; k < num_steps; ++k, ++load, image += item.num_blocks * block_bytes) {
            const auto at = ring_position<Layout::num_stages>(load);
            ptx::mbarrier_wait(&bars.empty[at.slot], at.phase ^ 1);
            ptx::mbarrier_arrive_expect_tx(&bars.full[at.slot], bytes);
            const uint32_t slot = stages + at.slot * Layout::stage_bytes;
            // Images are read once. At d = 256 dropping them first was slower (H200).
            if constexpr (D < 256)
                ptx::bulk_load(slot, image, bytes, &bars.full[at.slot], policy);
            else
                ptx::bulk_load(slot, image, bytes, &bars.full[at.slot]);
        }
    }
}

// Producer warp's share of the steps, numbered over all of the block's items: dealt in turn. The
// sub-tokens of its next step, which may belong to the next item, are fetched ahead.
template <int D, int Blocks>
__device__ void gather_steps(const WeightsParams& p, uint32_t stages,
                             WeightsBarriers<D, Blocks>& bars, int gather_warp) {
    using Layout = WeightsLayout<D, Blocks>;
    const int num_items = num_work_items<Blocks>(p);
    const auto fetch = [&](const WorkItem& item, int k) {
        return load_tokens(p.row_token, int64_t{item.part.row_begin} + k * 64,
                           item.part.num_rows - k * 64);
    };
    const int stride = static_cast<int>(gridDim.x);
    int i = static_cast<int>(blockIdx.x);
    constexpr int num_warps = num_gather_warps(Layout::num_stages);
    if (i >= num_items || gather_warp >= num_warps) return;
    WorkItem item = work_item<Blocks>(p, num_items - 1 - i);
    int k = gather_warp;  // of this item; past its last step: of a later one
    uint32_t load = gather_warp;
    RowTokens tokens = fetch(item, k);
    while (true) {
        const bool more = i + stride < num_items;
        WorkItem next_item = item;
        if (more) next_item = work_item<Blocks>(p, num_items - 1 - i - stride);
        const int num_steps = (item.part.num_rows + 63) / 64;
        const __nv_bfloat16* source = item.second ? p.dy_token : p.x;
        const bool any = k < num_steps;
#pragma unroll 1
        for (; k < num_steps; k += num_warps, load += num_warps) {
            const int ahead = k + num_warps;
            const RowTokens next =
                ahead < num_steps ? fetch(item, ahead) : fetch(next_item, ahead - num_steps);
            const auto at = ring_position<Layout::num_stages>(load);
            ptx::mbarrier_wait(&bars.empty[at.slot], at.phase ^ 1);
            gather_rows<D, 1>(stages + at.slot * Layout::stage_bytes + Layout::image_stage, source,
                              tokens, 0);
            ptx::cp_async_arrive(&bars.full[at.slot]);
            tokens = next;
        }
        if (!more) return;
        k -= num_steps;
        item = next_item;
        i += stride;
        if (!any) tokens = fetch(item, k);
    }
}

template <int D, int Blocks>
__device__ void accumulate_items(const WeightsParams& p, uint32_t stages,
                                 WeightsBarriers<D, Blocks>& bars, int warpgroup) {
    using Layout = WeightsLayout<D, Blocks>;
    const int num_items = num_work_items<Blocks>(p);
    const bool elected = threadIdx.x % 32 == 0;
    uint32_t load = 0;
    for (int i = blockIdx.x; i < num_items; i += gridDim.x) {
        const WorkItem item = work_item<Blocks>(p, num_items - 1 - i);
        float acc[Blocks][D / 2];
#pragma unroll
        for (int b = 0; b < Blocks; ++b)
#pragma unroll
            for (int n = 0; n < D / 2; ++n) acc[b][n] = 0.0f;

        const int num_steps = (item.part.num_rows + 63) / 64;
#pragma unroll 1
        for (int k = 0; k < num_steps; ++k, ++load) {
            const auto at = ring_position<Layout::num_stages>(load);
            const uint32_t image =
                stages + at.slot * Layout::stage_bytes + warpgroup * Blocks * block_bytes;
            const uint32_t rows = stages + at.slot * Layout::stage_bytes + Layout::image_stage;
            ptx::mbarrier_wait(&bars.full[at.slot], at.phase);
            ptx::fence_proxy_async();
            ptx::wgmma_fence();
#pragma unroll
            for (int step = 0; step < 4; ++step)
#pragma unroll
                for (int b = 0; b < Blocks; ++b)
                    ptx::WgmmaSs<D, true, true>::mma(
                        acc[b],
                        ptx::wgmma_descriptor(image + b * block_bytes + step * 2048, block_bytes,
                                              1024),
                        ptx::wgmma_descriptor(rows + step * 2048, block_bytes, 1024), true);
            ptx::wgmma_commit();
            ptx::wgmma_wait<1>();
            if (k > 0 && elected)
                ptx::mbarrier_arrive(&bars.empty[ring_position<Layout::num_stages>(load - 1).slot]);
        }
        ptx::wgmma_wait<0>();
        if (num_steps > 0 && elected)
            ptx::mbarrier_arrive(&bars.empty[ring_position<Layout::num_stages>(load - 1).slot]);

        float* matrix;
        if (item.part.partial < 0)
            matrix =
                (item.second ? p.dw2 : p.dw1) + int64_t{item.part.group} * item.num_blocks * 64 * D;
        else
            matrix = p.partials + int64_t{item.part.partial} * (p.hidden_rows + p.hidden) * D +
                     (item.second ? int64_t{p.hidden_rows} * D : 0);
#pragma unroll
        for (int b = 0; b < Blocks; ++b) {
            const int block = item.strip * Layout::strip_blocks + warpgroup * Blocks + b;
            if (block < item.num_blocks)
                store_gradient<D>(acc[b], matrix + int64_t{block} * 64 * D,
                                  p.accumulate && item.part.partial < 0);
        }
    }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int D, int Blocks>
__global__ void __launch_bounds__(num_threads, 1) backward_weights_kernel(const WeightsParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    using Layout = WeightsLayout<D, Blocks>;
    extern __shared__ unsigned char raw_smem[];
    __shared__ WeightsBarriers<D, Blocks> bars;
    const uint32_t raw = ptx::smem_addr(raw_smem);
    const uint32_t stages = (raw + 1023) / 1024 * 1024;
    if (threadIdx.x == 0) {
        for (int i = 0; i < Layout::num_stages; ++i) {
            ptx::mbarrier_init(&bars.full[i], gather_arrivals + 1);
            ptx::mbarrier_init(&bars.empty[i], 8);
        }
        ptx::mbarrier_init_fence();
        ptx::fence_proxy_async();
    }
    __syncthreads();

    const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (warpgroup == 0) {
        ptx::lower_registers<56>();
        const int warp = threadIdx.x / 32;
        if (warp > 0)
            gather_steps<D, Blocks>(p, stages, bars, warp - 1);
        else if (threadIdx.x == 0)
            stream_images<D, Blocks>(p, stages, bars);
    } else {
        ptx::raise_registers<224>();
        accumulate_items<D, Blocks>(p, stages, bars, warpgroup - 1);
    }
#endif
}

template <int D, int Blocks>
void launch(const WeightsParams& params, cudaStream_t stream) {
    using Layout = WeightsLayout<D, Blocks>;
    const auto kernel = backward_weights_kernel<D, Blocks>;
    HEADWAY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Layout::smem_bytes));
    kernel<<<num_multiprocessors(), num_threads, Layout::smem_bytes, stream>>>(params);
    check_launch();
}

void launch_width(int width, const WeightsParams& params, cudaStream_t stream) {
    const bool wide = params.hidden % 256 == 0;
    if (width == 64 && wide) launch<64, 2>(params, stream);
    if (width == 64 && !wide) launch<64, 1>(params, stream);
    if (width == 128 && wide) launch<128, 2>(params, stream);
    if (width == 128 && !wide) launch<128, 1>(params, stream);
    if (width == 256) launch<256, 1>(params, stream);
}

}  // namespace

void backward_weights(const RowsArguments& a, const SplitWorkspace& w, cudaStream_t stream) {
    plan_parts(a.shape, a.rows.expert_offset, w, stream);
    const WeightsParams params = weights_params(a, w);
    launch_width(a.shape.width, params, stream);
    add_partials(a.shape, w, a.gradients.dw1, a.gradients.dw2, stream);
}

}  // namespace headway::kernels::hopper
