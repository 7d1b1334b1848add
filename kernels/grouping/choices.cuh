// The (token, choice) pairs of a block of tokens, dealt to its threads.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace headway::kernels::grouping {

// With k known when compiling, thread t owns tokens t, t + Threads, .. and loads all their pairs at
// once, before they are needed.
template <int K, int Threads, int Tokens>
struct Pairs {
    static constexpr int per_thread = Tokens / Threads;
    int32_t held[per_thread][K];

    __device__ __forceinline__ static int token(int i) { return i * Threads + int(threadIdx.x); }
    __device__ __forceinline__ void load(const int32_t* from, int num_tokens) {
#pragma unroll
        for (int i = 0; i < per_thread; ++i) {
            if (token(i) >= num_tokens) return;
            const int32_t* pairs = from + token(i) * K;
            if constexpr (K % 4 == 0) {
#pragma unroll
                for (int v = 0; v < K; v += 4) {
                    const int4 four = *reinterpret_cast<const int4*>(pairs + v);
                    held[i][v] = four.x, held[i][v + 1] = four.y;
                    held[i][v + 2] = four.z, held[i][v + 3] = four.w;
                }
            } else {
#pragma unroll
                for (int j = 0; j < K; ++j) held[i][j] = pairs[j];
            }
        }
    }
    /// act(pair, token, value) for every pair of this thread.
    template <typename Act>
    __device__ __forceinline__ void each(int num_tokens, int, Act act) const {
#pragma unroll
        for (int i = 0; i < per_thread; ++i) {
            if (token(i) >= num_tokens) return;
#pragma unroll
            for (int j = 0; j < K; ++j) act(token(i) * K + j, token(i), held[i][j]);
        }
    }
};

// Any k: neighbouring threads take neighbouring pairs, so that the reads coalesce.
template <int Threads, int Tokens>
struct Pairs<0, Threads, Tokens> {
    const int32_t* from;

    __device__ __forceinline__ void load(const int32_t* pairs, int) { from = pairs; }
    template <typename Act>
    __device__ __forceinline__ void each(int num_tokens, int k, Act act) const {
        for (int i = threadIdx.x; i < num_tokens * k; i += Threads) act(i, i / k, from[i]);
    }
};

/// Calls launch(integral_constant<K>): k where a kernel is compiled for it, else 0.
template <typename Launch>
void with_choices(int k, bool aligned, Launch launch) {
    if (aligned && k == 1) return launch(std::integral_constant<int, 1>{});
    if (aligned && k == 2) return launch(std::integral_constant<int, 2>{});
    if (aligned && k == 4) return launch(std::integral_constant<int, 4>{});
    if (aligned && k == 8) return launch(std::integral_constant<int, 8>{});
    launch(std::integral_constant<int, 0>{});
}

}  // namespace headway::kernels::grouping
