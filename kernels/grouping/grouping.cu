#include <algorithm>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "kernels/check.hpp"
#include "kernels/grouping/grouping.hpp"
#include "kernels/ptx/dependent_launch.cuh"

namespace headway::kernels {

// Two kernels behind the counts: prefixes of the counts, then the scatter. Each starts while the
// one before it runs (ptx/dependent_launch.cuh).
namespace {

constexpr int threads = tokens_per_count;

// The (token, choice) pairs of a block of tokens, dealt to its threads. With k known when compiling
// a thread owns a token and loads its choices at once, before they are needed.
template <int K>
struct Pairs {
    int32_t held[K];

    __device__ __forceinline__ void load(const int32_t* from, int num_tokens) {
        if (int(threadIdx.x) >= num_tokens) return;
        from += threadIdx.x * K;
        if constexpr (K % 4 == 0) {
#pragma unroll
            for (int v = 0; v < K; v += 4) {
                const int4 four = __ldg(reinterpret_cast<const int4*>(from + v));
                held[v] = four.x, held[v + 1] = four.y, held[v + 2] = four.z, held[v + 3] = four.w;
            }
        } else {
#pragma unroll
            for (int j = 0; j < K; ++j) held[j] = __ldg(from + j);
        }
    }
    /// act(pair, token, value) for every pair of this thread.
    template <typename Act>
    __device__ __forceinline__ void each(int num_tokens, int, Act act) const {
        if (int(threadIdx.x) >= num_tokens) return;
#pragma unroll
        for (int j = 0; j < K; ++j) act(int(threadIdx.x) * K + j, int(threadIdx.x), held[j]);
    }
};

// Any k: neighbouring threads take neighbouring pairs, so that the reads coalesce.
template <>
struct Pairs<0> {
    const int32_t* from;

    __device__ __forceinline__ void load(const int32_t* pairs, int) { from = pairs; }
    template <typename Act>
    __device__ __forceinline__ void each(int num_tokens, int k, Act act) const {
        for (int i = threadIdx.x; i < num_tokens * k; i += blockDim.x) act(i, i / k, from[i]);
    }
};

// chosen[w * E + e], bit b: token w * 32 + b of this block chose expert e. atomicOr of distinct
// bits gives the same words in any order, so everything derived from them is repeatable.
template <int K>
__device__ void mark_choices(const GroupingShape& shape, const Pairs<K>& index, int num_tokens,
                             unsigned* chosen) {
    const int num_words = shape.num_experts * int(blockDim.x) / 32;
    for (int i = threadIdx.x; i < num_words; i += blockDim.x) chosen[i] = 0;
    __syncthreads();
    index.each(num_tokens, shape.top_k, [&](int, int token, int expert) {
        atomicOr(&chosen[token / 32 * shape.num_experts + expert], 1u << (token % 32));
    });
    __syncthreads();
}

template <int K>
__global__ void __launch_bounds__(threads)
    count_kernel(GroupingShape shape, const int32_t* index, int32_t* counts) {
    extern __shared__ unsigned chosen[];
    const int first = int(blockIdx.x) * threads;
    const int num_tokens = min(shape.num_tokens - first, threads);
    Pairs<K> pairs;
    pairs.load(index + (int64_t(blockIdx.y) * shape.num_tokens + first) * shape.top_k, num_tokens);
    mark_choices(shape, pairs, num_tokens, chosen);
    int32_t* mine = counts + (int64_t(blockIdx.y) * gridDim.x + blockIdx.x) * shape.num_experts;
    for (int e = threadIdx.x; e < shape.num_experts; e += threads) {
        int count = 0;
        for (int w = 0; w < threads / 32; ++w) count += __popc(chosen[w * shape.num_experts + e]);
        mine[e] = count;
    }
    let_next_kernel_start();
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

// Two sums at once, below 2^32 each.
struct SumPair {
    unsigned low, high;
    __device__ SumPair operator+(const SumPair& o) const { return {low + o.low, high + o.high}; }
};

struct BlockSums {
    SumPair before, total;  // over the threads below this one; over all
};

__device__ BlockSums block_sums(const SumPair& value) {
    __shared__ SumPair warp_sum[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    SumPair sum = value;
    for (int step = 1; step < 32; step *= 2) {
        const SumPair below{__shfl_up_sync(~0u, sum.low, step),
                            __shfl_up_sync(~0u, sum.high, step)};
        if (lane >= step) sum = sum + below;
    }
    __syncthreads();  // an earlier call's readers
    if (lane == 31) warp_sum[warp] = sum;
    __syncthreads();
    BlockSums out{{sum.low - value.low, sum.high - value.high}, {0, 0}};
    for (int w = 0; w < int(blockDim.x) / 32; ++w) {
        if (w < warp) out.before = out.before + warp_sum[w];
        out.total = out.total + warp_sum[w];
    }
    return out;
}

__device__ unsigned tiles_of(int32_t rows) {
    return unsigned(rows + expert_tile_rows - 1) / expert_tile_rows;
}

// One block of each head writes its groups' offsets and tiles.
__device__ void write_tiles(const GroupingShape& shape, const int32_t* group_size,
                            const GroupingOutput& out) {
    const int experts = shape.num_experts, head = blockIdx.y, first_group = head * experts;
    SumPair earlier{0, 0};  // rows and tiles of the heads before
    for (int g = threadIdx.x; g < first_group; g += blockDim.x)
        earlier = earlier + SumPair{unsigned(group_size[g]), tiles_of(group_size[g])};
    SumPair at = block_sums(earlier).total;
    for (int base = 0; base < experts; base += blockDim.x) {
        const int e = base + int(threadIdx.x);
        const int32_t rows = e < experts ? group_size[first_group + e] : 0;
        const BlockSums sums = block_sums({unsigned(rows), tiles_of(rows)});
        if (e < experts) {
            const SumPair begin = at + sums.before;
            out.expert_offset[first_group + e] = int32_t(begin.low);
            out.tile_offset[first_group + e] = int32_t(begin.high);
        }
        at = at + sums.total;
    }
    if (threadIdx.x == 0 && head + 1 == shape.num_heads) {
        out.expert_offset[shape.num_groups()] = int32_t(at.low);
        out.tile_offset[shape.num_groups()] = *out.num_tiles = int32_t(at.high);
    }
    __syncthreads();
    for (int e = threadIdx.x / 32; e < experts; e += blockDim.x / 32) {
        const int group = first_group + e, rows = group_size[group];
        const int row_begin = out.expert_offset[group], tile_begin = out.tile_offset[group];
        for (int tile = threadIdx.x % 32; tile * expert_tile_rows < rows; tile += 32) {
            const int begin = tile * expert_tile_rows;
            out.tiles[tile_begin + tile] = {group, row_begin + begin,
                                            min(rows - begin, expert_tile_rows)};
        }
    }
}

// The block's pairs in expert order, so that rows of one expert are written side by side.
struct BlockSort {
    unsigned* chosen;        // [words, E]
    int32_t* position;       // [E] first place of each expert in the block's order
    int32_t* row;            // [E] row of place 0, were it this expert's
    int32_t* gate;           // [pairs] by place, the bits of a float
    uint16_t* token;         // [pairs] within the block
    uint16_t* expert;        // [pairs]
    uint16_t* words_before;  // [words, E] choices of the expert in the words below

    __device__ BlockSort(void* memory, const GroupingShape& shape) {
        const int e = shape.num_experts, words = blockDim.x / 32, pairs = blockDim.x * shape.top_k;
        chosen = static_cast<unsigned*>(memory);
        position = reinterpret_cast<int32_t*>(chosen + words * e);
        row = position + e;
        gate = row + e;
        token = reinterpret_cast<uint16_t*>(gate + pairs);
        expert = token + pairs;
        words_before = expert + pairs;
    }
};

std::size_t sort_bytes(const GroupingShape& shape, int num_threads) {
    return std::size_t(shape.num_experts) * std::size_t(num_threads / 32 * 6 + 8) +
           std::size_t(num_threads) * std::size_t(shape.top_k) * 8;
}

// Every head has T_b k rows, so a head's first row is known, and its groups' offsets follow from
// their sizes.
__device__ void place_experts(const GroupingShape& shape, const int32_t* prefix,
                              const int32_t* group_size, const BlockSort& sort) {
    const int experts = shape.num_experts, words = blockDim.x / 32;
    for (int e = threadIdx.x; e < experts; e += blockDim.x) {
        int count = 0;
        for (int w = 0; w < words; ++w) {
            sort.words_before[w * experts + e] = uint16_t(count);
            count += __popc(sort.chosen[w * experts + e]);
        }
        sort.position[e] = count;
    }
    wait_for_previous_kernel();
    group_size += blockIdx.y * experts;
    SumPair at{0, blockIdx.y * unsigned(shape.num_tokens) * unsigned(shape.top_k)};
    for (int base = 0; base < experts; base += blockDim.x) {
        const int e = base + int(threadIdx.x);
        const bool live = e < experts;
        const int size = live ? group_size[e] : 0, before = live ? prefix[e] : 0;
        const unsigned count = live ? unsigned(sort.position[e]) : 0;
        const BlockSums sums = block_sums({count, unsigned(size)});
        if (live) {
            const SumPair begin = at + sums.before;
            sort.position[e] = int32_t(begin.low);
            sort.row[e] = int32_t(begin.high) + before - int32_t(begin.low);
        }
        at = at + sums.total;
    }
    __syncthreads();
}

template <int K>
__device__ __forceinline__ void store_rows_of_token(int32_t* token_row, int num_tokens,
                                                    const int (&row)[K]) {
    if (int(threadIdx.x) >= num_tokens) return;
    token_row += threadIdx.x * K;
    if constexpr (K % 4 == 0) {
#pragma unroll
        for (int v = 0; v < K; v += 4)
            *reinterpret_cast<int4*>(token_row + v) = {row[v], row[v + 1], row[v + 2], row[v + 3]};
    } else {
#pragma unroll
        for (int j = 0; j < K; ++j) token_row[j] = row[j];
    }
}

// Block 0 of each head writes the tiles, block 1 + b sorts a block of tokens.
template <int K, int Threads>
__global__ void __launch_bounds__(Threads, 1536 / Threads)
    scatter_kernel(GroupingShape shape, const int32_t* __restrict__ index,
                   const int32_t* __restrict__ gate, const int32_t* prefix,
                   const int32_t* group_size, GroupingOutput out) {
    extern __shared__ uint4 memory[];
    if (blockIdx.x == 0) {
        wait_for_previous_kernel();
        return write_tiles(shape, group_size, out);
    }
    const BlockSort sort(memory, shape);
    const int first = int(blockIdx.x - 1) * Threads, experts = shape.num_experts, k = shape.top_k;
    const int num_tokens = min(shape.num_tokens - first, Threads);
    const int64_t first_token = int64_t(blockIdx.y) * shape.num_tokens + first;
    Pairs<K> choices, gates;
    choices.load(index + first_token * k, num_tokens);
    gates.load(gate + first_token * k, num_tokens);

    mark_choices(shape, choices, num_tokens, sort.chosen);
    const int64_t counted =
        int64_t(blockIdx.y) * shape.counts_per_head() + first / tokens_per_count;
    place_experts(shape, prefix + counted * experts, group_size, sort);
    const auto place_of = [&](int token, int expert) {
        const int word = token / 32 * experts + expert;
        return sort.position[expert] + sort.words_before[word] +
               __popc(sort.chosen[word] & ((1u << (token % 32)) - 1));
    };
    int32_t* token_row = out.token_row + first_token * k;
    if constexpr (K > 0) {
        int place[K], row[K];
        choices.each(num_tokens, k, [&](int pair, int token, int expert) {
            const int j = pair - token * K, at = place_of(token, expert);
            place[j] = at;
            row[j] = sort.row[expert] + at;
            sort.token[at] = uint16_t(token);
            sort.expert[at] = uint16_t(expert);
        });
        gates.each(num_tokens, k, [&](int pair, int token, int bits) {
            sort.gate[place[pair - token * K]] = bits;
        });
        store_rows_of_token(token_row, num_tokens, row);
    } else {
        choices.each(num_tokens, k, [&](int pair, int token, int expert) {
            const int at = place_of(token, expert);
            token_row[pair] = sort.row[expert] + at;
            sort.token[at] = uint16_t(token);
            sort.expert[at] = uint16_t(expert);
            sort.gate[at] = gates.from[pair];
        });
    }
    __syncthreads();
    for (int place = threadIdx.x; place < num_tokens * k; place += Threads) {
        const int row = sort.row[sort.expert[place]] + place;
        out.row_token[row] = int32_t(first_token) + sort.token[place];
        out.row_gate[row] = __int_as_float(sort.gate[place]);
    }
}

template <typename Kernel>
void allow_shared_memory(Kernel kernel, std::size_t bytes) {
    if (bytes > 48 * 1024)
        HEADWAY_CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

void require_supported(const GroupingShape& shape) {
    // NOTE: 160 KB is what an sm_80 block may have of shared memory.
    if (shape.num_experts < 1 || sort_bytes(shape, threads) > 160 * 1024 || shape.num_heads < 1 ||
        shape.num_heads > 65535 || shape.top_k < 1 || shape.top_k > shape.num_experts ||
        shape.num_rows() > std::numeric_limits<int32_t>::max())
        throw std::invalid_argument(
            "grouping: needs 1 <= k <= E, 56 E + 2048 k <= 160 KiB, at most 65535 heads and fewer "
            "than 2^31 rows");
}

// The most tokens a block: longer runs of rows of one expert, so fewer half-written sectors.
constexpr int long_block = 512;
constexpr std::size_t long_block_bytes = 72 * 1024;  // three blocks a multiprocessor

bool aligned_for_vectors(const void* a, const void* b) {
    return (reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b)) % 16 == 0;
}

// Calls launch(integral_constant<K>): k where a kernel is compiled for it, else 0.
template <typename Launch>
void with_choices(int k, bool aligned, Launch launch) {
    if (aligned && k == 1) return launch(std::integral_constant<int, 1>{});
    if (aligned && k == 2) return launch(std::integral_constant<int, 2>{});
    if (aligned && k == 4) return launch(std::integral_constant<int, 4>{});
    if (aligned && k == 8) return launch(std::integral_constant<int, 8>{});
    launch(std::integral_constant<int, 0>{});
}

template <int K, int Threads>
void launch_scatter(const GroupingShape& shape, const int32_t* index, const float* gate,
                    const int32_t* counts, const GroupingOutput& out, cudaStream_t stream) {
    const auto kernel = scatter_kernel<K, Threads>;
    const std::size_t bytes = sort_bytes(shape, Threads);
    allow_shared_memory(kernel, bytes);
    const unsigned blocks = unsigned((shape.num_tokens + Threads - 1) / Threads);
    launch_dependent(kernel, {dim3(1 + blocks, unsigned(shape.num_heads)), Threads, bytes}, stream,
                     shape, index, reinterpret_cast<const int32_t*>(gate), counts,
                     counts + shape.num_block_counts(), out);
}

}  // namespace

void count_choices(const GroupingShape& shape, const int32_t* index, int32_t* counts,
                   cudaStream_t stream) {
    require_supported(shape);
    if (shape.num_tokens == 0) return;
    const std::size_t bytes = std::size_t(shape.num_experts) * threads / 32 * sizeof(unsigned);
    const dim3 grid(unsigned(shape.counts_per_head()), unsigned(shape.num_heads));
    with_choices(shape.top_k, aligned_for_vectors(index, nullptr), [&](auto k) {
        const auto kernel = count_kernel<k.value>;
        allow_shared_memory(kernel, bytes);
        kernel<<<grid, threads, bytes, stream>>>(shape, index, counts);
    });
    check_launch();
}

void group_rows(const GroupingShape& shape, const int32_t* index, const float* gate,
                int32_t* counts, const GroupingOutput& out, cudaStream_t stream) {
    require_supported(shape);
    launch_dependent(
        prefix_kernel,
        {dim3(unsigned(shape.num_experts + 31) / 32, unsigned(shape.num_heads)), 32 * prefix_parts},
        stream, shape.num_experts, shape.counts_per_head(), counts,
        counts + shape.num_block_counts());
    const bool aligned =
        aligned_for_vectors(index, gate) && aligned_for_vectors(out.token_row, gate);
    with_choices(shape.top_k, aligned, [&](auto k) {
        const auto launch = sort_bytes(shape, long_block) <= long_block_bytes
                                ? launch_scatter<k.value, long_block>
                                : launch_scatter<k.value, tokens_per_count>;
        launch(shape, index, gate, counts, out, stream);
    });
}

}  // namespace headway::kernels
