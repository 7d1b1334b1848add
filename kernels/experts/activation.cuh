// The experts' activations and their slopes for the fast kernels: GELU or, of SwiGLU's gate, SiLU
// as in kernels/gelu.cuh.
#pragma once

#include "kernels/experts/experts.hpp"
#include "kernels/gelu.cuh"

namespace headway::kernels {

template <Activation Act>
using GeluOf = Gelu<Act == Activation::gelu_erf>;

// activate_scaled yields act(x) times this power of two, which the store of the output takes back.
template <Activation Act>
inline constexpr float activation_scale = Act == Activation::swiglu ? 1.0f : 2.0f;

template <Activation Act>
__device__ __forceinline__ float activate_scaled(float x) {
    if constexpr (Act == Activation::swiglu) {
        return Silu::value(x);
    } else {
        return GeluOf<Act>::twice_value(x);
    }
}

template <Activation Act>
__device__ __forceinline__ ValueSlope activate_with_slope(float x, float half_gate) {
    if constexpr (Act == Activation::swiglu) {
        return Silu::value_slope(x, half_gate);
    } else {
        return GeluOf<Act>::value_slope(x, half_gate);
    }
}

}  // namespace headway::kernels
