// A block's pairs in expert order. Bit maps say which of 32 tokens chose an expert, so that the
// place of a pair is a number of bits, whatever the order in which threads work:
//   place(token, e) = first[e] + bits of e below the token
#pragma once

#include <cuda_runtime.h>

#include "kernels/grouping/tile_list.cuh"

namespace headway::kernels::grouping {

struct BlockSort {
    unsigned* chosen;  // [words, E], bit b: token 32 w + b chose e
    uint32_t* pair;    // [pairs] by place: pair of the block, expert << 16
    int32_t* gate;     // [pairs] by pair, the bits of a float
    int32_t* row;      // [E] row of place 0, were it this expert's
    uint16_t* place;   // [words, E] place of the expert's first choice in the word
    int num_words;
    SumPair* scratch;  // [32] of block_sums, in the memory of `pair` before that is written

    __device__ BlockSort(void* memory, const GroupingShape& shape, int num_tokens) {
        const int e = shape.num_experts;
        num_words = num_tokens / 32;
        chosen = static_cast<unsigned*>(memory);
        pair = chosen + num_words * e;
        gate = reinterpret_cast<int32_t*>(pair + num_tokens * shape.top_k);
        row = gate + num_tokens * shape.top_k;
        place = reinterpret_cast<uint16_t*>(row + e);
        scratch = reinterpret_cast<SumPair*>(pair);
    }
    /// Writes a pair to its place and returns its row.
    __device__ __forceinline__ int put(int pair_of_block, int token, int expert,
                                       int num_experts) const {
        const int word = token / 32 * num_experts + expert;
        const int at = place[word] + __popc(chosen[word] & ((1u << token % 32) - 1));
        pair[at] = unsigned(expert) << 16 | unsigned(pair_of_block);
        return row[expert] + at;
    }
    static constexpr std::size_t bytes(const GroupingShape& shape, int num_tokens) {
        return std::size_t(shape.num_experts) * std::size_t(num_tokens / 32 * 6 + 4) +
               std::size_t(num_tokens) * std::size_t(shape.top_k) * 8;
    }
};

/// Threads of a block share an expert's words: part p walks words [p, p + 1) * run.
struct WordParts {
    int num_parts, run;

    __device__ WordParts(int num_words, int num_experts) {
        num_parts = min(max(int(blockDim.x) / num_experts, 1), num_words);
        run = (num_words + num_parts - 1) / num_parts;
        num_parts = (num_words + run - 1) / run;
    }
    template <typename Act>
    __device__ __forceinline__ void each(int num_experts, Act act) const {
        for (int i = threadIdx.x; i < num_parts * num_experts; i += blockDim.x)
            act(i % num_experts, i / num_experts * run);
    }
};

// atomicOr of distinct bits gives the same words in any order, so everything derived from them is
// repeatable. Leaves each part's number of choices where the part's first place will be.
template <typename Choices>
__device__ __forceinline__ void mark_choices(const GroupingShape& shape, const Choices& choices,
                                             int num_tokens, const BlockSort& sort) {
    const int experts = shape.num_experts, num_words = sort.num_words;
    auto* vectors = reinterpret_cast<uint4*>(sort.chosen);  // words come by eights
#pragma unroll 4
    for (int i = threadIdx.x; i < num_words * experts / 4; i += blockDim.x) vectors[i] = {};
    __syncthreads();
    choices.each(num_tokens, shape.top_k, [&](int, int token, int expert) {
        atomicOr(&sort.chosen[token / 32 * experts + expert], 1u << token % 32);
    });
    __syncthreads();
    const WordParts parts(num_words, experts);
    parts.each(experts, [&](int e, int first) {
        int count = 0;
#pragma unroll 8
        for (int w = first; w < min(first + parts.run, num_words); ++w)
            count += __popc(sort.chosen[w * experts + e]);
        sort.place[first * experts + e] = uint16_t(count);
    });
    __syncthreads();
}

// Every head has T_b k rows, so a head's first row is known, and its groups' offsets follow from
// their sizes. prefix [E]: rows of earlier blocks.
__device__ inline void place_experts(const GroupingShape& shape, const int32_t* prefix,
                                     const int32_t* group_size, const BlockSort& sort) {
    const int experts = shape.num_experts, num_words = sort.num_words;
    const WordParts parts(num_words, experts);
    SumPair at{0, blockIdx.y * unsigned(shape.num_tokens) * unsigned(shape.top_k)};
    for (int base = 0; base < experts; base += blockDim.x) {
        const int e = base + int(threadIdx.x);
        SumPair own{0, 0};
        int before = 0;
        if (e < experts) {
            before = prefix[e];
            own.high = unsigned(group_size[blockIdx.y * experts + e]);
            for (int p = 0; p < parts.num_parts; ++p)
                own.low += sort.place[p * parts.run * experts + e];
        }
        const BlockSums sums = block_sums(own, sort.scratch);
        if (e < experts) {
            const SumPair begin = at + sums.before;
            unsigned place = begin.low;
            sort.row[e] = int(begin.high - place) + before;
            for (int p = 0; p < parts.num_parts; ++p) {
                uint16_t& first = sort.place[p * parts.run * experts + e];
                const unsigned count = first;
                first = uint16_t(place);
                place += count;
            }
        }
        at = at + sums.total;
    }
    __syncthreads();
    parts.each(experts, [&](int e, int first) {
        int place = sort.place[first * experts + e];
#pragma unroll 4
        for (int w = first; w < min(first + parts.run, num_words); ++w) {
            sort.place[w * experts + e] = uint16_t(place);
            place += __popc(sort.chosen[w * experts + e]);
        }
    });
    __syncthreads();
}

}  // namespace headway::kernels::grouping
