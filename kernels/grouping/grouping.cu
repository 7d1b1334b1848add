#include <algorithm>
#include <limits>
#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/grouping/grouping.hpp"

namespace headway::kernels {

namespace {

constexpr int threads = tokens_per_count;
constexpr int words = tokens_per_count / 32;

__device__ int tokens_of_block(const GroupingShape& shape) {
    return min(shape.num_tokens - int(blockIdx.x) * tokens_per_count, tokens_per_count);
}

__device__ int64_t first_pair(const GroupingShape& shape) {
    return (int64_t(blockIdx.y) * shape.num_tokens + int64_t(blockIdx.x) * tokens_per_count) *
           shape.top_k;
}

// chosen[w * E + e], bit b: token w * 32 + b of this block chose expert e. atomicOr of distinct
// bits gives the same words in any order, so everything derived from them is repeatable.
// Neighbouring threads take neighbouring pairs, so that the reads coalesce whatever k.
__device__ void mark_choices(const GroupingShape& shape, const int32_t* index, unsigned* chosen) {
    for (int i = threadIdx.x; i < shape.num_experts * words; i += threads) chosen[i] = 0;
    __syncthreads();
    const int num_pairs = tokens_of_block(shape) * shape.top_k;
    index += first_pair(shape);
    for (int i = threadIdx.x; i < num_pairs; i += threads) {
        const int token = i / shape.top_k;
        atomicOr(&chosen[token / 32 * shape.num_experts + index[i]], 1u << (token % 32));
    }
    __syncthreads();
}

__global__ void __launch_bounds__(threads)
    count_kernel(GroupingShape shape, const int32_t* index, int32_t* counts) {
    extern __shared__ unsigned chosen[];
    mark_choices(shape, index, chosen);
    int32_t* mine = counts + (int64_t(blockIdx.y) * gridDim.x + blockIdx.x) * shape.num_experts;
    for (int e = threadIdx.x; e < shape.num_experts; e += threads) {
        int count = 0;
        for (int w = 0; w < words; ++w) count += __popc(chosen[w * shape.num_experts + e]);
        mine[e] = count;
    }
}

// Exclusive prefix over the token blocks of one (head, 32 experts): thread (lane, part) sums a run
// of blocks, the parts are scanned, and the run is rewritten. Totals go to expert_offset[group +
// 1].
constexpr int prefix_parts = 32;

__global__ void __launch_bounds__(32 * prefix_parts)
    prefix_kernel(int num_experts, int num_blocks, int32_t* counts, int32_t* expert_offset) {
    __shared__ int32_t part_sum[prefix_parts][33];
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
    const int expert = blockIdx.x * 32 + lane;
    const int run = (num_blocks + prefix_parts - 1) / prefix_parts;
    const int begin = min(part * run, num_blocks), end = min(begin + run, num_blocks);
    int32_t* column = counts + int64_t(blockIdx.y) * num_blocks * num_experts + expert;
    int32_t sum = 0;
    if (expert < num_experts)
        for (int b = begin; b < end; ++b) sum += column[int64_t(b) * num_experts];
    part_sum[part][lane] = sum;
    __syncthreads();
    int32_t prefix = 0;
    for (int p = 0; p < part; ++p) prefix += part_sum[p][lane];
    if (expert >= num_experts) return;
    if (part == prefix_parts - 1)
        expert_offset[blockIdx.y * num_experts + expert + 1] = prefix + sum;
    for (int b = begin; b < end; ++b) {
        const int32_t count = column[int64_t(b) * num_experts];
        column[int64_t(b) * num_experts] = prefix;
        prefix += count;
    }
}

// One block: scans the group sizes in place into expert_offset, and their tile counts into
// tile_offset.
constexpr int scan_threads = 1024;

__global__ void __launch_bounds__(scan_threads)
    scan_groups_kernel(int num_groups, int32_t* expert_offset, int32_t* tile_offset,
                       int32_t* num_tiles) {
    __shared__ int2 warp_total[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int2 carry = {0, 0};
    if (threadIdx.x == 0) expert_offset[0] = tile_offset[0] = 0;
    for (int base = 0; base < num_groups; base += scan_threads) {
        const int group = base + threadIdx.x;
        const int rows = group < num_groups ? expert_offset[group + 1] : 0;
        int2 sum = {rows, (rows + expert_tile_rows - 1) / expert_tile_rows};
        for (int step = 1; step < 32; step *= 2) {
            const int x = __shfl_up_sync(~0u, sum.x, step), y = __shfl_up_sync(~0u, sum.y, step);
            if (lane >= step) sum.x += x, sum.y += y;
        }
        if (lane == 31) warp_total[warp] = sum;
        __syncthreads();
        int2 before = carry, total = carry;
        for (int w = 0; w < 32; ++w) {
            if (w < warp) before.x += warp_total[w].x, before.y += warp_total[w].y;
            total.x += warp_total[w].x, total.y += warp_total[w].y;
        }
        if (group < num_groups) {
            expert_offset[group + 1] = before.x + sum.x;
            tile_offset[group + 1] = before.y + sum.y;
        }
        carry = total;
        __syncthreads();
    }
    if (threadIdx.x == 0) *num_tiles = carry.y;
}

__device__ void write_tiles(int group, const GroupingOutput& out) {
    const int row_begin = out.expert_offset[group], row_end = out.expert_offset[group + 1];
    const int tile_begin = out.tile_offset[group], tile_end = out.tile_offset[group + 1];
    for (int tile = tile_begin + int(threadIdx.x); tile < tile_end; tile += blockDim.x) {
        const int begin = row_begin + (tile - tile_begin) * expert_tile_rows;
        out.tiles[tile] = {group, begin, min(row_end - begin, expert_tile_rows)};
    }
}

// Exclusive sum over all threads of the block.
__device__ int block_exclusive_sum(int value) {
    __shared__ int warp_sum[words];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = value;
    for (int step = 1; step < 32; step *= 2) {
        const int below = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += below;
    }
    if (lane == 31) warp_sum[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; ++w) sum += warp_sum[w];
    return sum - value;
}

// The block's pairs in expert order, so that rows of one expert are written side by side.
struct BlockSort {
    unsigned* chosen;        // [words, E]
    int32_t* position;       // [E] first place of each expert in the block's order
    int32_t* row;            // [E] row of place 0, were it this expert's
    int32_t* token;          // [256 k] by place
    float* gate;             // [256 k]
    uint16_t* words_before;  // [words, E] choices of the expert in the words below
    uint16_t* expert;        // [256 k]

    __device__ BlockSort(void* memory, const GroupingShape& shape) {
        const int e = shape.num_experts, pairs = tokens_per_count * shape.top_k;
        chosen = static_cast<unsigned*>(memory);
        position = reinterpret_cast<int32_t*>(chosen + words * e);
        row = position + e;
        token = row + e;
        gate = reinterpret_cast<float*>(token + pairs);
        words_before = reinterpret_cast<uint16_t*>(gate + pairs);
        expert = words_before + words * e;
    }
};

std::size_t sort_bytes(const GroupingShape& shape) {
    return std::size_t(shape.num_experts) * (words * 6 + 8) +
           std::size_t(tokens_per_count) * shape.top_k * 10;
}

__device__ void place_experts(const GroupingShape& shape, const int32_t* prefix,
                              const int32_t* expert_offset, const BlockSort& sort) {
    const int experts = shape.num_experts;
    for (int e = threadIdx.x; e < experts; e += threads) {
        int count = 0;
        for (int w = 0; w < words; ++w) {
            sort.words_before[w * experts + e] = uint16_t(count);
            count += __popc(sort.chosen[w * experts + e]);
        }
        sort.position[e] = count;
    }
    __syncthreads();
    const int run = (experts + threads - 1) / threads;
    const int begin = min(int(threadIdx.x) * run, experts), end = min(begin + run, experts);
    int sum = 0;
    for (int e = begin; e < end; ++e) sum += sort.position[e];
    int place = block_exclusive_sum(sum);
    const int64_t block = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
    for (int e = begin; e < end; ++e) {
        const int count = sort.position[e];
        sort.position[e] = place;
        sort.row[e] = expert_offset[blockIdx.y * experts + e] + prefix[block * experts + e] - place;
        place += count;
    }
    __syncthreads();
}

__global__ void __launch_bounds__(threads)
    scatter_kernel(GroupingShape shape, const int32_t* __restrict__ index,
                   const float* __restrict__ gate, const int32_t* __restrict__ prefix,
                   GroupingOutput out) {
    extern __shared__ uint4 memory[];
    const BlockSort sort(memory, shape);
    // Every block also writes the tiles of a few groups.
    const int num_blocks = gridDim.x * gridDim.y, block = blockIdx.y * gridDim.x + blockIdx.x;
    for (int group = block; group < shape.num_groups(); group += num_blocks)
        write_tiles(group, out);

    mark_choices(shape, index, sort.chosen);
    place_experts(shape, prefix, out.expert_offset, sort);
    const int experts = shape.num_experts, k = shape.top_k;
    const int num_pairs = tokens_of_block(shape) * k;
    const int64_t first = first_pair(shape);
    const int first_token = blockIdx.y * shape.num_tokens + blockIdx.x * tokens_per_count;
    for (int i = threadIdx.x; i < num_pairs; i += threads) {
        const int token = i / k, expert = index[first + i], word = token / 32 * experts + expert;
        const int place = sort.position[expert] + sort.words_before[word] +
                          __popc(sort.chosen[word] & ((1u << (token % 32)) - 1));
        out.token_row[first + i] = sort.row[expert] + place;
        sort.token[place] = first_token + token;
        sort.gate[place] = gate[first + i];
        sort.expert[place] = uint16_t(expert);
    }
    __syncthreads();
    for (int place = threadIdx.x; place < num_pairs; place += threads) {
        const int row = sort.row[sort.expert[place]] + place;
        out.row_token[row] = sort.token[place];
        out.row_gate[row] = sort.gate[place];
    }
}

std::size_t chosen_bytes(const GroupingShape& shape) {
    return std::size_t(shape.num_experts) * words * sizeof(unsigned);
}

template <typename Kernel>
void allow_shared_memory(Kernel kernel, std::size_t bytes) {
    if (bytes > 48 * 1024)
        HEADWAY_CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

void require_supported(const GroupingShape& shape) {
    // NOTE: 160 KB is what an sm_80 block may have of shared memory.
    if (shape.num_experts < 1 || sort_bytes(shape) > 160 * 1024 || shape.num_heads < 1 ||
        shape.num_heads > 65535 || shape.top_k < 1 || shape.top_k > shape.num_experts ||
        shape.num_rows() > std::numeric_limits<int32_t>::max())
        throw std::invalid_argument(
            "grouping: needs 1 <= k <= E, 56 E + 2560 k <= 160 KiB, at most 65535 heads and fewer "
            "than "
            "2^31 rows");
}

}  // namespace

void count_choices(const GroupingShape& shape, const int32_t* index, int32_t* counts,
                   cudaStream_t stream) {
    require_supported(shape);
    if (shape.num_tokens == 0) return;
    allow_shared_memory(count_kernel, chosen_bytes(shape));
    const dim3 grid(shape.counts_per_head(), shape.num_heads);
    count_kernel<<<grid, threads, chosen_bytes(shape), stream>>>(shape, index, counts);
    check_launch();
}

void group_rows(const GroupingShape& shape, const int32_t* index, const float* gate,
                int32_t* counts, const GroupingOutput& out, cudaStream_t stream) {
    require_supported(shape);
    const dim3 columns((shape.num_experts + 31) / 32, shape.num_heads);
    prefix_kernel<<<columns, 32 * prefix_parts, 0, stream>>>(
        shape.num_experts, shape.counts_per_head(), counts, out.expert_offset);
    check_launch();
    scan_groups_kernel<<<1, scan_threads, 0, stream>>>(shape.num_groups(), out.expert_offset,
                                                       out.tile_offset, out.num_tiles);
    check_launch();
    if (shape.num_tokens == 0) return;
    allow_shared_memory(scatter_kernel, sort_bytes(shape));
    const dim3 grid(shape.counts_per_head(), shape.num_heads);
    scatter_kernel<<<grid, threads, sort_bytes(shape), stream>>>(shape, index, gate, counts, out);
    check_launch();
}

}  // namespace headway::kernels
