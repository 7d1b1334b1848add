// fp32 states: four parameters per thread, all loads before the first store. 30 bytes per parameter
// with fp32 gradients, 28 with bf16.
#include <stdexcept>

#include "kernels/adamw/adamw_math.cuh"
#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256;

__device__ __forceinline__ float4 load4(const float* x, std::int64_t i) {
    return __ldcs(reinterpret_cast<const float4*>(x) + i);
}
__device__ __forceinline__ float4 load4(const bf16* x, std::int64_t i) {
    const uint2 raw = __ldcs(reinterpret_cast<const uint2*>(x) + i);
    const float2 low = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.x));
    const float2 high = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.y));
    return make_float4(low.x, low.y, high.x, high.y);
}
__device__ __forceinline__ float read(const float* x, std::int64_t i) {
    return x[i];
}
__device__ __forceinline__ float read(const bf16* x, std::int64_t i) {
    return __bfloat162float(x[i]);
}

template <typename Gradient>
__device__ __forceinline__ void update_one(const AdamWFactors& f, const AdamWState& s,
                                           const Gradient* gradient, std::int64_t i) {
    AdamWElement x{s.parameter[i], s.m[i], s.v[i]};
    adamw_update(f, read(gradient, i), x);
    s.parameter[i] = x.p;
    s.m[i] = x.m;
    s.v[i] = x.v;
    if (s.parameter_bf16 != nullptr) s.parameter_bf16[i] = __float2bfloat16(x.p);
}

__device__ __forceinline__ AdamWFactors read(AdamWFactors f) {
    return f;
}
__device__ __forceinline__ AdamWFactors read(const AdamWFactors* f) {
    return *f;
}

// `Factors`: by value, or where they lie on the device.
template <typename Factors, typename Gradient>
__global__ void __launch_bounds__(kThreads)
    fused_kernel(Factors factors, AdamWState s, const Gradient* gradient) {
    const AdamWFactors f = read(factors);
    const std::int64_t quads = s.num_parameters / 4;
    const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (i < s.num_parameters - 4 * quads) update_one(f, s, gradient, 4 * quads + i);
    if (i >= quads) return;
    const float4 g = load4(gradient, i), p = load4(s.parameter, i);
    const float4 m = load4(s.m, i), v = load4(s.v, i);
    AdamWElement x[4] = {{p.x, m.x, v.x}, {p.y, m.y, v.y}, {p.z, m.z, v.z}, {p.w, m.w, v.w}};
    adamw_update(f, g.x, x[0]);
    adamw_update(f, g.y, x[1]);
    adamw_update(f, g.z, x[2]);
    adamw_update(f, g.w, x[3]);
    __stcs(reinterpret_cast<float4*>(s.parameter) + i, make_float4(x[0].p, x[1].p, x[2].p, x[3].p));
    __stcs(reinterpret_cast<float4*>(s.m) + i, make_float4(x[0].m, x[1].m, x[2].m, x[3].m));
    __stcs(reinterpret_cast<float4*>(s.v) + i, make_float4(x[0].v, x[1].v, x[2].v, x[3].v));
    if (s.parameter_bf16 == nullptr) return;
    __nv_bfloat162 out[2] = {__floats2bfloat162_rn(x[0].p, x[1].p),
                             __floats2bfloat162_rn(x[2].p, x[3].p)};
    reinterpret_cast<uint2*>(s.parameter_bf16)[i] = reinterpret_cast<const uint2&>(out);
}

// fp64 throughout, one parameter per thread.
template <typename Gradient>
__global__ void reference_kernel(AdamWStep t, AdamWState s, const Gradient* gradient,
                                 double grad_scale) {
    const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (i >= s.num_parameters) return;
    const double b1 = double(t.beta1), b2 = double(t.beta2), rate = double(t.learning_rate);
    const double g = grad_scale * double(read(gradient, i));
    const double m = b1 * double(s.m[i]) + (1 - b1) * g, v = b2 * double(s.v[i]) + (1 - b2) * g * g;
    const double m_hat = m / (1 - pow(b1, t.step)), v_hat = v / (1 - pow(b2, t.step));
    const double p = double(s.parameter[i]) * (1 - rate * double(t.weight_decay)) -
                     rate * m_hat / (sqrt(v_hat) + double(t.epsilon));
    s.parameter[i] = float(p);
    s.m[i] = float(m);
    s.v[i] = float(v);
    if (s.parameter_bf16 != nullptr) s.parameter_bf16[i] = __float2bfloat16(float(p));
}

template <typename Factors, typename Gradient>
void launch_fused(Factors factors, const AdamWState& s, const Gradient* gradient,
                  cudaStream_t stream) {
    constexpr std::int64_t kPerBlock = 4 * kThreads;
    const auto grid = static_cast<unsigned>((s.num_parameters + kPerBlock - 1) / kPerBlock);
    fused_kernel<<<grid, kThreads, 0, stream>>>(factors, s, gradient);
}

template <typename Gradient>
void step_any(AdamWImpl impl, const AdamWStep& step, const AdamWState& s, const Gradient* gradient,
              float grad_scale, cudaStream_t stream) {
    if (step.step < 1) throw std::invalid_argument("adamw: step counts from 1");
    if (s.num_parameters == 0) return;
    if (impl == AdamWImpl::fused) {
        launch_fused(adamw_factors(step, grad_scale), s, gradient, stream);
    } else {
        const auto grid = static_cast<unsigned>((s.num_parameters + kThreads - 1) / kThreads);
        reference_kernel<<<grid, kThreads, 0, stream>>>(step, s, gradient, double(grad_scale));
    }
    check_launch();
}

}  // namespace

void adamw_step(const AdamWFactors* factors, const AdamWState& state, const float* gradient,
                cudaStream_t stream) {
    if (state.num_parameters == 0) return;
    launch_fused(factors, state, gradient, stream);
    check_launch();
}

void adamw_step(AdamWImpl impl, const AdamWStep& step, const AdamWState& state,
                const float* gradient, float grad_scale, cudaStream_t stream) {
    step_any(impl, step, state, gradient, grad_scale, stream);
}

void adamw_step(AdamWImpl impl, const AdamWStep& step, const AdamWState& state,
                const bf16* gradient, float grad_scale, cudaStream_t stream) {
    step_any(impl, step, state, gradient, grad_scale, stream);
}

}  // namespace headway::kernels
