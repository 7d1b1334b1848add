// Host side of the bulk tensor copies: encodes a CUtensorMap of a row-major tensor with a
// 128-byte-swizzled box. The driver's encoder is found through the runtime, so nothing links
// libcuda. Elements outside the tensor load as zero and are not stored.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>

namespace headway::kernels {

struct TensorMapShape {
    int rank = 2;             // 2 or 3
    uint64_t extent[3] = {};  // elements, contiguous dimension first
    uint32_t box[3] = {1, 1, 1};
    int element_bytes = 2;  // 2: bf16, 4: fp32
};

inline PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry,
                                                                12000, cudaEnableDefault, &found);
    if (status != cudaSuccess || found != cudaDriverEntryPointSuccess)
        throw std::runtime_error(
            "cuTensorMapEncodeTiled not found: the driver is older than CUDA 12.0");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
}

// NOTE: the contiguous extent times the element size must be a multiple of 16 bytes and `base`
// 16-byte aligned (128 for speed); the box's contiguous side is at most 128 bytes because of the
// swizzle.
inline CUtensorMap make_tensor_map(const void* base, const TensorMapShape& shape) {
    CUtensorMap map{};
    cuuint64_t strides[2] = {};
    strides[0] = shape.extent[0] * static_cast<uint64_t>(shape.element_bytes);
    strides[1] = strides[0] * shape.extent[1];
    const cuuint32_t element_strides[3] = {1, 1, 1};
    const auto type = shape.element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                               : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    const CUresult status = tensor_map_encoder()(
        &map, type, static_cast<cuuint32_t>(shape.rank), const_cast<void*>(base), shape.extent,
        strides, shape.box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        throw std::invalid_argument(
            "cuTensorMapEncodeTiled refused the tensor: extents, strides or box");
    return map;
}

}  // namespace headway::kernels
