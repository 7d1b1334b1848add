// One warp a row; a lane takes four neighbouring columns at a time. Sums run in a fixed order.
#include <cmath>

#include "kernels/attention/softmax.hpp"
#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

__device__ __forceinline__ void store4(bf16* out, const float (&x)[4]) {
    const __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(x[0], x[1]),
                                    __floats2bfloat162_rn(x[2], x[3])};
    *reinterpret_cast<uint2*>(out) = reinterpret_cast<const uint2&>(pair);
}

struct Quad {
    float v[4];
};
__device__ __forceinline__ Quad load4(const float* in) {
    const float4 x = *reinterpret_cast<const float4*>(in);
    return {{x.x, x.y, x.z, x.w}};
}

// blockIdx.y is the head.
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(SoftmaxShape s, const float* scores, bf16* p, float* log_sum) {
    const int row = int(blockIdx.x) * kWarps + int(threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= s.length) return;
    const std::int64_t line = (std::int64_t{blockIdx.y} * s.length + row) * s.stride;
    float top = -INFINITY;
    for (int j = 4 * lane; j <= row; j += 128) {
        const Quad x = load4(scores + line + j);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (j + i <= row) top = fmaxf(top, x.v[i]);
    }
    top = warp_max(top);
    float sum = 0;
    for (int j = 4 * lane; j <= row; j += 128) {
        const Quad x = load4(scores + line + j);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (j + i <= row) sum += __expf(x.v[i] - top);
    }
    sum = warp_sum(sum);
    const float inverse = 1.0f / sum;
    for (int j = 4 * lane; j < s.stride; j += 128) {
        float out[4] = {0, 0, 0, 0};
        if (j <= row) {
            const Quad x = load4(scores + line + j);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (j + i <= row) out[i] = __expf(x.v[i] - top) * inverse;
        }
        store4(p + line + j, out);
    }
    if (lane == 0) log_sum[std::int64_t{blockIdx.y} * s.length + row] = top + logf(sum);
}

__global__ void __launch_bounds__(kThreads)
    softmax_backward_kernel(SoftmaxShape s, const float* scores, const float* dp,
                            const float* log_sum, const bf16* o, const bf16* d_o, bf16* p,
                            bf16* ds) {
    const int row = int(blockIdx.x) * kWarps + int(threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= s.length) return;
    const std::int64_t line = (std::int64_t{blockIdx.y} * s.length + row) * s.stride;
    const std::int64_t first =
        (std::int64_t{row} * s.num_heads + std::int64_t{blockIdx.y}) * s.head_dim;
    float mean = 0;
    for (int i = lane; i < s.head_dim; i += 32)
        mean += __bfloat162float(o[first + i]) * __bfloat162float(d_o[first + i]);
    mean = warp_sum(mean);
    const float total = log_sum[std::int64_t{blockIdx.y} * s.length + row];
    for (int j = 4 * lane; j < s.stride; j += 128) {
        float probability[4] = {0, 0, 0, 0}, gradient[4] = {0, 0, 0, 0};
        if (j <= row) {
            const Quad x = load4(scores + line + j), dx = load4(dp + line + j);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (j + i <= row) {
                    probability[i] = __expf(x.v[i] - total);
                    gradient[i] = s.scale * probability[i] * (dx.v[i] - mean);
                }
        }
        store4(p + line + j, probability);
        store4(ds + line + j, gradient);
    }
}

dim3 grid_of(const SoftmaxShape& s) {
    return {unsigned(s.length + kWarps - 1) / kWarps, unsigned(s.num_heads)};
}

}  // namespace

void causal_softmax(const SoftmaxShape& shape, const float* scores, bf16* p, float* log_sum,
                    cudaStream_t stream) {
    softmax_kernel<<<grid_of(shape), kThreads, 0, stream>>>(shape, scores, p, log_sum);
    check_launch();
}

void causal_softmax_backward(const SoftmaxShape& shape, const float* scores, const float* dp,
                             const float* log_sum, const bf16* o, const bf16* d_o, bf16* p,
                             bf16* ds, cudaStream_t stream) {
    softmax_backward_kernel<<<grid_of(shape), kThreads, 0, stream>>>(shape, scores, dp, log_sum, o,
                                                                     d_o, p, ds);
    check_launch();
}

}  // namespace headway::kernels
