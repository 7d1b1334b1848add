// GELU, SiLU and their derivatives in fp32, exact (erf, exp) for references and fast for epilogues.
// Fast erf GELU: x/2 (1 + tanh(x (a + b x^2 + c x^4))) with a, b, c fitted by us to the erf form;
// the fit is within 2.6e-5 of x Phi(x), and tanh.approx adds at most |x| 2^-12 (PTX ISA: relative
// error 2^-11).
#pragma once

#include "kernels/grouped_gemm/grouped_gemm.hpp"

namespace headway::kernels {

__device__ __forceinline__ float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// x^2 is clamped where the tanh has long been 1, because the fitted polynomial turns over beyond
// |x| = 11.
__device__ __forceinline__ float gelu_erf_fast(float x) {
    const float s = fminf(x * x, 36.0f);
    const float inner = fmaf(fmaf(-3.5151800e-4f, s, 3.7005654e-2f), s, 7.9750788e-1f);
    const float half = 0.5f * x;
    return fmaf(half, tanh_approx(x * inner), half);
}

__device__ __forceinline__ float gelu_tanh_fast(float x) {
    const float inner = x * fmaf(0.0356774081f, x * x, 0.7978845608f);
    const float half = 0.5f * x;
    return fmaf(half, tanh_approx(inner), half);
}

__device__ __forceinline__ float silu_fast(float x) {
    const float half = 0.5f * x;  // x sigmoid(x) = x/2 (1 + tanh(x/2))
    return fmaf(half, tanh_approx(half), half);
}

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

__device__ __forceinline__ float gelu_erf_grad_fast(float x) {
    const float s = fminf(x * x, 36.0f);
    const float inner = fmaf(fmaf(-3.5151800e-4f, s, 3.7005654e-2f), s, 7.9750788e-1f);
    const float density = 0.3989422804f * exp2f(-0.72134752f * x * x);
    return fmaf(x, density, fmaf(0.5f, tanh_approx(x * inner), 0.5f));
}

__device__ __forceinline__ float gelu_tanh_grad_fast(float x) {
    const float t = tanh_approx(x * fmaf(0.0356774081f, x * x, 0.7978845608f));
    const float slope = fmaf(0.1070322243f, x * x, 0.7978845608f);
    return fmaf(0.5f, t, 0.5f) + 0.5f * x * fmaf(-t, t, 1.0f) * slope;
}

template <GroupedActivation Act>
__device__ __forceinline__ float activate(float x) {
    if constexpr (Act == GroupedActivation::gelu_erf) return gelu_erf_fast(x);
    if constexpr (Act == GroupedActivation::gelu_tanh) return gelu_tanh_fast(x);
    return x;
}

template <GroupedActivation Act>
__device__ __forceinline__ float activation_slope(float x) {
    if constexpr (Act == GroupedActivation::gelu_erf) return gelu_erf_grad_fast(x);
    if constexpr (Act == GroupedActivation::gelu_tanh) return gelu_tanh_grad_fast(x);
    return 1.0f;
}

}  // namespace headway::kernels
