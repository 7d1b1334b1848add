// GELU, SiLU and their slopes for the fast kernels, one tanh.approx each: x Phi(x) = (x/2)(1 + tanh
// p(x)), x sigmoid(x) = (x/2)(1 + tanh(x/2)).
// Erf form: p is the odd polynomial of degree 5 that minimises max |x| |Phi error| (2.5e-5); tanh
// form: sqrt(2/pi)(x + 0.044715 x^3). tanh.approx has a relative error of 2^-11, under bf16's half
// step of 2^-9.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace headway::kernels {

// An activation and its slope, both times a gate.
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

template <bool ErfForm>
struct Gelu {
    static constexpr float c1 = ErfForm ? 0.79750789f : 0.79788456f;
    static constexpr float c3 = ErfForm ? 0.03700565f : 0.03567741f;
    static constexpr float c5 = ErfForm ? -3.5151711e-4f : 0.0f;
    // p'(x) = b1 p(x)/x + b0: exact in the tanh form; in the erf form the fit that minimises the
    // error of the slope (3.8e-4, a fifth of bf16's half step).
    static constexpr float b1 = ErfForm ? 2.90416502f : 3.0f;
    static constexpr float b0 = ErfForm ? -1.51590629f : -2.0f * c1;

    // p(x) / x for u = x^2. The degree-5 term is negative; saturating c3 + c5 u to [0, 1] bounds it
    // without an instruction (past |x| = 10 it is a constant, and tanh is 1).
    __device__ __forceinline__ static float odd_factor(float u) {
        return fmaf(u, ErfForm ? __saturatef(fmaf(u, c5, c3)) : c3, c1);
    }

    // 2 x Phi(x) = x + x tanh p, an instruction less than x Phi(x).
    __device__ __forceinline__ static float twice_value(float x) {
        return fmaf(x, tanh_approx(x * odd_factor(x * x)), x);
    }
    // With s = (1 + tanh p)/2: value x s, slope s + (x s)(1 - tanh p) p'(x). A gate g of s is a
    // gate of both.
    __device__ __forceinline__ static ValueSlope value_slope(float x, float half_gate) {
        const float odd = odd_factor(x * x);
        const float t = tanh_approx(x * odd);
        const float s = fmaf(half_gate, t, half_gate);
        const float value = x * s;
        const float derivative = fmaf(odd, b1, b0);
        return {value, fmaf(value, fmaf(-t, derivative, derivative), s)};
    }
};

struct Silu {
    __device__ __forceinline__ static float value(float x) {
        const float half = 0.5f * x;
        return fmaf(half, tanh_approx(half), half);
    }
    // As Gelu's, with s = sigmoid(x) and s' = s (1 - s).
    __device__ __forceinline__ static ValueSlope value_slope(float x, float half_gate) {
        const float t = tanh_approx(0.5f * x);
        const float s = fmaf(half_gate, t, half_gate);
        const float value = x * s;
        return {value, fmaf(value, fmaf(-0.5f, t, 0.5f), s)};
    }
};

}  // namespace headway::kernels
