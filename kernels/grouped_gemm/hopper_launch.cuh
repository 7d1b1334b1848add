// Host side of one instantiation of the Hopper grouped GEMM: shared-memory opt-in and launch.
#pragma once

#include <stdexcept>
#include <string>

#include "kernels/check.hpp"
#include "kernels/grouped_gemm/hopper_kernel.cuh"
#include "kernels/ptx/tensor_map.hpp"

namespace headway::kernels {

constexpr uint64_t u64(std::int64_t value) {
    return static_cast<uint64_t>(value);
}

inline int num_hopper_sms() {
    int device = 0, major = 0, sms = 0;
    HEADWAY_CUDA_CHECK(cudaGetDevice(&device));
    HEADWAY_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    HEADWAY_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
    if (major != 9)
        throw std::runtime_error(
            "the hopper grouped GEMM needs compute capability 9.0; this device has " +
            std::to_string(major) + ".x");
    return sms;
}

template <class C>
void launch_grouped(const HopperParams& params, int num_sms, cudaStream_t stream) {
    const int available = num_hopper_sms();
    const int sms = num_sms > 0 && num_sms < available ? num_sms : available;
    auto* kernel = grouped_gemm_kernel<C>;
    HEADWAY_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                            cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            C::kSharedBytes));
    kernel<<<static_cast<unsigned>(sms), C::kThreads, C::kSharedBytes, stream>>>(params);
    check_launch();
}

}  // namespace headway::kernels
