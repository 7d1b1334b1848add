// GELU, SiLU and their derivatives in fp32: exact (erf, exp) for references, for epilogues those of
// kernels/gelu.cuh.
#pragma once

#include "kernels/gelu.cuh"
#include "kernels/grouped_gemm/grouped_gemm.hpp"

namespace headway::kernels {

__device__ __forceinline__ float gelu_erf_exact(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118f));
}

__device__ __forceinline__ float gelu_tanh_exact(float x) {
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// d/dx x Phi(x) = Phi(x) + x phi(x).
__device__ __forceinline__ float gelu_erf_grad_exact(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678118f)) + x * 0.3989422804f * expf(-0.5f * x * x);
}

__device__ __forceinline__ float gelu_tanh_grad_exact(float x) {
    const float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) +
           0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 0.134145f * x * x);
}

__device__ __forceinline__ float sigmoid_exact(float x) {
    return 1.0f / (1.0f + expf(-x));
}

template <GroupedActivation Act>
using GroupedGelu = Gelu<Act == GroupedActivation::gelu_erf>;

template <GroupedActivation Act>
__device__ __forceinline__ float activate(float x) {
    return Act == GroupedActivation::none ? x : 0.5f * GroupedGelu<Act>::twice_value(x);
}

template <GroupedActivation Act>
__device__ __forceinline__ float activation_slope(float x) {
    return Act == GroupedActivation::none ? 1.0f : GroupedGelu<Act>::value_slope(x, 0.5f).slope;
}

}  // namespace headway::kernels
