#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/bench/device.hpp"

namespace headway::kernels::bench {

namespace {

constexpr int kThreads = 256;

int grid_for(std::size_t n) {
    return int(std::min<std::size_t>((n + kThreads - 1) / kThreads, 8192));
}

__device__ std::uint64_t mix(std::uint64_t z) {
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

__device__ float normal_at(std::uint64_t seed, std::size_t i) {
    const std::uint64_t bits = mix(mix(seed) ^ i);
    const float u = (float(bits >> 40) + 0.5f) * 0x1p-24f;
    const float v = float((bits >> 8) & 0xFFFFFFu) * 0x1p-24f;
    return sqrtf(-2.0f * __logf(u)) * __cosf(6.2831853f * v);
}

template <typename T>
__global__ void fill_normal_kernel(T* out, std::size_t n, float sigma, std::uint64_t seed) {
    for (std::size_t i = blockIdx.x * std::size_t(blockDim.x) + threadIdx.x; i < n;
         i += std::size_t(gridDim.x) * blockDim.x)
        out[i] = T(sigma * normal_at(seed, i));
}

__global__ void fill_uniform_kernel(float* out, std::size_t n, float low, float high,
                                    std::uint64_t seed) {
    for (std::size_t i = blockIdx.x * std::size_t(blockDim.x) + threadIdx.x; i < n;
         i += std::size_t(gridDim.x) * blockDim.x)
        out[i] = low + (high - low) * (float(mix(mix(seed) ^ i) >> 40) * 0x1p-24f);
}

__device__ double as_double(double v) {
    return v;
}
__device__ double as_double(float v) {
    return v;
}
__device__ double as_double(bf16 v) {
    return __bfloat162float(v);
}

template <typename A, typename B>
__global__ void difference_kernel(const A* a, const B* b, std::size_t n, double* sums) {
    double diff = 0, norm = 0;
    for (std::size_t i = blockIdx.x * std::size_t(blockDim.x) + threadIdx.x; i < n;
         i += std::size_t(gridDim.x) * blockDim.x) {
        const double x = as_double(a[i]), y = as_double(b[i]);
        diff += (x - y) * (x - y);
        norm += y * y;
    }
    atomicAdd(&sums[0], diff);
    atomicAdd(&sums[1], norm);
}

template <typename A, typename B>
double relative_l2_of(const A* a, const B* b, std::size_t n) {
    DeviceBuffer<double> sums(2);
    sums.zero();
    difference_kernel<<<grid_for(n), kThreads>>>(a, b, n, sums.get());
    check_launch();
    const std::vector<double> host = sums.to_host();
    return host[1] > 0 || std::isnan(host[1]) ? std::sqrt(host[0] / host[1]) : std::sqrt(host[0]);
}

__global__ void unequal_kernel(const unsigned char* a, const unsigned char* b, std::size_t n,
                               int* unequal) {
    for (std::size_t i = blockIdx.x * std::size_t(blockDim.x) + threadIdx.x; i < n;
         i += std::size_t(gridDim.x) * blockDim.x)
        if (a[i] != b[i]) *unequal = 1;
}

}  // namespace

void fill_normal(bf16* out, std::size_t n, float sigma, std::uint64_t seed, cudaStream_t stream) {
    if (n == 0) return;
    fill_normal_kernel<<<grid_for(n), kThreads, 0, stream>>>(out, n, sigma, seed);
    check_launch();
}

void fill_normal(float* out, std::size_t n, float sigma, std::uint64_t seed, cudaStream_t stream) {
    if (n == 0) return;
    fill_normal_kernel<<<grid_for(n), kThreads, 0, stream>>>(out, n, sigma, seed);
    check_launch();
}

void fill_uniform(float* out, std::size_t n, float low, float high, std::uint64_t seed,
                  cudaStream_t stream) {
    if (n == 0) return;
    fill_uniform_kernel<<<grid_for(n), kThreads, 0, stream>>>(out, n, low, high, seed);
    check_launch();
}

double relative_l2(const bf16* a, const bf16* b, std::size_t n) {
    return relative_l2_of(a, b, n);
}
double relative_l2(const float* a, const float* b, std::size_t n) {
    return relative_l2_of(a, b, n);
}
double relative_l2(const bf16* a, const float* b, std::size_t n) {
    return relative_l2_of(a, b, n);
}
double relative_l2(const bf16* a, const double* b, std::size_t n) {
    return relative_l2_of(a, b, n);
}
double relative_l2(const float* a, const double* b, std::size_t n) {
    return relative_l2_of(a, b, n);
}

bool bitwise_equal(const void* a, const void* b, std::size_t bytes) {
    DeviceBuffer<int> unequal(1);
    unequal.zero();
    unequal_kernel<<<grid_for(bytes), kThreads>>>(static_cast<const unsigned char*>(a),
                                                  static_cast<const unsigned char*>(b), bytes,
                                                  unequal.get());
    check_launch();
    return unequal.to_host()[0] == 0;
}

}  // namespace headway::kernels::bench
