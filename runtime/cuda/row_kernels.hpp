// Small device operations of the GPU layers that no kernel folder has: seeded data, forced routing
// and counts.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace headway::runtime {

// Normal with mean 0; a function of (seed, index) alone.
void fill_normal(__nv_bfloat16* out, std::int64_t count, float sigma, std::uint64_t seed,
                 cudaStream_t stream);
void fill_normal(float* out, std::int64_t count, float sigma, std::uint64_t seed,
                 cudaStream_t stream);

struct RowRouting {
    std::int64_t num_rows = 0;  // (sub-)tokens; rows_per_router of them share a router
    std::int64_t rows_per_router = 0;
    int width = 0;  // a multiple of 2
    int num_experts = 0;
    int top_k = 1;
};

// gate[r, j] = softmax over j of <x[r], R[router][index[r, j]]>: the gates of given choices.
void gates_of_choices(const RowRouting& shape, const __nv_bfloat16* x, const float* weights,
                      const std::int32_t* index, float* gate, cudaStream_t stream);
void gates_of_choices(const RowRouting& shape, const __nv_bfloat16* x, const __nv_bfloat16* weights,
                      const std::int32_t* index, float* gate, cudaStream_t stream);

// counts[i] = offsets[i + 1] - offsets[i]
void counts_of_offsets(const std::int32_t* offsets, int count, std::int32_t* counts,
                       cudaStream_t stream);

// Dedup: counts [ranks, 2] of copies (choices with a place) and of rows (choices) by the rank of
// the chosen expert; a negative index is no choice, here and below.
void counts_by_rank(const RowRouting& shape, int experts_per_rank, int num_ranks,
                    const std::int32_t* index, const std::int32_t* place, std::int32_t* counts,
                    cudaStream_t stream);

// Dedup's way back of the gates' gradients: record_gradient [copies, k] as they returned,
// place [rows, k] of each copy at the first choice on its rank, -1 at the others.
//   dgate[r, j] = record_gradient[place of (r, first choice on the rank of e_j), j]
void gather_gate_gradients(const RowRouting& shape, int experts_per_rank, const std::int32_t* index,
                           const std::int32_t* place, const float* record_gradient, float* dgate,
                           cudaStream_t stream);

// Keeps the stream busy, so that the host gets ahead of it.
void hold_stream(std::int64_t nanoseconds, cudaStream_t stream);

}  // namespace headway::runtime
