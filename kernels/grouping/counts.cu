// Counts of the choices per block of tokens, and their prefixes.
#include "kernels/check.hpp"
#include "kernels/grouping/choices.cuh"
#include "kernels/grouping/counts.hpp"
#include "kernels/ptx/dependent_launch.cuh"

namespace headway::kernels {

namespace {

constexpr int count_threads = tokens_per_count;

template <int K>
__global__ void __launch_bounds__(count_threads)
    count_kernel(GroupingShape shape, const int32_t* index, int32_t* counts) {
    extern __shared__ int histogram[];
    // What starts early waits for the counts.
    let_next_kernel_start();
    const int first = int(blockIdx.x) * count_threads;
    const int num_tokens = min(shape.num_tokens - first, count_threads);
    grouping::Pairs<K, count_threads, count_threads> choices;
    choices.load(index + (int64_t(blockIdx.y) * shape.num_tokens + first) * shape.top_k,
                 num_tokens);
    for (int e = threadIdx.x; e < shape.num_experts; e += count_threads) histogram[e] = 0;
    __syncthreads();
    choices.each(num_tokens, shape.top_k,
                 [&](int, int, int expert) { atomicAdd(&histogram[expert], 1); });
    __syncthreads();
    int32_t* mine = counts + (int64_t(blockIdx.y) * gridDim.x + blockIdx.x) * shape.num_experts;
    for (int e = threadIdx.x; e < shape.num_experts; e += count_threads) mine[e] = histogram[e];
}

// Exclusive prefix over the token blocks of one (head, 32 experts): thread (lane, part) sums a run
// of blocks, the parts are scanned, and the run is rewritten.
constexpr int prefix_parts = 32;

__global__ void __launch_bounds__(32 * prefix_parts)
    prefix_kernel(int num_experts, int num_blocks, int32_t* counts, int32_t* group_size) {
    __shared__ int32_t part_sum[prefix_parts][33];
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
    const int expert = blockIdx.x * 32 + lane;
    const int run = (num_blocks + prefix_parts - 1) / prefix_parts;
    const int begin = min(part * run, num_blocks), end = min(begin + run, num_blocks);
    int32_t* column = counts + int64_t(blockIdx.y) * num_blocks * num_experts + expert;
    // The scatter starts early and reads the choices: they were complete before this kernel's wait
    // ended.
    wait_for_previous_kernel();
    let_next_kernel_start();
    int32_t sum = 0;
    if (expert < num_experts)
        for (int b = begin; b < end; ++b) sum += column[int64_t(b) * num_experts];
    part_sum[part][lane] = sum;
    __syncthreads();
    int32_t prefix = 0;
    for (int p = 0; p < part; ++p) prefix += part_sum[p][lane];
    if (expert >= num_experts) return;
    if (part == prefix_parts - 1) group_size[blockIdx.y * num_experts + expert] = prefix + sum;
    for (int b = begin; b < end; ++b) {
        const int32_t count = column[int64_t(b) * num_experts];
        column[int64_t(b) * num_experts] = prefix;
        prefix += count;
    }
}

}  // namespace

namespace grouping {

void launch_count(const GroupingShape& shape, const int32_t* index, int32_t* counts,
                  cudaStream_t stream) {
    const std::size_t bytes = std::size_t(shape.num_experts) * sizeof(int);
    const dim3 grid(unsigned(shape.counts_per_head()), unsigned(shape.num_heads));
    with_choices(shape.top_k, reinterpret_cast<std::uintptr_t>(index) % 16 == 0, [&](auto k) {
        count_kernel<k.value><<<grid, count_threads, bytes, stream>>>(shape, index, counts);
    });
    check_launch();
}

void launch_prefix(const GroupingShape& shape, int32_t* counts, int32_t* group_size,
                   cudaStream_t stream) {
    launch_dependent(
        prefix_kernel,
        {dim3(unsigned(shape.num_experts + 31) / 32, unsigned(shape.num_heads)), 32 * prefix_parts},
        stream, shape.num_experts, shape.counts_per_head(), counts, group_size);
}

}  // namespace grouping

}  // namespace headway::kernels
