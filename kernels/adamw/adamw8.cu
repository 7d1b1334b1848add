// 8-bit states: one warp owns a block of 256 parameters; a lane holds two quads, so that every
// access of a warp is contiguous. 18 bytes per parameter with fp32 gradients. The codes cost two
// square roots, a logarithm, an exponential and a reciprocal per parameter: the hardware
// approximations (2^-22) are far finer than the codes.
#include <stdexcept>

#include "kernels/adamw/adamw_math.cuh"
#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256;
constexpr float kOctaveSteps = 255.0f / 24.0f;
constexpr float kSmallest = 1e-30f;  // maxima below this count as zero

__device__ __forceinline__ float fast_sqrt(float x) {
    float y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// What turns values into codes for one block of parameters.
struct Encoder {
    float m_scale, v_shift;
    __device__ __forceinline__ std::int8_t m(float x) const {
        const float c = fminf(rintf(fast_sqrt(fabsf(x) * m_scale)), 127.0f);
        return static_cast<std::int8_t>(x < 0.0f ? -c : c);
    }
    __device__ __forceinline__ std::uint8_t v(float x) const {
        const float q = fminf(fmaxf(rintf(fmaf(kOctaveSteps, __log2f(x), v_shift)), 1.0f), 255.0f);
        return static_cast<std::uint8_t>(x > 0.0f ? q : 0.0f);
    }
};

__device__ __forceinline__ Encoder make_encoder(float m_max, float v_max) {
    return {m_max > kSmallest ? __fdividef(127.0f * 127.0f, m_max) : 0.0f,
            255.0f - kOctaveSteps * __log2f(fmaxf(v_max, kSmallest))};
}

__device__ __forceinline__ float decode_m(std::int8_t code, float scale) {
    const float c = float(code);
    return c * fabsf(c) * scale;  // scale = max / 127^2
}

__device__ __forceinline__ float decode_v(std::uint8_t code, float max) {
    return code == 0 ? 0.0f : max * exp2f((float(code) - 255.0f) * (1.0f / kOctaveSteps));
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

template <typename T>
struct alignas(4 * sizeof(T)) Quad {
    T v[4];
};

// Four consecutive elements, one by one where the array ends.
template <typename T>
__device__ __forceinline__ Quad<T> load(const T* x, std::int64_t first, std::int64_t count) {
    if (first + 4 <= count) return *reinterpret_cast<const Quad<T>*>(x + first);
    Quad<T> out{};
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (first + i < count) out.v[i] = x[first + i];
    return out;
}

template <typename T>
__device__ __forceinline__ void store(T* x, std::int64_t first, std::int64_t count,
                                      const Quad<T>& in) {
    if (first + 4 <= count) {
        *reinterpret_cast<Quad<T>*>(x + first) = in;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (first + i < count) x[first + i] = in.v[i];
}

template <typename Gradient>
__global__ void __launch_bounds__(kThreads)
    step_kernel(AdamWFactors f, AdamW8State s, const Gradient* gradient) {
    const std::int64_t block = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
    if (block * adamw_block >= s.num_parameters) return;
    const std::int64_t n = s.num_parameters;
    const std::int64_t first[2] = {block * adamw_block + threadIdx.x % 32 * 4,
                                   block * adamw_block + 128 + threadIdx.x % 32 * 4};
    Quad<Gradient> g[2];
    Quad<float> p[2];
    Quad<std::int8_t> m[2];
    Quad<std::uint8_t> v[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        g[h] = load(gradient, first[h], n);
        p[h] = load(s.parameter, first[h], n);
        m[h] = load(s.m, first[h], n);
        v[h] = load(s.v, first[h], n);
    }
    const float m_scale = s.m_max[block] * (1.0f / (127.0f * 127.0f)), v_max = s.v_max[block];
    AdamWElement x[2][4];
    float new_m_max = 0.0f, new_v_max = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[h][i] = {p[h].v[i], decode_m(m[h].v[i], m_scale), decode_v(v[h].v[i], v_max)};
            adamw_update(f, float(g[h].v[i]), x[h][i]);  // beyond the end: all zeros
            p[h].v[i] = x[h][i].p;
            new_m_max = fmaxf(new_m_max, fabsf(x[h][i].m));
            new_v_max = fmaxf(new_v_max, x[h][i].v);
        }
    new_m_max = warp_max(new_m_max);
    new_v_max = warp_max(new_v_max);
    const Encoder encode = make_encoder(new_m_max, new_v_max);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        Quad<bf16> rounded;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            m[h].v[i] = encode.m(x[h][i].m);
            v[h].v[i] = encode.v(x[h][i].v);
            rounded.v[i] = __float2bfloat16(x[h][i].p);
        }
        store(s.parameter, first[h], n, p[h]);
        store(s.m, first[h], n, m[h]);
        store(s.v, first[h], n, v[h]);
        if (s.parameter_bf16 != nullptr) store(s.parameter_bf16, first[h], n, rounded);
    }
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
