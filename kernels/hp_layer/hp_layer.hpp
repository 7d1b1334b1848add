// The HP layer of one rank behind the head scatter: for every owned head and sub-token s,
//   y[s] = sum_{j in top-k of R_h x_s} gate[s,j] W2[h,e_j]^T act(W1[h,e_j] x_s)
// forward and backward, from the router, the grouping, the expert kernels and the combine. Nothing
// waits for the host and nothing is allocated: a step can be captured in a CUDA graph. The same
// bits on every run. Source: Multi-Head LatentMoE, arXiv 2602.04870.
#pragma once

#include <cstddef>

#include "kernels/experts/experts.hpp"
#include "kernels/router/router.hpp"

namespace headway::kernels {

struct HpLayerShape {
    int num_heads = 1;   // H_r, the heads this rank owns
    int num_tokens = 0;  // T_b, tokens of the whole group
    int width = 64;      // d_h
    int num_experts = 1;
    int hidden = 64;  // f
    int top_k = 1;
    Activation activation = Activation::gelu_erf;

    [[nodiscard]] RouterShape router() const {
        return {num_heads, num_tokens, width, num_experts, top_k};
    }
    [[nodiscard]] ExpertShape experts() const {
        const GroupingShape rows = router().grouping();
        return {
            rows.num_subtokens(), rows.num_rows(), rows.num_groups(), width, hidden, activation};
    }
};

struct HpLayerImpl {
    RouterImpl router = RouterImpl::fused;
    ExpertImpl experts = ExpertImpl::hopper;
};

struct HpLayerParameters {
    ExpertWeights experts;          // bf16, [H, E, ...]
    const float* router = nullptr;  // R [H, E, d]
    const float* bias = nullptr;    // [H, E] or null
};

/// All written, not accumulated.
struct HpLayerGradients {
    __nv_bfloat16* dx = nullptr;  // [H, T_b, d]
    float* dw1 = nullptr;
    float* dw2 = nullptr;
    float* drouter = nullptr;  // [H, E, d]
};

/// Bytes the caller provides (256-byte aligned). `saved` lives from forward to backward: the
/// routing, no activations. `workspace` may be shared by every layer of a model.
struct HpLayerMemory {
    std::size_t saved = 0;
    std::size_t forward_workspace = 0;
    std::size_t backward_workspace = 0;
};
[[nodiscard]] HpLayerMemory hp_layer_memory(const HpLayerImpl& impl, const HpLayerShape& shape);

/// x and y are [H, T_b, d]. Both throw std::invalid_argument on a shape that an implementation does
/// not take.
void hp_layer_forward(const HpLayerImpl& impl, const HpLayerShape& shape,
                      const HpLayerParameters& parameters, const __nv_bfloat16* x, __nv_bfloat16* y,
                      void* saved, void* workspace, cudaStream_t stream);
void hp_layer_backward(const HpLayerImpl& impl, const HpLayerShape& shape,
                       const HpLayerParameters& parameters, const __nv_bfloat16* x,
                       const __nv_bfloat16* dy, const HpLayerGradients& gradients,
                       const void* saved, void* workspace, cudaStream_t stream);

/// The routing that forward left in `saved`: for counts, losses and checks.
struct HpLayerRouting {
    int32_t* index = nullptr;  // [S, k]
    float* gate = nullptr;     // [S, k]
    GroupingOutput rows;
};
[[nodiscard]] HpLayerRouting hp_layer_routing(const HpLayerShape& shape, const void* saved);

/// fp64 on the host, for small shapes. bf16 inputs are given as the floats they stand for.
struct HostHpLayer {
    HpLayerShape shape;
    std::vector<float> x, dy, w1, w2, router, bias;
    std::vector<int32_t> index = {};  // the choices [S, k], or empty: the router's own
};
struct HostHpResult {
    std::vector<double> y, dx, dw1, dw2, drouter;
};
[[nodiscard]] HostHpResult hp_layer_reference(const HostHpLayer& layer);

}  // namespace headway::kernels
