#include "runtime/cuda/rank_device.hpp"

#include <stdexcept>

#include "kernels/check.hpp"

namespace headway::runtime {
namespace {

std::size_t arena_size(int device, int ranks_on_device, std::size_t asked) {
    HEADWAY_CUDA_CHECK(cudaSetDevice(device));
    if (asked > 0) return asked;
    std::size_t available = 0, total = 0;
    HEADWAY_CUDA_CHECK(cudaMemGetInfo(&available, &total));
    return available / 10 * 9 / static_cast<std::size_t>(ranks_on_device);
}

}  // namespace

RankDevice::RankDevice(int device, int ranks_on_device, std::size_t arena_bytes,
                       DeviceAllocator allocator)
    : arena_(arena_size(device, ranks_on_device, arena_bytes), allocator) {
    HEADWAY_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    if (cublasLtCreate(&blas_) != CUBLAS_STATUS_SUCCESS)
        throw std::runtime_error("cuBLASLt could not be started");
}

RankDevice::~RankDevice() {
    cublasLtDestroy(blas_);
    cudaStreamDestroy(stream_);
}

}  // namespace headway::runtime
