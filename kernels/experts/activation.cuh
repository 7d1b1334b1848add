// Activations and their slopes for the fast kernels, one tanh.approx each:
//   GELU    x Phi(x) = h (1 + tanh p(x)), h = x / 2; erf form: p is the odd polynomial of degree 5
//           that minimises max |x| |Phi error| (2.5e-5), tanh form: sqrt(2/pi)(x + 0.044715 x^3);
//   SwiGLU  silu(g) u = (g/2)(1 + tanh(g/2)) u.
// tanh.approx has a relative error of 2^-11, under bf16's half step of 2^-9.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/experts/experts.hpp"

namespace headway::kernels {

struct ValueSlope {
    float value;
    float slope;
};

__device__ __forceinline__ float tanh_approx(float x) {
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(x));
    return t;
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
}

template <Activation Act>
struct GeluTerms {
    static constexpr bool erf_form = Act == Activation::gelu_erf;
    static constexpr float c1 = erf_form ? 0.79750789f : 0.79788456f;
    static constexpr float c3 = erf_form ? 0.03700565f : 0.03567741f;
    static constexpr float c5 = erf_form ? -3.5151711e-4f : 0.0f;

    // p(x) / x and twice p'(x) for u = x^2. The degree-5 term is negative; saturating c3 + c5 u to
    // [0, 1] bounds both without an instruction (past |x| = 10 they are constants, and tanh is 1).
    __device__ __forceinline__ static float odd_factor(float u) {
        return fmaf(u, erf_form ? __saturatef(fmaf(u, c5, c3)) : c3, c1);
    }
    __device__ __forceinline__ static float twice_derivative(float u) {
        const float inner = erf_form ? __saturatef(fmaf(u, 10.0f * c5, 6.0f * c3)) : 6.0f * c3;
        return fmaf(u, inner, 2.0f * c1);
    }
};

template <Activation Act>
__device__ __forceinline__ float activate(float x) {
    const float half = 0.5f * x;
    if constexpr (Act == Activation::swiglu) return fmaf(half, tanh_approx(half), half);
    using Terms = GeluTerms<Act>;
    return fmaf(half, tanh_approx(x * Terms::odd_factor(x * x)), half);
}

// activate_scaled yields act(x) times this power of two, which the store of the output takes back.
template <Activation Act>
inline constexpr float activation_scale = Act == Activation::swiglu ? 1.0f : 2.0f;

// An instruction less than activate(x): 2 x Phi(x) = x + x tanh p.
template <Activation Act>
__device__ __forceinline__ float activate_scaled(float x) {
    if constexpr (Act == Activation::swiglu) return activate<Act>(x);
    return fmaf(x, tanh_approx(x * GeluTerms<Act>::odd_factor(x * x)), x);
}

// With s = (1 + tanh p)/2: value x s, slope s + 2 p'(x) (x s)(1 - s); for silu p' = 1/2.
template <Activation Act>
__device__ __forceinline__ ValueSlope activate_with_slope(float x) {
    if constexpr (Act == Activation::swiglu) {
        const float s = fmaf(0.5f, tanh_approx(0.5f * x), 0.5f);
        const float value = x * s;
        return {value, fmaf(value, 1.0f - s, s)};
    } else {
        using Terms = GeluTerms<Act>;
        const float u = x * x;
        const float s = fmaf(0.5f, tanh_approx(x * Terms::odd_factor(u)), 0.5f);
        const float value = x * s;
        const float bend = Terms::twice_derivative(u);
        return {value, fmaf(value, fmaf(-s, bend, bend), s)};
    }
}

}  // namespace headway::kernels
