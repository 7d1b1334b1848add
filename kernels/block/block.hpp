// One pre-norm transformer block with the HP layer on one rank, forward and backward: the attention
// half gives h and norm2(h), then
//   m = merge(HP layer(project(norm2(h))))
// The block hands on h and m apart: the next block's first norm adds them, as this one adds x and
// delta. Products without a residual or heads around them go through cuBLASLt; nothing waits for
// the host, nothing is allocated, sums have a fixed order.
#pragma once

#include "kernels/block/parameters.hpp"
#include "kernels/dense/head_gemm.hpp"
#include "kernels/hp_layer/hp_layer.hpp"

namespace headway::kernels {

struct BlockShape {
    AttentionShape attention;
    HpLayerShape layer;  // num_heads x width = the model width

    [[nodiscard]] std::int64_t num_tokens() const { return layer.num_tokens; }
    [[nodiscard]] int width() const { return layer.num_heads * layer.width; }
};

/// The norms and the router are read as fp32, the rest as bf16.
struct BlockLayout : AttentionHalfPlaces {
    std::int64_t router = 0, project = 0, merge = 0;  // [H, E, d_h], [d, d] each
    std::int64_t w1 = 0, w2 = 0;                      // the experts'
    std::int64_t total = 0;
};
[[nodiscard]] BlockLayout block_layout(const BlockShape& shape);

struct BlockImpl {
    HeadImpl heads = HeadImpl::hopper;
    HpLayerImpl layer;
};

class TransformerBlock {
  public:
    using bf16 = __nv_bfloat16;
    /// `attention` is planned for shape.attention.
    TransformerBlock(cublasLtHandle_t handle, const BlockImpl& impl, const BlockShape& shape,
                     std::unique_ptr<Attention> attention);

    /// `saved` lives from forward to backward; `workspace` may be shared by all blocks.
    [[nodiscard]] std::size_t saved_bytes() const;
    [[nodiscard]] std::size_t workspace_bytes() const;

    /// x, delta (may be null), h and m are [T, d].
    void forward(const BlockParameters& parameters, const bf16* x, const bf16* delta, bf16* h,
                 bf16* m, void* saved, void* workspace, cudaStream_t stream) const;
    /// dy is the gradient of h and of m, dx that of x and of delta. Gradients are written.
    void backward(const BlockParameters& parameters, const bf16* h, const bf16* dy, bf16* dx,
                  float* gradients, const void* saved, void* workspace, cudaStream_t stream) const;
    [[nodiscard]] HpLayerRouting routing(const void* saved) const;

  private:
    struct Saved {
        std::byte *half, *layer;
        bf16 *x_heads, *o_heads;
    };
    struct Scratch {
        bf16 *rows, *heads, *more_heads;
        std::byte* shared;  // of whichever piece is running
    };
    Saved cut_saved(class Arena& arena) const;
    Scratch cut_scratch(class Arena& arena) const;
    [[nodiscard]] HpLayerParameters layer_parameters(const BlockParameters& parameters) const;

    BlockShape shape_;
    BlockImpl impl_;
    BlockLayout layout_;
    AttentionHalf half_;
    HeadGemms heads_;
};

/// The same in fp64 on the host, for small shapes, with the choices of experts given.
struct HostBlock {
    BlockShape shape;
    std::vector<double> parameters;    // flat, as block_layout
    std::vector<double> x, delta, dy;  // [T, d]
    std::vector<std::int32_t> index;   // [H T, k]
};
struct HostBlockResult {
    std::vector<double> y, dx, gradients;  // y = h + m
};
[[nodiscard]] HostBlockResult block_reference(const HostBlock& block);

}  // namespace headway::kernels
