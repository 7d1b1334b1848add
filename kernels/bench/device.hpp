// Device memory, random data and comparison for checks and benchmarks. Random numbers are a counter
// hash (SplitMix64) and Box-Muller: the same seed gives the same data whatever the grid.
#pragma once
#include <cuda_bf16.h>

#include <cstdint>
#include <vector>

#include "kernels/check.hpp"

namespace headway::kernels::bench {

/// Owns n elements of device memory.
template <typename T>
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    explicit DeviceBuffer(std::size_t n) : size_(n) {
        if (n > 0) HEADWAY_CUDA_CHECK(cudaMalloc(&data_, n * sizeof(T)));
    }
    DeviceBuffer(DeviceBuffer&& other) noexcept : data_(other.data_), size_(other.size_) {
        other.data_ = nullptr;
        other.size_ = 0;
    }
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;
    ~DeviceBuffer() { cudaFree(data_); }

    [[nodiscard]] T* get() const { return data_; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t bytes() const { return size_ * sizeof(T); }

    /// Fills with 0xFF: NaN in every float type, -1 in every signed integer.
    void poison(cudaStream_t stream = nullptr) {
        if (size_ > 0) HEADWAY_CUDA_CHECK(cudaMemsetAsync(data_, 0xFF, bytes(), stream));
    }
    void zero(cudaStream_t stream = nullptr) {
        if (size_ > 0) HEADWAY_CUDA_CHECK(cudaMemsetAsync(data_, 0, bytes(), stream));
    }
    [[nodiscard]] std::vector<T> to_host() const {
        std::vector<T> host(size_);
        if (size_ > 0)
            HEADWAY_CUDA_CHECK(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost));
        return host;
    }
    void from_host(const std::vector<T>& host) {
        if (host.size() != size_) throw CudaError("DeviceBuffer::from_host: size differs");
        if (size_ > 0)
            HEADWAY_CUDA_CHECK(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
    }

  private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

using bf16 = __nv_bfloat16;

/// Normal with mean 0 and the given standard deviation.
void fill_normal(bf16* out, std::size_t n, float sigma, std::uint64_t seed, cudaStream_t = nullptr);
void fill_normal(float* out, std::size_t n, float sigma, std::uint64_t seed,
                 cudaStream_t = nullptr);
/// Uniform in [low, high).
void fill_uniform(float* out, std::size_t n, float low, float high, std::uint64_t seed,
                  cudaStream_t = nullptr);

template <typename T>
DeviceBuffer<T> random_normal(std::size_t n, float sigma, std::uint64_t seed) {
    DeviceBuffer<T> buffer(n);
    fill_normal(buffer.get(), n, sigma, seed);
    return buffer;
}

/// ||a - b|| / ||b|| in fp64, both on the device; NaN in either gives NaN (which passes no check).
/// An all-zero b gives ||a||. Synchronises.
double relative_l2(const bf16* a, const bf16* b, std::size_t n);
double relative_l2(const float* a, const float* b, std::size_t n);
double relative_l2(const bf16* a, const float* b, std::size_t n);
double relative_l2(const bf16* a, const double* b, std::size_t n);
double relative_l2(const float* a, const double* b, std::size_t n);

/// True when the two device ranges are equal byte for byte. Synchronises.
bool bitwise_equal(const void* a, const void* b, std::size_t bytes);

}  // namespace headway::kernels::bench
