// 8-bit states: one warp owns a block of 256 parameters, 8 consecutive ones per lane. 18 bytes per
// parameter with fp32 gradients.
#include <stdexcept>

#include "kernels/adamw/adamw_math.cuh"
#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256, kPerLane = 8;
constexpr float kOctaveSteps = 255.0f / 24.0f;

__device__ __forceinline__ float decode_m(std::int8_t code, float max) {
    const float c = float(code) * (1.0f / 127.0f);
    return c * fabsf(c) * max;
}

__device__ __forceinline__ std::int8_t encode_m(float m, float max) {
    if (!(max > 0.0f)) return 0;
    const float c = rintf(127.0f * sqrtf(fminf(fabsf(m) / max, 1.0f)));
    return static_cast<std::int8_t>(m < 0.0f ? -c : c);
}

__device__ __forceinline__ float decode_v(std::uint8_t code, float max) {
    return code == 0 ? 0.0f : max * exp2f((float(code) - 255.0f) * (1.0f / kOctaveSteps));
}

__device__ __forceinline__ std::uint8_t encode_v(float v, float max) {
    if (!(v > 0.0f)) return 0;
    const float q = rintf(fmaf(kOctaveSteps, log2f(v / max), 255.0f));
    return static_cast<std::uint8_t>(fminf(fmaxf(q, 1.0f), 255.0f));
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

template <typename T>
union Eight {
    T v[kPerLane];
    uint4 words[(sizeof(T) * kPerLane + 15) / 16];
    uint2 word;
};

// Eight consecutive elements, element by element in the last, partial group.
template <typename T>
__device__ __forceinline__ Eight<T> load(const T* x, std::int64_t first, std::int64_t count) {
    Eight<T> out{};
    if (first + kPerLane <= count) {
        if constexpr (sizeof(T) == 1) {
            out.word = *reinterpret_cast<const uint2*>(x + first);
        } else {
#pragma unroll
            for (int i = 0; i < int(sizeof(T)) / 2; ++i)
                out.words[i] = reinterpret_cast<const uint4*>(x + first)[i];
        }
    } else {
#pragma unroll
        for (int i = 0; i < kPerLane; ++i)
            if (first + i < count) out.v[i] = x[first + i];
    }
    return out;
}

template <typename T>
__device__ __forceinline__ void store(T* x, std::int64_t first, std::int64_t count,
                                      const Eight<T>& in) {
    if (first + kPerLane <= count) {
        if constexpr (sizeof(T) == 1) {
            *reinterpret_cast<uint2*>(x + first) = in.word;
        } else {
#pragma unroll
            for (int i = 0; i < int(sizeof(T)) / 2; ++i)
                reinterpret_cast<uint4*>(x + first)[i] = in.words[i];
        }
    } else {
#pragma unroll
        for (int i = 0; i < kPerLane; ++i)
            if (first + i < count) x[first + i] = in.v[i];
    }
}

template <typename Gradient>
__global__ void __launch_bounds__(kThreads)
    step_kernel(AdamWFactors f, AdamW8State s, const Gradient* gradient) {
    const std::int64_t block = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
    if (block * adamw_block >= s.num_parameters) return;
    const std::int64_t first = block * adamw_block + threadIdx.x % 32 * kPerLane,
                       n = s.num_parameters;
    const auto g = load(gradient, first, n);
    auto p = load(s.parameter, first, n);
    auto m = load(s.m, first, n);
    auto v = load(s.v, first, n);
    const float m_max = s.m_max[block], v_max = s.v_max[block];
    AdamWElement x[kPerLane];
    float new_m_max = 0.0f, new_v_max = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
        x[i] = {p.v[i], decode_m(m.v[i], m_max), decode_v(v.v[i], v_max)};
        adamw_update(f, float(g.v[i]), x[i]);
        p.v[i] = x[i].p;
        if (first + i >= n) continue;
        new_m_max = fmaxf(new_m_max, fabsf(x[i].m));
        new_v_max = fmaxf(new_v_max, x[i].v);
    }
    new_m_max = warp_max(new_m_max);
    new_v_max = warp_max(new_v_max);
    Eight<bf16> rounded{};
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
        m.v[i] = encode_m(x[i].m, new_m_max);
        v.v[i] = encode_v(x[i].v, new_v_max);
        rounded.v[i] = __float2bfloat16(x[i].p);
    }
    store(s.parameter, first, n, p);
    store(s.m, first, n, m);
    store(s.v, first, n, v);
    if (s.parameter_bf16 != nullptr) store(s.parameter_bf16, first, n, rounded);
    if (threadIdx.x % 32 == 0) {
        s.m_max[block] = new_m_max;
        s.v_max[block] = new_v_max;
    }
}

template <typename Gradient>
void step_any(const AdamWStep& step, const AdamW8State& s, const Gradient* gradient,
              float grad_scale, cudaStream_t stream) {
    if (step.step < 1) throw std::invalid_argument("adamw: step counts from 1");
    if (s.num_parameters == 0) return;
    const std::int64_t per_block = kThreads / 32 * adamw_block;
    const auto grid = static_cast<unsigned>((s.num_parameters + per_block - 1) / per_block);
    step_kernel<<<grid, kThreads, 0, stream>>>(adamw_factors(step, grad_scale), s, gradient);
    check_launch();
}

}  // namespace

void adamw8_step(const AdamWStep& step, const AdamW8State& state, const float* gradient,
                 float grad_scale, cudaStream_t stream) {
    step_any(step, state, gradient, grad_scale, stream);
}

void adamw8_step(const AdamWStep& step, const AdamW8State& state, const bf16* gradient,
                 float grad_scale, cudaStream_t stream) {
    step_any(step, state, gradient, grad_scale, stream);
}

}  // namespace headway::kernels
