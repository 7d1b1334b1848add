#include "kernels/grouping/grouping.hpp"

#include <cstdint>
#include <limits>
#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/grouping/counts.hpp"
#include "kernels/grouping/scatter.cuh"

namespace headway::kernels {

// Two kernels behind the counts: prefixes of the counts, then the scatter. Each starts while the
// one before it runs (ptx/dependent_launch.cuh).
namespace {

using grouping::ScatterInput;

// Tokens of a scatter block: long blocks write longer runs of rows, short ones are more blocks.
constexpr int long_block = 1024, middle_block = 512, short_block = 256;
// Long blocks where there are enough of them to occupy a large device.
constexpr int enough_blocks = 192;
constexpr std::size_t two_blocks_bytes = 113 * 1024;  // of an H200's shared memory

int tokens_per_block(const GroupingShape& shape) {
    const auto blocks = [&](int tokens) {
        return int64_t(shape.num_heads) * ((shape.num_tokens + tokens - 1) / tokens);
    };
    const auto fits = [&](int tokens) {
        return grouping::BlockSort::bytes(shape, tokens) <= two_blocks_bytes &&
               tokens * shape.top_k <= 1 << 16;
    };
    if (fits(long_block) && blocks(long_block) >= enough_blocks) return long_block;
    return fits(middle_block) ? middle_block : short_block;
}

void require_supported(const GroupingShape& shape) {
    // NOTE: 160 KB is what an sm_80 block may have of shared memory.
    if (shape.num_experts < 1 || grouping::BlockSort::bytes(shape, short_block) > 160 * 1024 ||
        shape.num_heads < 1 || shape.num_heads > 65535 || shape.top_k < 1 ||
        shape.top_k > shape.num_experts || shape.num_rows() > std::numeric_limits<int32_t>::max())
        throw std::invalid_argument(
            "grouping: needs 1 <= k <= E, 52 E + 2048 k <= 160 KiB, at most 65535 heads and fewer "
            "than 2^31 rows");
}

bool aligned_for_vectors(const void* a, const void* b, const void* c) {
    return (reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b) |
            reinterpret_cast<std::uintptr_t>(c)) %
               16 ==
           0;
}

template <int K, int Threads, int Tokens>
void launch_scatter(const GroupingShape& shape, const ScatterInput& in, const GroupingOutput& out,
                    cudaStream_t stream) {
    const auto kernel = grouping::scatter_kernel<K, Threads, Tokens>;
    const std::size_t bytes = grouping::BlockSort::bytes(shape, Tokens);
    if (bytes > 48 * 1024)
        HEADWAY_CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
    const unsigned blocks = unsigned((shape.num_tokens + Tokens - 1) / Tokens);
    launch_dependent(kernel, {dim3(1 + blocks, unsigned(shape.num_heads)), Threads, bytes}, stream,
                     shape, in, out);
}

void scatter(const GroupingShape& shape, const ScatterInput& in, const GroupingOutput& out,
             cudaStream_t stream) {
    const bool aligned = aligned_for_vectors(in.index, in.gate, out.token_row);
    const int tokens = tokens_per_block(shape);
    grouping::with_choices(shape.top_k, aligned, [&](auto k) {
        const auto launch = tokens == long_block     ? launch_scatter<k.value, 512, long_block>
                            : tokens == middle_block ? launch_scatter<k.value, 512, middle_block>
                                                     : launch_scatter<k.value, 256, short_block>;
        launch(shape, in, out, stream);
    });
}

}  // namespace

void count_choices(const GroupingShape& shape, const int32_t* index, int32_t* counts,
                   cudaStream_t stream) {
    require_supported(shape);
    if (shape.num_tokens > 0) grouping::launch_count(shape, index, counts, stream);
}

void group_rows(const GroupingShape& shape, const int32_t* index, const float* gate,
                int32_t* counts, const GroupingOutput& out, cudaStream_t stream) {
    require_supported(shape);
    int32_t* group_size = counts + shape.num_block_counts();
    grouping::launch_prefix(shape, counts, group_size, stream);
    scatter(shape, {index, reinterpret_cast<const int32_t*>(gate), counts, group_size}, out,
            stream);
}

}  // namespace headway::kernels
