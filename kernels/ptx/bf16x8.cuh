// Eight bf16 elements, the 16 bytes of one vector access, as floats and back.
#pragma once

#include <cuda_bf16.h>

namespace headway::kernels {

struct Eight {
    float v[8];
};

__device__ __forceinline__ Eight unpack(const uint4& raw) {
    const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&raw);
    Eight out;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 two = __bfloat1622float2(pairs[i]);
        out.v[2 * i] = two.x;
        out.v[2 * i + 1] = two.y;
    }
    return out;
}

__device__ __forceinline__ uint4 pack(const Eight& in, float scale = 1.0f) {
    uint4 raw;
    auto* pairs = reinterpret_cast<__nv_bfloat162*>(&raw);
#pragma unroll
    for (int i = 0; i < 4; ++i)
        pairs[i] = __floats2bfloat162_rn(scale * in.v[2 * i], scale * in.v[2 * i + 1]);
    return raw;
}

}  // namespace headway::kernels
