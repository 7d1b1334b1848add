// Top-k of one sub-token's scores by one warp, and its gates. Used where the logits are in memory.
#pragma once

#include <cmath>

#include "kernels/router/order.cuh"
#include "kernels/router/router.hpp"

namespace headway::kernels::router {

/// The gates of the k chosen: lane j < k holds (logit, expert) of choice j; all lanes take part.
__device__ inline void write_choice(int64_t token, int k, float logit, int expert,
                                    const RouterOutput& out) {
    const int lane = threadIdx.x % 32;
    float top = lane < k ? logit : -INFINITY;
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    const float weight = lane < k ? expf(logit - top) : 0.0f;
    float sum = weight;
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (lane >= k) return;
    out.index[token * k + lane] = expert;
    out.gate[token * k + lane] = weight / sum;
}

/// k rounds of "the best one after the last". logits [E], bias [E] or null. num_experts <= 32 *
/// per_lane.
template <int per_lane>
__device__ void select_top_k(int64_t token, int num_experts, int k, const float* logits,
                             const float* bias, const RouterOutput& out) {
    const int lane = threadIdx.x % 32;
    int32_t keys[per_lane];
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        const int e = i * 32 + lane;
        keys[i] =
            e < num_experts ? score_key(logits[e] + (bias == nullptr ? 0.0f : bias[e])) : empty_key;
    }
    int32_t last_key = INT32_MAX;
    int last = -1, chosen = 0;
    for (int round = 0; round < k; ++round) {
        int32_t best_key = empty_key;
        int best = INT32_MAX;
#pragma unroll
        for (int i = 0; i < per_lane; ++i) {
            const int e = i * 32 + lane;
            if (goes_before(last_key, last, keys[i], e) && goes_before(keys[i], e, best_key, best))
                best_key = keys[i], best = e;
        }
        for (int step = 16; step > 0; step /= 2) {
            const int32_t key = __shfl_xor_sync(~0u, best_key, step);
            const int other = __shfl_xor_sync(~0u, best, step);
            if (goes_before(key, other, best_key, best)) best_key = key, best = other;
        }
        last_key = best_key, last = best;
        if (lane == round) chosen = best;
    }
    write_choice(token, k, lane < k ? logits[chosen] : 0.0f, chosen, out);
}

}  // namespace headway::kernels::router
