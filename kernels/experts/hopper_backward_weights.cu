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

// A group's rows, or one part of them.
struct WorkPart {
    int32_t group;
    int32_t row_begin;
    int32_t num_rows;
    int32_t first_block;  // 64-row block of the images where the part starts
    int32_t partial;      // -1: writes the gradient itself; else the partial sum it writes
};
struct SplitGroup {
    int32_t group;
    int32_t first_partial;
    int32_t num_partials;
};
struct WorkCounts {
    int32_t num_parts;
    int32_t num_split_groups;
};

struct Plan {
    int64_t split_rows;
    int64_t max_parts;
    int64_t max_partials;
    int64_t partial_elements;  // both matrices
};

// Twice the mean rows of a group, so that near-balanced groups never split; less when there are
// too few groups to fill the device twice.
Plan make_plan(const ExpertShape& shape) {
    const int64_t strips = (shape.hidden_rows() + shape.hidden + 127) / 128;
    const int64_t mean = shape.num_rows / std::max(shape.num_groups, 1);
    const int64_t wanted = std::min(2 * mean, shape.num_rows * strips / 264);
    const int64_t split_rows = (std::max<int64_t>(wanted, 1024) + 63) / 64 * 64;
    const int64_t parts = shape.num_rows / split_rows + 1;
    return {split_rows, parts + shape.num_groups, parts,
            int64_t{shape.hidden_rows() + shape.hidden} * shape.width};
}

struct Workspace {
    WorkCounts* counts;
    SplitGroup* splits;
    WorkPart* parts;
    float* partials;
    std::size_t bytes;
};

Workspace carve(void* base, const Plan& plan) {
    char* at = static_cast<char*>(base);
    std::size_t used = 0;
    const auto take = [&](std::size_t bytes) {
        char* p = at + used;
        used += (bytes + 255) / 256 * 256;
        return p;
    };
    Workspace w{};
    w.counts = reinterpret_cast<WorkCounts*>(take(sizeof(WorkCounts)));
    w.splits = reinterpret_cast<SplitGroup*>(take(sizeof(SplitGroup) * plan.max_partials));
    w.parts = reinterpret_cast<WorkPart*>(take(sizeof(WorkPart) * plan.max_parts));
    w.partials =
        reinterpret_cast<float*>(take(sizeof(float) * plan.max_partials * plan.partial_elements));
    w.bytes = used;
    return w;
}

constexpr int plan_threads = 1024;

// Inclusive scan of one int4 (by component) over the block; `shared` holds one a warp.
__device__ int4 block_scan(int4 v, int4* shared) {
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const auto scan_warp = [lane](int4 a) {
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int x = __shfl_up_sync(0xffffffff, a.x, step);
            const int y = __shfl_up_sync(0xffffffff, a.y, step);
            const int z = __shfl_up_sync(0xffffffff, a.z, step);
            const int w = __shfl_up_sync(0xffffffff, a.w, step);
            if (lane >= step) a = make_int4(a.x + x, a.y + y, a.z + z, a.w + w);
        }
        return a;
    };
    v = scan_warp(v);
    if (lane == 31) shared[warp] = v;
    __syncthreads();
    if (warp == 0) shared[lane] = scan_warp(shared[lane]);
    __syncthreads();
    if (warp > 0) {
        const int4 before = shared[warp - 1];
        v = make_int4(v.x + before.x, v.y + before.y, v.z + before.z, v.w + before.w);
    }
    return v;
}

// One block: cuts every group into parts and numbers parts, tiles, partial sums and split groups.
__global__ void __launch_bounds__(plan_threads)
    plan_kernel(const int32_t* expert_offset, int num_groups, int split_rows, WorkCounts* counts,
                SplitGroup* splits, WorkPart* parts) {
    __shared__ int4 shared[32];
    __shared__ int4 carry;
    if (threadIdx.x == 0) carry = make_int4(0, 0, 0, 0);
    __syncthreads();
    for (int base = 0; base < num_groups; base += plan_threads) {
        const int g = base + threadIdx.x;
        const bool valid = g < num_groups;
        const int begin = valid ? expert_offset[g] : 0;
        const int rows = valid ? expert_offset[g + 1] - begin : 0;
        const int num_parts = valid ? max(1, (rows + split_rows - 1) / split_rows) : 0;
        const int num_tiles = (rows + expert_tile_rows - 1) / expert_tile_rows;
        const int4 mine = make_int4(num_parts, num_tiles, max(num_parts - 1, 0), num_parts > 1);
        const int4 upto = block_scan(mine, shared);
        const int4 first = make_int4(carry.x + upto.x - mine.x, carry.y + upto.y - mine.y,
                                     carry.z + upto.z - mine.z, carry.w + upto.w - mine.w);
        for (int i = 0; i < num_parts; ++i) {
            const int offset = i * split_rows;
            parts[first.x + i] = {g, begin + offset, min(rows - offset, split_rows),
                                  2 * first.y + offset / 64, i == 0 ? -1 : first.z + i - 1};
        }
        if (num_parts > 1) splits[first.w] = {g, first.z, num_parts - 1};
        __syncthreads();
        if (threadIdx.x == plan_threads - 1)
            carry =
                make_int4(carry.x + upto.x, carry.y + upto.y, carry.z + upto.z, carry.w + upto.w);
        __syncthreads();
    }
    if (threadIdx.x == 0) *counts = {carry.x, carry.w};
}

// Blocks: one 64-hidden-unit image column per consumer warpgroup and per `Blocks`.
template <int D, int Blocks>
struct WeightsLayout {
    static constexpr int strip_blocks = 2 * Blocks;
    static constexpr uint32_t image_stage = strip_blocks * block_bytes;
    static constexpr uint32_t rows_stage = 128 * D;
    static constexpr uint32_t stage_bytes = image_stage + rows_stage;
    static constexpr int num_stages = 200 * 1024 / stage_bytes < 8 ? 200 * 1024 / stage_bytes : 8;
    static constexpr uint32_t smem_bytes = num_stages * stage_bytes + 1024;
    static_assert(smem_bytes + 512 <= max_smem_bytes);
};

template <int D, int Blocks>
struct WeightsBarriers {
    uint64_t full[WeightsLayout<D, Blocks>::num_stages];
    uint64_t empty[WeightsLayout<D, Blocks>::num_stages];
};

struct WeightsParams {
    const WorkCounts* counts;
    const WorkPart* parts;
    const int32_t* row_token;
    const __nv_bfloat16* x;
    const __nv_bfloat16* dy_token;
    const unsigned char* hidden_gradient;
    const unsigned char* gated_hidden;
    float* dw1;
    float* dw2;
    float* partials;
    int hidden_rows;  // of W1
    int hidden;       // of W2
};

// One matrix's strip of one part.
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
    uint32_t load = 0;
    for (int i = blockIdx.x; i < num_items; i += gridDim.x) {
        const WorkItem item = work_item<Blocks>(p, i);
        const int first = item.strip * Layout::strip_blocks;
        const uint32_t bytes = min(Layout::strip_blocks, item.num_blocks - first) * block_bytes;
        const unsigned char* image =
            (item.second ? p.gated_hidden : p.hidden_gradient) +
            (int64_t{item.part.first_block} * item.num_blocks + first) * image_bytes;
        const int num_steps = (item.part.num_rows + 63) / 64;
        for (int k = 0; k < num_steps; ++k, ++load, image += item.num_blocks * image_bytes) {
            const auto at = ring_position<Layout::num_stages>(load);
            ptx::mbarrier_wait(&bars.empty[at.slot], at.phase ^ 1);
            ptx::mbarrier_arrive_expect_tx(&bars.full[at.slot], bytes);
            ptx::bulk_load(stages + at.slot * Layout::stage_bytes, image, bytes,
                           &bars.full[at.slot]);
        }
    }
}

template <int D, int Blocks>
__device__ void gather_steps(const WeightsParams& p, uint32_t stages,
                             WeightsBarriers<D, Blocks>& bars, int gather_warp) {
    using Layout = WeightsLayout<D, Blocks>;
    const int num_items = num_work_items<Blocks>(p);
    uint32_t load = 0;
    for (int i = blockIdx.x; i < num_items; i += gridDim.x) {
        const WorkItem item = work_item<Blocks>(p, i);
        const __nv_bfloat16* source = item.second ? p.dy_token : p.x;
        TokenPair tokens = load_tokens(p.row_token, item.part.row_begin, item.part.num_rows);
        for (int done = 0; done < item.part.num_rows; done += 64, ++load) {
            const TokenPair next = load_tokens(p.row_token, item.part.row_begin + done + 64,
                                               item.part.num_rows - done - 64);
            const auto at = ring_position<Layout::num_stages>(load);
            ptx::mbarrier_wait(&bars.empty[at.slot], at.phase ^ 1);
            gather_rows<D>(stages + at.slot * Layout::stage_bytes + Layout::image_stage, source,
                           tokens, gather_warp);
            ptx::cp_async_arrive(&bars.full[at.slot]);
            tokens = next;
        }
    }
}

// Image position -> hidden unit, the inverse of the rows kernel's store.
__device__ __forceinline__ int hidden_unit(int position) {
    return (position & 32) + ((position / 2) % 4) * 8 + ((position / 8) % 4) * 2 + position % 2;
}

template <int D>
__device__ __forceinline__ void store_gradient(const float (&acc)[D / 2], float* block) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int position = (threadIdx.x / 32 % 4) * 16 + lane / 4 + 8 * half;
        float* row = block + hidden_unit(position) * D + 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
            *reinterpret_cast<float2*>(row + 8 * j) =
                make_float2(acc[4 * j + 2 * half], acc[4 * j + 2 * half + 1]);
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
        const WorkItem item = work_item<Blocks>(p, i);
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
                store_gradient<D>(acc[b], matrix + int64_t{block} * 64 * D);
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

// gradient += partial sums, in order; blockIdx.y walks the split groups.
__global__ void __launch_bounds__(256)
    add_partials_kernel(const WorkCounts* counts, const SplitGroup* splits, const float* partials,
                        float* dw1, float* dw2, int64_t elements1, int64_t elements2) {
    const int num_splits = counts->num_split_groups;
    const int64_t elements = elements1 + elements2;
    for (int s = blockIdx.y; s < num_splits; s += gridDim.y) {
        const SplitGroup split = splits[s];
        for (int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x; i < elements;
             i += int64_t{gridDim.x} * 256) {
            float* out = i < elements1 ? dw1 + split.group * elements1 + i
                                       : dw2 + split.group * elements2 + (i - elements1);
            float sum = *out;
            for (int n = 0; n < split.num_partials; ++n)
                sum += partials[(int64_t{split.first_partial} + n) * elements + i];
            *out = sum;
        }
    }
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

std::size_t backward_weights_workspace_bytes(const ExpertShape& shape) {
    return carve(nullptr, make_plan(shape)).bytes;
}

void backward_weights(const RowsArguments& a, void* workspace, cudaStream_t stream) {
    const Plan plan = make_plan(a.shape);
    const Workspace w = carve(workspace, plan);
    plan_kernel<<<1, plan_threads, 0, stream>>>(a.rows.expert_offset, a.shape.num_groups,
                                                static_cast<int>(plan.split_rows), w.counts,
                                                w.splits, w.parts);
    check_launch();
    const WeightsParams params{w.counts,
                               w.parts,
                               a.rows.row_token,
                               a.x,
                               a.dy_token,
                               static_cast<const unsigned char*>(a.scratch.hidden_gradient),
                               static_cast<const unsigned char*>(a.scratch.gated_hidden),
                               a.gradients.dw1,
                               a.gradients.dw2,
                               w.partials,
                               a.shape.hidden_rows(),
                               a.shape.hidden};
    launch_width(a.shape.width, params, stream);
    add_partials_kernel<<<dim3(16, 16), 256, 0, stream>>>(
        w.counts, w.splits, w.partials, a.gradients.dw1, a.gradients.dw2,
        int64_t{a.shape.hidden_rows()} * a.shape.width, int64_t{a.shape.hidden} * a.shape.width);
    check_launch();
}

}  // namespace headway::kernels::hopper
