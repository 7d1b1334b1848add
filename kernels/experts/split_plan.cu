#include "kernels/experts/split_plan.hpp"

#include <algorithm>

#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

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

}  // namespace

// Twice the mean rows of a group, so that near-balanced groups never split; less when there are
// too few groups to fill the device twice.
SplitPlan make_split_plan(const ExpertShape& shape) {
    const int64_t strips = (shape.hidden_rows() + shape.hidden + 127) / 128;
    const int64_t mean = shape.num_rows / std::max(shape.num_groups, 1);
    const int64_t wanted = std::min(2 * mean, shape.num_rows * strips / 264);
    const int64_t split_rows = (std::max<int64_t>(wanted, 1024) + 63) / 64 * 64;
    const int64_t parts = shape.num_rows / split_rows + 1;
    return {split_rows, parts + shape.num_groups, parts,
            int64_t{shape.hidden_rows() + shape.hidden} * shape.width};
}

SplitWorkspace carve_split_workspace(void* base, const SplitPlan& plan) {
    char* at = static_cast<char*>(base);
    std::size_t used = 0;
    const auto take = [&](std::size_t bytes) {
        char* p = at + used;
        used += (bytes + 255) / 256 * 256;
        return p;
    };
    SplitWorkspace w{};
    w.counts = reinterpret_cast<WorkCounts*>(take(sizeof(WorkCounts)));
    w.splits = reinterpret_cast<SplitGroup*>(take(sizeof(SplitGroup) * plan.max_partials));
    w.parts = reinterpret_cast<WorkPart*>(take(sizeof(WorkPart) * plan.max_parts));
    w.partials =
        reinterpret_cast<float*>(take(sizeof(float) * plan.max_partials * plan.partial_elements));
    w.bytes = used;
    return w;
}

void plan_parts(const ExpertShape& shape, const int32_t* expert_offset,
                const SplitWorkspace& workspace, cudaStream_t stream) {
    const SplitPlan plan = make_split_plan(shape);
    plan_kernel<<<1, plan_threads, 0, stream>>>(expert_offset, shape.num_groups,
                                                static_cast<int>(plan.split_rows), workspace.counts,
                                                workspace.splits, workspace.parts);
    check_launch();
}

void add_partials(const ExpertShape& shape, const SplitWorkspace& workspace, float* dw1, float* dw2,
                  cudaStream_t stream) {
    add_partials_kernel<<<dim3(16, 16), 256, 0, stream>>>(
        workspace.counts, workspace.splits, workspace.partials, dw1, dw2,
        int64_t{shape.hidden_rows()} * shape.width, int64_t{shape.hidden} * shape.width);
    check_launch();
}

}  // namespace headway::kernels
