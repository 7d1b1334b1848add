// The parameters of a block in one flat array, in elements: fp32 masters, bf16 copies, gradients
// and optimizer states all lie alike, so that one launch updates a block.
#pragma once

#include <cstdint>

#include "kernels/block/attention_half.hpp"

namespace headway::kernels {

struct BlockParameters {
    const float* master = nullptr;
    const __nv_bfloat16* rounded = nullptr;
};

/// The place of the next `count` parameters, from a multiple of 64; `total` moves on.
inline std::int64_t place_parameters(std::int64_t& total, std::int64_t count) {
    const std::int64_t at = total;
    total += (count + 63) / 64 * 64;
    return at;
}

/// Parameters of the attention half: norms [d], read as fp32, Wqkv [3d, d] and Wo [d, d].
struct AttentionHalfPlaces {
    std::int64_t norm1 = 0, norm2 = 0, qkv = 0, output = 0;

    [[nodiscard]] AttentionHalfParameters parameters(const BlockParameters& p) const {
        return {p.master + norm1, p.master + norm2, p.rounded + qkv, p.rounded + output};
    }
    [[nodiscard]] AttentionHalfGradients gradients(float* g) const {
        return {g + norm1, g + norm2, g + qkv, g + output};
    }
    [[nodiscard]] HostHalf host(const AttentionShape& shape, const double* p) const {
        return {shape, p + norm1, p + norm2, p + qkv, p + output};
    }
    [[nodiscard]] HostHalfGradients host_gradients(double* g) const {
        return {g + norm1, g + norm2, g + qkv, g + output};
    }
};

}  // namespace headway::kernels
