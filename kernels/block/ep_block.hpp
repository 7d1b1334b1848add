// The transformer block with the EP layer of a rank that holds all experts: the attention half
// gives h and norm2(h), then m = EP layer(norm2(h)). As TransformerBlock otherwise.
#pragma once

#include "kernels/block/block.hpp"
#include "kernels/ep_layer/ep_layer.hpp"

namespace headway::kernels {

struct EpBlockShape {
    AttentionShape attention;
    EpLayerShape layer;
};

/// As BlockLayout; the norms are read as fp32, the rest as bf16.
struct EpBlockLayout : AttentionHalfPlaces {
    std::int64_t router = 0, w1 = 0, w2 = 0;  // the layer's
    std::int64_t total = 0;
};
[[nodiscard]] EpBlockLayout ep_block_layout(const EpBlockShape& shape);

class EpBlock {
  public:
    using bf16 = __nv_bfloat16;
    EpBlock(cublasLtHandle_t handle, const EpBlockShape& shape,
            std::unique_ptr<Attention> attention);

    [[nodiscard]] std::size_t saved_bytes() const;
    [[nodiscard]] std::size_t workspace_bytes() const;
    void forward(const BlockParameters& parameters, const bf16* x, const bf16* delta, bf16* h,
                 bf16* m, void* saved, void* workspace, cudaStream_t stream) const;
    void backward(const BlockParameters& parameters, const bf16* h, const bf16* dy, bf16* dx,
                  float* gradients, const void* saved, void* workspace, cudaStream_t stream) const;
    /// The choices [T, k] that forward left in `saved`.
    [[nodiscard]] const std::int32_t* choices(const void* saved) const;

  private:
    struct Saved {
        std::byte *half, *layer;
    };
    Saved cut_saved(class Arena& arena) const;
    [[nodiscard]] EpLayerParameters layer_parameters(const BlockParameters& p) const;

    EpBlockShape shape_;
    EpBlockLayout layout_;
    AttentionHalf half_;
    EpLayer layer_;
};

struct HostEpBlock {
    EpBlockShape shape;
    std::vector<double> parameters;    // flat, as ep_block_layout
    std::vector<double> x, delta, dy;  // [T, d]
    std::vector<std::int32_t> index;   // [T, k]
};
[[nodiscard]] HostBlockResult ep_block_reference(const HostEpBlock& block);

}  // namespace headway::kernels
