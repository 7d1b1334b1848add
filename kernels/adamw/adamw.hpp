// One AdamW step over a flat array, one pass over memory (Loshchilov & Hutter, arXiv 1711.05101):
//   m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
//   p = p (1 - lr wd) - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)
// The master parameter is fp32; a bf16 copy is written for the next forward. States are fp32, or 8
// bits in blocks of 256 with one fp32 maximum each (the idea of arXiv 2110.02861; the codes below
// are ours):
//   m = sign c^2 max|m|, c = 0/127 .. 127/127        v = max v 2^(-(255 - q) / 10.625), q = 1..255;
//   q = 0 is 0
// so v spans 24 octaves with at most 3.3 % error and a non-zero v never becomes zero.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace headway::kernels {

struct AdamWStep {
    float learning_rate = 1e-3f;
    float beta1 = 0.9f, beta2 = 0.999f;
    float epsilon = 1e-8f;
    float weight_decay = 0.0f;
    int step = 1;  // t, from 1
};

// The step's scalars, worked out once on the host.
struct AdamWFactors {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float decay;         // 1 - lr wd
    float rate;          // lr / (1 - b1^t)
    float v_correction;  // 1 / sqrt(1 - b2^t)
    float epsilon, grad_scale;
};

inline AdamWFactors adamw_factors(const AdamWStep& s, float grad_scale) {
    const double correction1 = 1.0 - std::pow(double(s.beta1), s.step);
    const double correction2 = 1.0 - std::pow(double(s.beta2), s.step);
    return {s.beta1,
            s.beta2,
            1.0f - s.beta1,
            1.0f - s.beta2,
            1.0f - s.learning_rate * s.weight_decay,
            float(s.learning_rate / correction1),
            float(1.0 / std::sqrt(correction2)),
            s.epsilon,
            grad_scale};
}

enum class AdamWImpl { reference, fused };

struct AdamWState {
    std::int64_t num_parameters = 0;
    float* parameter = nullptr;  // master
    float *m = nullptr, *v = nullptr;
    __nv_bfloat16* parameter_bf16 = nullptr;  // may be null
};

inline constexpr int adamw_block = 256;

struct AdamW8State {
    std::int64_t num_parameters = 0;
    float* parameter = nullptr;
    std::int8_t* m = nullptr;                  // [num_parameters]
    std::uint8_t* v = nullptr;                 // [num_parameters]
    float *m_max = nullptr, *v_max = nullptr;  // [ceil(num_parameters / 256)]
    __nv_bfloat16* parameter_bf16 = nullptr;
};

/// Gradients in fp32 or bf16, multiplied by grad_scale first (1 / loss scale, clipping).
/// All arrays 16-byte aligned.
void adamw_step(AdamWImpl impl, const AdamWStep& step, const AdamWState& state,
                const float* gradient, float grad_scale, cudaStream_t stream);
void adamw_step(AdamWImpl impl, const AdamWStep& step, const AdamWState& state,
                const __nv_bfloat16* gradient, float grad_scale, cudaStream_t stream);
/// Fused, with factors that the device reads when the kernel runs: of any step, in a graph that is
/// replayed.
void adamw_step(const AdamWFactors* factors, const AdamWState& state, const float* gradient,
                cudaStream_t stream);
void adamw8_step(const AdamWStep& step, const AdamW8State& state, const float* gradient,
                 float grad_scale, cudaStream_t stream);
void adamw8_step(const AdamWStep& step, const AdamW8State& state, const __nv_bfloat16* gradient,
                 float grad_scale, cudaStream_t stream);

}  // namespace headway::kernels
