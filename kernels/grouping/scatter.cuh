// The scatter: a block puts the pairs of its tokens in expert order in shared memory, so that rows
// of one expert are written side by side.
#pragma once

#include <cuda_runtime.h>

#include "kernels/grouping/block_sort.cuh"
#include "kernels/grouping/choices.cuh"
#include "kernels/grouping/tile_list.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace headway::kernels::grouping {

/// Copies the gates of the block's pairs to shared memory; landed after a wait for
/// the copies (k a multiple of four) and a barrier.
template <int K>
__device__ __forceinline__ void start_gates(const int32_t* from, int num_tokens, int k,
                                            int32_t* to) {
    if constexpr (K > 0 && K % 4 == 0) {
        for (int v = threadIdx.x; v < num_tokens * (K / 4); v += blockDim.x)
            ptx::cp_async_16(ptx::smem_addr(to + 4 * v), from + 4 * v, true);
        ptx::cp_async_commit();
    } else {
        for (int i = threadIdx.x; i < num_tokens * k; i += blockDim.x) to[i] = from[i];
    }
}

/// The rows of a token's choices. With eight, a lane and its neighbour write each other's halves,
/// so that a store fills whole sectors.
template <int K>
__device__ __forceinline__ void store_rows_of_token(int32_t* token_row, int token, int num_tokens,
                                                    const int (&row)[K]) {
    if constexpr (K == 8) {
        const bool odd = threadIdx.x % 2 != 0;
        const auto exchange = [&](int low, int high) {
            const int given = __shfl_xor_sync(~0u, odd ? low : high, 1);
            return odd ? int2{given, high} : int2{low, given};
        };
        const int2 x = exchange(row[0], row[4]), y = exchange(row[1], row[5]);
        const int2 z = exchange(row[2], row[6]), w = exchange(row[3], row[7]);
        // Even lanes hold the low halves of both tokens, odd lanes the high ones.
        const int4 of_even{x.x, y.x, z.x, w.x}, of_odd{x.y, y.y, z.y, w.y};
        const int even = token & ~1, half = odd ? 4 : 0;
        if (even < num_tokens) *reinterpret_cast<int4*>(token_row + even * 8 + half) = of_even;
        if (even + 1 < num_tokens)
            *reinterpret_cast<int4*>(token_row + even * 8 + 8 + half) = of_odd;
    } else {
        if (token >= num_tokens) return;
        token_row += token * K;
        if constexpr (K % 4 == 0) {
#pragma unroll
            for (int v = 0; v < K; v += 4)
                *reinterpret_cast<int4*>(token_row + v) = {row[v], row[v + 1], row[v + 2],
                                                           row[v + 3]};
        } else {
#pragma unroll
            for (int j = 0; j < K; ++j) token_row[j] = row[j];
        }
    }
}

/// Sorts the pairs by place and writes the row of each to token_row.
template <int K, typename Choices>
__device__ __forceinline__ void place_pairs(const GroupingShape& shape, const Choices& choices,
                                            int num_tokens, const BlockSort& sort,
                                            int32_t* token_row) {
    if constexpr (K > 0) {
#pragma unroll
        for (int i = 0; i < Choices::per_thread; ++i) {
            const int token = Choices::token(i);
            int row[K];
            if (token < num_tokens)
#pragma unroll
                for (int j = 0; j < K; ++j)
                    row[j] = sort.put(token * K + j, token, choices.held[i][j], shape.num_experts);
            store_rows_of_token<K>(token_row, token, num_tokens, row);
        }
    } else {
        choices.each(num_tokens, shape.top_k, [&](int pair, int token, int expert) {
            token_row[pair] = sort.put(pair, token, expert, shape.num_experts);
        });
    }
}

struct ScatterInput {
    const int32_t* index;       // [S, k]
    const int32_t* gate;        // [S, k], the bits of floats
    const int32_t* prefix;      // [H, counts_per_head, E], with the sizes of the kernel before this
    const int32_t* group_size;  // [H, E]
};

// Block 0 of each head writes the tiles, block 1 + b sorts a block of tokens.
template <int K, int Threads, int Tokens>
__global__ void __launch_bounds__(Threads, 1024 / Threads)
    scatter_kernel(GroupingShape shape, ScatterInput in, GroupingOutput out) {
    extern __shared__ uint4 memory[];
    const BlockSort sort(memory, shape, Tokens);
    if (blockIdx.x == 0) {
        wait_for_previous_kernel();
        return write_tiles(shape, in.group_size, out, sort.scratch);
    }
    const int first = int(blockIdx.x - 1) * Tokens, k = shape.top_k;
    const int num_tokens = min(shape.num_tokens - first, Tokens);
    const int64_t first_token = int64_t(blockIdx.y) * shape.num_tokens + first;
    Pairs<K, Threads, Tokens> choices;
    choices.load(in.index + first_token * k, num_tokens);
    start_gates<K>(in.gate + first_token * k, num_tokens, k, sort.gate);
    mark_choices(shape, choices, num_tokens, sort);
    wait_for_previous_kernel();
    const int64_t counted =
        int64_t(blockIdx.y) * shape.counts_per_head() + first / tokens_per_count;
    place_experts(shape, in.prefix + counted * shape.num_experts, in.group_size, sort);
    place_pairs<K>(shape, choices, num_tokens, sort, out.token_row + first_token * k);
    if constexpr (K > 0 && K % 4 == 0) ptx::cp_async_wait<0>();
    __syncthreads();
#pragma unroll 4
    for (int place = threadIdx.x; place < num_tokens * k; place += Threads) {
        const uint32_t packed = sort.pair[place];
        const int pair = int(packed & 0xFFFF), row = sort.row[packed >> 16] + place;
        out.row_token[row] = int32_t(first_token) + (K > 0 ? pair / (K > 0 ? K : 1) : pair / k);
        out.row_gate[row] = __int_as_float(sort.gate[pair]);
    }
}

}  // namespace headway::kernels::grouping
