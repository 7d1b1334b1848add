// The unique order of expert scores as one signed integer: larger key = better; NaN below
// everything but an empty slot. Adding the bias first turns -0 into +0.
#pragma once

#include <cstdint>

namespace headway::kernels::router {

inline constexpr int32_t empty_key = INT32_MIN;
inline constexpr int32_t nan_key = INT32_MIN + 1;

__host__ __device__ inline int32_t key_of_bits(int32_t bits) {
    return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

__device__ inline int32_t score_key(float score) {
    return score == score ? key_of_bits(__float_as_int(score)) : nan_key;
}

__device__ inline float score_of_key(int32_t key) {
    return key == nan_key ? __int_as_float(0x7FFFFFFF) : __int_as_float(key_of_bits(key));
}

/// Whether (key, index) goes before (other_key, other_index).
__device__ inline bool goes_before(int32_t key, int index, int32_t other_key, int other_index) {
    return key > other_key || (key == other_key && index < other_index);
}

}  // namespace headway::kernels::router
