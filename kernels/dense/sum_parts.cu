#include "kernels/dense/sum_parts.hpp"

#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    sum_kernel(const float4* parts, int num_parts, std::int64_t quads, bool accumulate,
               float4* out) {
    const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (i >= quads) return;
    float4 sum = parts[i];
    for (int p = 1; p < num_parts; ++p) {
        const float4 x = parts[p * quads + i];
        sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
    }
    if (accumulate) {
        const float4 x = out[i];
        sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
    }
    out[i] = sum;
}

}  // namespace

void sum_parts(const float* parts, int num_parts, std::int64_t count, float* out,
               cudaStream_t stream, bool accumulate) {
    const std::int64_t quads = count / 4;
    if (quads == 0) return;
    sum_kernel<<<static_cast<unsigned>((quads + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
        reinterpret_cast<const float4*>(parts), num_parts, quads, accumulate,
        reinterpret_cast<float4*>(out));
    check_launch();
}

}  // namespace headway::kernels
