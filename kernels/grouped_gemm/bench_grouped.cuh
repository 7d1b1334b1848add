// What the checks of single grouped products and of whole EP experts share: a problem with ragged
// groups, random data, and a tail of poisoned rows behind the last one that nothing may use or
// write.
#pragma once

#include <memory>
#include <string>

#include "kernels/bench/registry.hpp"
#include "kernels/grouped_gemm/bench_oracle.cuh"
#include "kernels/grouped_gemm/ep_experts.hpp"

namespace headway::kernels::bench {

constexpr int kTailRows = 40;

class CublasHandle {
  public:
    CublasHandle() {
        if (cublasCreate(&handle_) != CUBLAS_STATUS_SUCCESS) throw CudaError("cublasCreate failed");
    }
    CublasHandle(const CublasHandle&) = delete;
    CublasHandle& operator=(const CublasHandle&) = delete;
    ~CublasHandle() { cublasDestroy(handle_); }
    [[nodiscard]] cublasHandle_t get() const { return handle_; }

  private:
    cublasHandle_t handle_ = nullptr;
};

struct Problem {
    // `rows1`: of W1, for each of f.
    explicit Problem(const Shape& s, int rows1 = 1)
        : num_groups(s.num_groups()),
          d(s.head_dim),
          f(s.expert_dim),
          f1(rows1 * f),
          num_rows(s.num_rows()),
          ragged(make_ragged(num_groups, num_rows, 7)),
          x(rows() * d),
          act(rows() * f),
          dx(rows() * d),
          w1(random_normal<bf16>(std::size_t(num_groups) * d * f1, 1.0f / sqrtf(float(d)), 3)),
          dw1(w1.size()) {
        x.poison();
        act.poison();
        fill_normal(x.get(), std::size_t(num_rows) * d, 1.0f, 5);
    }
    [[nodiscard]] std::size_t rows() const { return std::size_t(num_rows) + kTailRows; }
    [[nodiscard]] GroupedShape shape(int n, int k) const {
        return {.num_groups = num_groups,
                .n = n,
                .k = k,
                .capacity_rows = std::int64_t(rows()),
                .offsets = ragged.offsets.get()};
    }

    [[nodiscard]] GroupedContext context(cudaStream_t stream) const {
        return {stream, handle.get(), &ragged.host};
    }

    int num_groups, d, f, f1;
    std::int64_t num_rows;
    Ragged ragged;
    DeviceBuffer<bf16> x, act, dx;
    DeviceBuffer<bf16> w1;
    DeviceBuffer<float> dw1;
    CublasHandle handle;
};

/// Runs again over a poisoned output and compares bit for bit.
template <typename T, typename Run>
bool repeatable(DeviceBuffer<T>& out, const Run& run, cudaStream_t stream) {
    DeviceBuffer<T> first(out.size());
    HEADWAY_CUDA_CHECK(
        cudaMemcpyAsync(first.get(), out.get(), out.bytes(), cudaMemcpyDeviceToDevice, stream));
    out.poison(stream);
    run(stream);
    HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
    return bitwise_equal(first.get(), out.get(), out.bytes());
}

/// d, f, local experts, rows = tokens * k. E1 and E2 are the shapes of the library comparison.
inline std::vector<Shape> ep_shapes() {
    return {{"E1", 1, 1024, 32, 1024, 32768, 4},
            {"E2", 1, 2048, 16, 1408, 16384, 4},
            {"E3", 1, 2048, 64, 512, 16384, 8}};
}

/// The naive kernel would take seconds on more.
inline bool supported(const Shape& shape, const GroupedProducts& products) {
    const bool small = shape.num_rows() * double(shape.head_dim) * shape.expert_dim < 1e9;
    return !products.is_reference || small;
}

void register_ep_experts_cases(Registry& registry);

}  // namespace headway::kernels::bench
