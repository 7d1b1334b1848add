// The one CUDA error check of the kernels: every runtime call goes through HEADWAY_CUDA_CHECK,
// which throws CudaError with the call, the place and the driver's own words. A launch is checked
// by check_launch().
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace headway::kernels {

struct CudaError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void throw_on_error(cudaError_t status, const char* call, const char* file, int line) {
    if (status == cudaSuccess) return;
    throw CudaError(std::string(file) + ":" + std::to_string(line) + ": " + call + ": " +
                    cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")");
}

}  // namespace headway::kernels

#define HEADWAY_CUDA_CHECK(call) \
    ::headway::kernels::throw_on_error((call), #call, __FILE__, __LINE__)

namespace headway::kernels {

/// After a kernel launch: reports a bad launch configuration at the launch, not at the next call.
inline void check_launch() {
    HEADWAY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace headway::kernels
