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

// [rows, columns], row-major or in planes of head_width columns; boxes of 64 columns and box_rows
// rows.
inline CUtensorMap matrix_map(const __nv_bfloat16* base, int columns, std::int64_t rows,
                              int head_width, uint32_t box_rows) {
    if (head_width > 0 && (head_width % 64 != 0 || columns % head_width != 0))
        throw std::invalid_argument("head width must be a multiple of 64 and divide the columns");
    const int width = head_width > 0 ? head_width : columns;
    return make_tensor_map(base, {.rank = 3,
                                  .extent = {u64(width), u64(rows), u64(columns / width)},
                                  .box = {64, box_rows, 1}});
}

// W or dW, [groups, rows, columns].
inline CUtensorMap weight_map(const void* base, const GroupedShape& s, uint32_t box_columns,
                              uint32_t box_rows, int element_bytes) {
    return make_tensor_map(base, {.rank = 3,
                                  .extent = {u64(s.k), u64(s.n), u64(s.num_groups)},
                                  .box = {box_columns, box_rows, 1},
                                  .element_bytes = element_bytes});
}

inline int plane_width(int head_width) {
    return head_width > 0 ? head_width : row_major_width;
}

inline HopperParams params_of(const GroupedShape& s) {
    HopperParams p{};
    p.offsets = s.offsets;
    p.num_groups = s.num_groups;
    p.rows = static_cast<int>(s.capacity_rows);
    p.slice_rows = (p.rows + s.num_groups * 64 - 1) / (s.num_groups * 64) * 64;
    p.a_width = p.b_width = p.c_width = row_major_width;
    return p;
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
