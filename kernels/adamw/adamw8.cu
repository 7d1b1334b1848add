// 8-bit states: one warp owns a block of 256 parameters; a lane holds two quads, so that every
// access of a warp is contiguous. 18 bytes per parameter with fp32 gradients. The codes cost two
// square roots, a logarithm, an exponential and a reciprocal per parameter: the hardware
// approximations (2^-22) are far finer than the codes. Instructions, not bytes, were the limit of a
// first version; hence the single-instruction forms here.
#include <stdexcept>

#include "kernels/adamw/adamw_math.cuh"
#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256;
constexpr float kOctaveSteps = 255.0f / 24.0f;
constexpr float kSmallest = 1e-30f;  // maxima below this count as zero

// The hardware's approximations without the handling of denormal numbers: one instruction each.
__device__ __forceinline__ float fast_sqrt(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float fast_log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Adding this rounds |x| < 2^22 to the nearest integer, whose two's complement are the low bits.
constexpr float kRound = 12582912.0f;  // 1.5 2^23

// What turns values into codes (the low bytes) for one block of parameters. Neither code can pass
// its end: |m| is at most the maximum, and so is v.
struct Encoder {
    float m_scale, v_shift;
    __device__ __forceinline__ std::uint32_t m(float x) const {
        return __float_as_uint(copysignf(fast_sqrt(fabsf(x) * m_scale), x) + kRound);
    }
    __device__ __forceinline__ std::uint32_t v(float x) const {
        const float q = fmaxf(fmaf(kOctaveSteps, fast_log2(x), v_shift), 1.0f) + kRound;
        return __float_as_uint(x > 0.0f ? q : kRound);
    }
};

__device__ __forceinline__ Encoder make_encoder(float m_max, float v_max) {
    return {m_max > kSmallest ? __fdividef(127.0f * 127.0f, m_max) : 0.0f,
            255.0f - kOctaveSteps * fast_log2(fmaxf(v_max, kSmallest))};
}

__device__ __forceinline__ float decode_m(std::int8_t code, float scale) {
    const float c = float(code);
    return c * fabsf(c) * scale;  // scale = max / 127^2
}

__device__ __forceinline__ float decode_v(std::uint8_t code, float max) {
    const float x = fast_exp2(fmaf(float(code), 1.0f / kOctaveSteps, -255.0f / kOctaveSteps));
    return code == 0 ? 0.0f : max * x;
}

// The largest of non-negative values: they order as their bits do.
__device__ __forceinline__ float warp_max(float x) {
    return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(x)));
}

template <typename T>
struct alignas(4 * sizeof(T)) Quad {
    T v[4];
};

// Four consecutive elements; Whole: all inside the array, else one by one where it ends. The loads
// are volatile because the compiler otherwise moves them to their first use, after the others'
// arrival.
__device__ __forceinline__ Quad<float> load_whole(const float* x) {
    Quad<float> out;
    asm volatile("ld.global.cs.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(out.v[0]), "=f"(out.v[1]), "=f"(out.v[2]), "=f"(out.v[3])
                 : "l"(x)
                 : "memory");
    return out;
}
__device__ __forceinline__ Quad<float> load_whole(const bf16* x) {
    std::uint32_t low, high;
    asm volatile("ld.global.cs.v2.u32 {%0, %1}, [%2];" : "=r"(low), "=r"(high) : "l"(x));
    return {{__uint_as_float(low << 16), __uint_as_float(low & 0xFFFF0000u),
             __uint_as_float(high << 16), __uint_as_float(high & 0xFFFF0000u)}};
}
template <bool Whole, typename T>
__device__ __forceinline__ Quad<float> load(const T* x, std::int64_t first, std::int64_t count) {
    if constexpr (Whole) return load_whole(x + first);
    Quad<float> out{};
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (first + i < count) out.v[i] = float(x[first + i]);
    return out;
}

template <bool Whole, typename T>
__device__ __forceinline__ void store(T* x, std::int64_t first, std::int64_t count,
                                      const Quad<T>& in) {
    if constexpr (Whole) {
        *reinterpret_cast<Quad<T>*>(x + first) = in;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (first + i < count) x[first + i] = in.v[i];
    }
}

// Four codes, the first in the low byte.
template <bool Whole, typename Code>
__device__ __forceinline__ std::uint32_t load_codes(const Code* x, std::int64_t first,
                                                    std::int64_t count) {
    std::uint32_t word = 0;
    if constexpr (Whole) {
        asm volatile("ld.global.cs.u32 %0, [%1];" : "=r"(word) : "l"(x + first));
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (first + i < count) word |= std::uint32_t(std::uint8_t(x[first + i])) << 8 * i;
    }
    return word;
}

template <bool Whole, typename Code>
__device__ __forceinline__ void store_codes(Code* x, std::int64_t first, std::int64_t count,
                                            const std::uint32_t (&code)[4]) {
    if constexpr (Whole) {
        *reinterpret_cast<std::uint32_t*>(x + first) = __byte_perm(
            __byte_perm(code[0], code[1], 0x0040), __byte_perm(code[2], code[3], 0x0040), 0x5410);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (first + i < count) x[first + i] = static_cast<Code>(code[i]);
    }
}

template <bool Whole, typename Gradient>
__device__ __forceinline__ void step_block(const AdamWFactors& f, const AdamW8State& s,
                                           const Gradient* gradient, std::int64_t block) {
    const std::int64_t n = s.num_parameters;
    const std::int64_t first[2] = {block * adamw_block + threadIdx.x % 32 * 4,
                                   block * adamw_block + 128 + threadIdx.x % 32 * 4};
    Quad<float> g[2], p[2];
    std::uint32_t m[2], v[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        g[h] = load<Whole>(gradient, first[h], n);
        p[h] = load<Whole>(s.parameter, first[h], n);
        m[h] = load_codes<Whole>(s.m, first[h], n);
        v[h] = load_codes<Whole>(s.v, first[h], n);
    }
    const float m_scale = s.m_max[block] * (1.0f / (127.0f * 127.0f)), v_max = s.v_max[block];
    AdamWElement x[2][4];
    float new_m_max = 0.0f, new_v_max = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[h][i] = {p[h].v[i], decode_m(static_cast<std::int8_t>(m[h] >> 8 * i), m_scale),
                       decode_v(static_cast<std::uint8_t>(v[h] >> 8 * i), v_max)};
            adamw_update(f, g[h].v[i], x[h][i]);  // beyond the end: all zeros
            p[h].v[i] = x[h][i].p;
            new_m_max = fmaxf(new_m_max, fabsf(x[h][i].m));
            new_v_max = fmaxf(new_v_max, x[h][i].v);
        }
    new_m_max = warp_max(new_m_max);
    new_v_max = warp_max(new_v_max);
    const Encoder encode = make_encoder(new_m_max, new_v_max);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        std::uint32_t m_code[4], v_code[4];
        Quad<bf16> rounded;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            m_code[i] = encode.m(x[h][i].m);
            v_code[i] = encode.v(x[h][i].v);
            rounded.v[i] = __float2bfloat16(x[h][i].p);
        }
        store<Whole>(s.parameter, first[h], n, p[h]);
        store_codes<Whole>(s.m, first[h], n, m_code);
        store_codes<Whole>(s.v, first[h], n, v_code);
        if (s.parameter_bf16 != nullptr) store<Whole>(s.parameter_bf16, first[h], n, rounded);
    }
    if (threadIdx.x % 32 == 0) {
        s.m_max[block] = new_m_max;
        s.v_max[block] = new_v_max;
    }
}

template <typename Gradient>
__global__ void __launch_bounds__(kThreads, 4)
    step_kernel(AdamWFactors f, AdamW8State s, const Gradient* gradient) {
    const std::int64_t block = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
    // Two copies of the code: a bounds check at every access keeps the loads from going out
    // together.
    if ((block + 1) * adamw_block <= s.num_parameters)
        step_block<true>(f, s, gradient, block);
    else if (block * adamw_block < s.num_parameters)
        step_block<false>(f, s, gradient, block);
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
