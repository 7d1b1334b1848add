#include <algorithm>

#include "kernels/check.hpp"
#include "runtime/cuda/row_kernels.hpp"
#include "runtime/step/normal_draw.hpp"

namespace headway::runtime {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256, kWarps = kThreads / 32;

unsigned blocks_of(std::int64_t items, int per_block) {
    return static_cast<unsigned>((items + per_block - 1) / per_block);
}

template <typename T>
__global__ void fill_normal_kernel(T* out, std::int64_t count, float sigma, std::uint64_t seed) {
    for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
         i += std::int64_t{gridDim.x} * kThreads)
        out[i] = T(sigma * normal_at(seed, i));
}

template <typename T>
void fill(T* out, std::int64_t count, float sigma, std::uint64_t seed, cudaStream_t stream) {
    if (count == 0) return;
    const unsigned blocks = std::min(blocks_of(count, kThreads), 16384u);
    fill_normal_kernel<<<blocks, kThreads, 0, stream>>>(out, count, sigma, seed);
    kernels::check_launch();
}

__device__ float2 pair_at(const float* row, int i) {
    return *reinterpret_cast<const float2*>(row + 2 * i);
}
__device__ float2 pair_at(const bf16* row, int i) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(row + 2 * i));
}

// One warp a row.
template <typename W>
__global__ void __launch_bounds__(kThreads)
    gates_kernel(RowRouting s, const bf16* x, const W* weights, const std::int32_t* index,
                 float* gate) {
    const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
    if (row >= s.num_rows) return;
    const int lane = threadIdx.x % 32;
    const W* router =
        weights + row / s.rows_per_router * s.num_experts * static_cast<std::int64_t>(s.width);
    float logit = -INFINITY;
    for (int j = 0; j < s.top_k; ++j) {
        const W* expert = router + static_cast<std::int64_t>(index[row * s.top_k + j]) * s.width;
        float sum = 0;
        for (int i = lane; i < s.width / 2; i += 32) {
            const float2 a = pair_at(x + row * s.width, i), b = pair_at(expert, i);
            sum = fmaf(a.x, b.x, fmaf(a.y, b.y, sum));
        }
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (lane == j) logit = sum;
    }
    float top = logit;
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    const float weight = lane < s.top_k ? expf(logit - top) : 0.0f;
    float sum = weight;
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (lane < s.top_k) gate[row * s.top_k + lane] = weight / sum;
}

template <typename W>
void gates(const RowRouting& s, const bf16* x, const W* weights, const std::int32_t* index,
           float* gate, cudaStream_t stream) {
    if (s.num_rows == 0) return;
    gates_kernel<<<blocks_of(s.num_rows, kWarps), kThreads, 0, stream>>>(s, x, weights, index,
                                                                         gate);
    kernels::check_launch();
}

__global__ void counts_kernel(const std::int32_t* offsets, int count, std::int32_t* counts) {
    const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
    if (i < count) counts[i] = offsets[i + 1] - offsets[i];
}

__global__ void counts_by_rank_kernel(RowRouting s, int experts_per_rank, int num_ranks,
                                      const std::int32_t* index, const std::int32_t* place,
                                      std::int32_t* counts) {
    extern __shared__ std::int32_t own[];
    for (int i = threadIdx.x; i < 2 * num_ranks; i += kThreads) own[i] = 0;
    __syncthreads();
    for (std::int64_t slot = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
         slot < s.num_rows * s.top_k; slot += std::int64_t{gridDim.x} * kThreads) {
        if (index[slot] < 0) continue;
        const int rank = index[slot] / experts_per_rank;
        if (place[slot] >= 0) atomicAdd(&own[2 * rank], 1);
        atomicAdd(&own[2 * rank + 1], 1);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * num_ranks; i += kThreads) atomicAdd(&counts[i], own[i]);
}

__global__ void gate_gradients_kernel(RowRouting s, int experts_per_rank, const std::int32_t* index,
                                      const std::int32_t* place, const float* record_gradient,
                                      float* dgate) {
    const std::int64_t slot = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (slot >= s.num_rows * s.top_k || index[slot] < 0) return;
    const int choice = static_cast<int>(slot % s.top_k);
    const std::int64_t row = slot - choice;
    const int rank = index[slot] / experts_per_rank;
    int first = 0;
    while (index[row + first] < 0 || index[row + first] / experts_per_rank != rank) ++first;
    dgate[slot] = record_gradient[static_cast<std::int64_t>(place[row + first]) * s.top_k + choice];
}

__global__ void hold_kernel(std::int64_t nanoseconds) {
    std::uint64_t start = 0, now = 0;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < static_cast<std::uint64_t>(nanoseconds));
}

}  // namespace

void fill_normal(bf16* out, std::int64_t count, float sigma, std::uint64_t seed,
                 cudaStream_t stream) {
    fill(out, count, sigma, seed, stream);
}
void fill_normal(float* out, std::int64_t count, float sigma, std::uint64_t seed,
                 cudaStream_t stream) {
    fill(out, count, sigma, seed, stream);
}

void gates_of_choices(const RowRouting& s, const bf16* x, const float* weights,
                      const std::int32_t* index, float* gate, cudaStream_t stream) {
    gates(s, x, weights, index, gate, stream);
}
void gates_of_choices(const RowRouting& s, const bf16* x, const bf16* weights,
                      const std::int32_t* index, float* gate, cudaStream_t stream) {
    gates(s, x, weights, index, gate, stream);
}

void counts_of_offsets(const std::int32_t* offsets, int count, std::int32_t* counts,
                       cudaStream_t stream) {
    counts_kernel<<<blocks_of(count, kThreads), kThreads, 0, stream>>>(offsets, count, counts);
    kernels::check_launch();
}

void counts_by_rank(const RowRouting& s, int experts_per_rank, int num_ranks,
                    const std::int32_t* index, const std::int32_t* place, std::int32_t* counts,
                    cudaStream_t stream) {
    const std::size_t bytes = sizeof(std::int32_t) * 2 * static_cast<std::size_t>(num_ranks);
    HEADWAY_CUDA_CHECK(cudaMemsetAsync(counts, 0, bytes, stream));
    if (s.num_rows == 0) return;
    const unsigned blocks = std::min(blocks_of(s.num_rows * s.top_k, 4 * kThreads), 264u);
    counts_by_rank_kernel<<<blocks, kThreads, bytes, stream>>>(s, experts_per_rank, num_ranks,
                                                               index, place, counts);
    kernels::check_launch();
}

void gather_gate_gradients(const RowRouting& s, int experts_per_rank, const std::int32_t* index,
                           const std::int32_t* place, const float* record_gradient, float* dgate,
                           cudaStream_t stream) {
    if (s.num_rows == 0) return;
    gate_gradients_kernel<<<blocks_of(s.num_rows * s.top_k, kThreads), kThreads, 0, stream>>>(
        s, experts_per_rank, index, place, record_gradient, dgate);
    kernels::check_launch();
}

void hold_stream(std::int64_t nanoseconds, cudaStream_t stream) {
    hold_kernel<<<1, 1, 0, stream>>>(nanoseconds);
    kernels::check_launch();
}

}  // namespace headway::runtime
