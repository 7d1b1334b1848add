// Programmatic dependent launch (sm_90 and up): a kernel may start while the one before it in the
// stream still runs, and waits for its results where it needs them. Elsewhere plain stream order.
// NOTE: a kernel that starts early sees the results of kernels before its predecessor only if the
// predecessor waited for them before it let the next one start.
#pragma once

#include <cuda_runtime.h>

#include "kernels/check.hpp"

namespace headway::kernels {

/// The rest of this thread sees everything that the kernel before this one wrote.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The next kernel may start once every block has come here or ended.
__device__ __forceinline__ void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct LaunchExtent {
    dim3 grid, block;
    std::size_t shared_bytes = 0;
};

/// Launches a kernel that calls wait_for_previous_kernel(). Code compiled for an older device has
/// no such wait, whatever it runs on, and is launched in plain stream order.
template <typename... Parameters, typename... Arguments>
void launch_dependent(void (*kernel)(Parameters...), const LaunchExtent& extent,
                      cudaStream_t stream, const Arguments&... arguments) {
    cudaFuncAttributes compiled{};
    HEADWAY_CUDA_CHECK(cudaFuncGetAttributes(&compiled, kernel));
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = extent.grid;
    config.blockDim = extent.block;
    config.dynamicSmemBytes = extent.shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = compiled.ptxVersion >= 90 ? 1 : 0;
    HEADWAY_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

}  // namespace headway::kernels
