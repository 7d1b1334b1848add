// Fused router forward on mma.sync (sm_80 and up). x is bf16, so R = hi + mid + lo in bf16 is exact
// and
//   z = x.lo + x.mid + x.hi      (fp32 accumulation, smallest terms first)
// equals the fp32 product up to the order of the additions. Each warp keeps 16 * row_tiles
// sub-tokens' x in registers as A fragments for the whole sweep over the experts; R streams through
// shared memory in chunks of 32 experts; each thread keeps a sorted top-K list per row, and the
// four threads of a row merge at the end.
//
// Fragment order: inside every 32 columns of d, thread t of a quad owns columns 8t .. 8t+7. The
// same permutation of the reduction index on both operands leaves the product unchanged and makes
// every load 16 bytes.
#pragma once

#include "kernels/check.hpp"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/router/order.cuh"
#include "kernels/router/router_fused.hpp"

namespace headway::kernels::router {

inline constexpr int fused_threads = 256;
inline constexpr int fused_stages = 3;
inline constexpr int num_pieces = 3;

template <int width>
inline constexpr int chunk_vectors = experts_per_chunk* width* num_pieces * 2 / 16;

__device__ inline void mma_bf16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// The K best (key, expert) seen so far, best first.
template <int K>
struct TopList {
    int32_t key[K];
    int expert[K];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < K; ++i) key[i] = empty_key, expert[i] = INT32_MAX;
    }
    static __device__ void exchange(int32_t& key_a, int& expert_a, int32_t& key_b, int& expert_b) {
        const bool swap = goes_before(key_b, expert_b, key_a, expert_a);
        const int32_t better_key = swap ? key_b : key_a, worse_key = swap ? key_a : key_b;
        const int better = swap ? expert_b : expert_a, worse = swap ? expert_a : expert_b;
        key_a = better_key, expert_a = better, key_b = worse_key, expert_b = worse;
    }
    /// One at a time, for short lists. Experts must come in ascending order: an equal key then
    /// stays behind.
    __device__ void insert(int32_t new_key, int new_expert) {
#pragma unroll
        for (int i = K - 1; i > 0; --i) {
            const bool above = new_key > key[i - 1], here = new_key > key[i];
            expert[i] = above ? expert[i - 1] : here ? new_expert : expert[i];
            key[i] = max(key[i], min(new_key, key[i - 1]));
        }
        expert[0] = new_key > key[0] ? new_expert : expert[0];
        key[0] = max(key[0], new_key);
    }
    /// Four at once, in any order: sorted, the better of each with the tail of the list (which
    /// leaves the K best as a bitonic sequence), sorted again. Fewer operations than four
    /// insertions from K = 4 on.
    __device__ void insert4(int32_t (&new_key)[4], int (&new_expert)[4]) {
        constexpr int pairs[5][2] = {{0, 1}, {2, 3}, {0, 2}, {1, 3}, {1, 2}};
#pragma unroll
        for (const auto& [i, j] : pairs)
            exchange(new_key[i], new_expert[i], new_key[j], new_expert[j]);
#pragma unroll
        for (int i = 0; i < 4; ++i) keep_better(K - 4 + i, new_key[3 - i], new_expert[3 - i]);
        sort_bitonic();
    }
    /// Both lanes of a pair get the K best of their two lists: the best of list against reversed
    /// list is bitonic.
    __device__ void merge_with_lane(int lane_mask) {
        int32_t other_key[K];
        int other[K];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            other_key[i] = __shfl_xor_sync(~0u, key[K - 1 - i], lane_mask);
            other[i] = __shfl_xor_sync(~0u, expert[K - 1 - i], lane_mask);
        }
#pragma unroll
        for (int i = 0; i < K; ++i) keep_better(i, other_key[i], other[i]);
        sort_bitonic();
    }

  private:
    __device__ void keep_better(int i, int32_t new_key, int new_expert) {
        const bool better = goes_before(new_key, new_expert, key[i], expert[i]);
        key[i] = better ? new_key : key[i];
        expert[i] = better ? new_expert : expert[i];
    }
    __device__ void sort_bitonic() {
#pragma unroll
        for (int stride = K / 2; stride > 0; stride /= 2)
#pragma unroll
            for (int i = 0; i < K; ++i)
                if ((i & stride) == 0)
                    exchange(key[i], expert[i], key[i + stride], expert[i + stride]);
    }
};

template <int width, int row_tiles>
struct Fragments {
    uint32_t a[row_tiles][width / 32][8];

    /// Rows first_row + {0, 8} + 16 m + lane / 4 of x [num_rows, width]; rows beyond the end are
    /// zeros.
    __device__ void load(const __nv_bfloat16* x, int first_row, int num_rows) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = first_row + 16 * m + 8 * half + lane / 4;
                const auto* from =
                    reinterpret_cast<const uint4*>(x + int64_t(row) * width) + lane % 4;
#pragma unroll
                for (int block = 0; block < width / 32; ++block) {
                    const uint4 v = row < num_rows ? __ldcs(from + 4 * block) : uint4{0, 0, 0, 0};
                    a[m][block][half] = v.x;
                    a[m][block][2 + half] = v.y;
                    a[m][block][4 + half] = v.z;
                    a[m][block][6 + half] = v.w;
                }
            }
    }
};

/// One row's list to memory: the four lanes of the quad hold the same list and share the writes.
template <int K>
__device__ void write_row(const TopList<K>& list, int k, int64_t pair, const float* bias,
                          bool biased, int32_t* histogram, const RouterOutput& out) {
    float logit[K], top = -INFINITY, sum = 0;
#pragma unroll
    for (int j = 0; j < K; ++j) {
        if (j >= k) break;
        logit[j] = score_of_key(list.key[j]);
        if (biased) logit[j] -= bias[list.expert[j]];
        top = fmaxf(top, logit[j]);
    }
#pragma unroll
    for (int j = 0; j < K; ++j) {
        if (j >= k) break;
        logit[j] = expf(logit[j] - top);
        sum += logit[j];
    }
#pragma unroll
    for (int j = 0; j < K; ++j) {
        if (j >= k) break;
        if (j % 4 != threadIdx.x % 4) continue;
        out.index[pair + j] = list.expert[j];
        out.gate[pair + j] = logit[j] / sum;
        atomicAdd(&histogram[list.expert[j]], 1);
    }
}

/// Each row's four new scores, of experts first, first + 1, first + 8 and first + 9.
template <int K, int row_tiles>
__device__ void offer(TopList<K> (&lists)[row_tiles][2], const float (&z)[row_tiles][2][4],
                      int first, const float* bias, int num_experts) {
    const int experts[4] = {first, first + 1, first + 8, first + 9};
    float b[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) b[i] = bias[experts[i]];
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int32_t key[4];
            int expert[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                expert[i] = experts[i];
                key[i] = score_key(z[m][i / 2][2 * half + i % 2] + b[i]);
                if (experts[i] >= num_experts) key[i] = empty_key;
            }
            if constexpr (K >= 4) {
                lists[m][half].insert4(key, expert);
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i) lists[m][half].insert(key[i], expert[i]);
            }
        }
}

template <int width, int K, int row_tiles>
inline constexpr int fused_blocks_per_sm = row_tiles*(width / 4 + 4 * K) + 64 <= 128 ? 2 : 1;

/// Block (i, h): sub-tokens i * 256 .. of head h, in passes of 128 * row_tiles.
template <int width, int K, int row_tiles>
__global__ void __launch_bounds__(fused_threads, (fused_blocks_per_sm<width, K, row_tiles>))
    fused_kernel(RouterShape shape, int num_padded, RouterInput input,
                 const uint4* __restrict__ pieces, RouterOutput out) {
    extern __shared__ uint4 stages[];
    auto* bias = reinterpret_cast<float*>(stages + fused_stages * chunk_vectors<width>);
    auto* histogram = reinterpret_cast<int32_t*>(bias + num_padded);
    constexpr int blocks = width / 32, pass_rows = 128 * row_tiles;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int head = blockIdx.y, first_row = blockIdx.x * tokens_per_count;
    const int num_rows = min(shape.num_tokens - first_row, tokens_per_count);
    const int num_chunks = num_padded / experts_per_chunk;
    const int num_steps = (num_rows + pass_rows - 1) / pass_rows * num_chunks;
    pieces += int64_t(head) * num_chunks * chunk_vectors<width>;
    const __nv_bfloat16* x = input.x + (int64_t(head) * shape.num_tokens + first_row) * width;

    const auto start_copy = [&](int step) {
        if (step < num_steps) {
            const uint4* from = pieces + int64_t(step % num_chunks) * chunk_vectors<width>;
            const uint32_t to = ptx::smem_addr(stages + step % fused_stages * chunk_vectors<width>);
            for (int i = threadIdx.x; i < chunk_vectors<width>; i += fused_threads)
                ptx::cp_async_16(to + 16 * i, from + i, true);
        }
        ptx::cp_async_commit();  // an empty group keeps the count of groups in step
    };
    for (int step = 0; step < fused_stages - 1; ++step) start_copy(step);
    for (int e = threadIdx.x; e < num_padded; e += fused_threads) {
        const bool biased = input.bias != nullptr && e < shape.num_experts;
        bias[e] = biased ? input.bias[head * shape.num_experts + e] : 0.0f;
        histogram[e] = 0;
    }

    Fragments<width, row_tiles> fragments;
    TopList<K> lists[row_tiles][2];
    for (int step = 0; step < num_steps; ++step) {
        const int chunk = step % num_chunks;
        const int warp_row = step / num_chunks * pass_rows + warp * 16 * row_tiles;
        if (chunk == 0) {
            fragments.load(x, warp_row, num_rows);
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) lists[m][0].clear(), lists[m][1].clear();
        }
        ptx::cp_async_wait<fused_stages - 2>();
        __syncthreads();
        start_copy(step + fused_stages - 1);
        const uint4* stage = stages + step % fused_stages * chunk_vectors<width> + lane;
// Two pairs at d <= 128: the products of one beside the sorting of the other.
#pragma unroll(width == 256 ? 1 : 2)
        for (int pair = 0; pair < experts_per_chunk / 16; ++pair) {
            float z[row_tiles][2][4] = {};
#pragma unroll
            for (int piece = num_pieces - 1; piece >= 0; --piece)
#pragma unroll
                for (int block = 0; block < blocks; ++block) {
                    uint4 b[2];
#pragma unroll
                    for (int n = 0; n < 2; ++n)
                        b[n] = stage[(((pair * 2 + n) * num_pieces + piece) * blocks + block) * 32];
#pragma unroll
                    for (int half = 0; half < 2; ++half)
#pragma unroll
                        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                            for (int n = 0; n < 2; ++n) {
                                const uint32_t* a = fragments.a[m][block] + 4 * half;
                                mma_bf16(z[m][n], a[0], a[1], a[2], a[3],
                                         half == 0 ? b[n].x : b[n].z, half == 0 ? b[n].y : b[n].w);
                            }
                }
            const int first = chunk * experts_per_chunk + pair * 16 + lane % 4 * 2;
            offer<K, row_tiles>(lists, z, first, bias, shape.num_experts);
        }
        if (chunk != num_chunks - 1) continue;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                lists[m][half].merge_with_lane(1);
                lists[m][half].merge_with_lane(2);
                const int row = warp_row + 16 * m + 8 * half + lane / 4;
                const int64_t token = int64_t(head) * shape.num_tokens + first_row + row;
                if (row < num_rows)
                    write_row<K>(lists[m][half], shape.top_k, token * shape.top_k, bias,
                                 input.bias != nullptr, histogram, out);
            }
    }
    __syncthreads();
    if (out.counts == nullptr) return;
    int32_t* counts = out.counts + (int64_t(head) * gridDim.x + blockIdx.x) * shape.num_experts;
    for (int e = threadIdx.x; e < shape.num_experts; e += fused_threads) counts[e] = histogram[e];
}

template <int width, int K, int row_tiles>
void launch_fused(const RouterShape& shape, const RouterInput& input, const RouterOutput& out,
                  const uint4* pieces, cudaStream_t stream) {
    const int padded = padded_experts(shape);
    const int bytes = fused_stages * chunk_vectors<width> * 16 + padded * 8;
    const auto kernel = fused_kernel<width, K, row_tiles>;
    HEADWAY_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const dim3 grid(shape.grouping().counts_per_head(), shape.num_heads);
    kernel<<<grid, fused_threads, bytes, stream>>>(shape, padded, input, pieces, out);
    check_launch();
}

/// Lists are padded to a power of two. 16 rows a warp leave room for two blocks per SM; at d = 256
/// the registers hold one block either way, and 32 rows a warp halve the reads of R.
template <int width>
void launch_fused_width(const RouterShape& shape, const RouterInput& input, const RouterOutput& out,
                        const uint4* pieces, cudaStream_t stream) {
    constexpr int row_tiles = width == 256 ? 2 : 1;
    const auto launch = shape.top_k <= 2    ? launch_fused<width, 2, row_tiles>
                        : shape.top_k <= 4  ? launch_fused<width, 4, row_tiles>
                        : shape.top_k <= 8  ? launch_fused<width, 8, 1>
                        : shape.top_k <= 16 ? launch_fused<width, 16, 1>
                                            : launch_fused<width, 32, 1>;
    launch(shape, input, out, pieces, stream);
}

}  // namespace headway::kernels::router
