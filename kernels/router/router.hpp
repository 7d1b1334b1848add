// The per-head router: for sub-token s of head h, logits z = R_h x_s (fp32), selection of the k
// largest of z + b (b: the auxiliary-loss-free bias, selection only), gates = softmax of z over the
// chosen k. Order: larger first; equal values by the lower expert; NaN last. -0 equals +0. Source:
// Multi-Head LatentMoE, arXiv 2602.04870; bias: arXiv 2408.15664.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/grouping/grouping.hpp"

namespace headway::kernels {

struct RouterShape {
    int num_heads = 1;
    int num_tokens = 0;  // T_b, per head
    int width = 0;       // d_h
    int num_experts = 1;
    int top_k = 1;

    [[nodiscard]] constexpr int64_t num_subtokens() const {
        return int64_t(num_heads) * num_tokens;
    }
    [[nodiscard]] constexpr GroupingShape grouping() const {
        return {num_heads, num_tokens, num_experts, top_k};
    }
};

/// fused: one kernel, logits never in memory, tensor cores on an exact three-way bf16 split of R.
/// reference: the plain definition in fp32, one block per sub-token. (router_library.hpp: the
/// cuBLAS baseline.)
enum class RouterImpl { reference, fused };

struct RouterInput {
    const __nv_bfloat16* x = nullptr;  // [H, T_b, d]
    const float* weights = nullptr;    // R [H, E, d]
    const float* bias = nullptr;       // [H, E] or null
};

struct RouterOutput {
    int32_t* index = nullptr;   // [S, k] expert of each choice, best first
    float* gate = nullptr;      // [S, k]
    int32_t* counts = nullptr;  // [H, counts_per_head, E] as count_choices writes it
};

/// fused needs d of 64, 128 or 256; all need 1 <= k <= min(E, 32).
[[nodiscard]] bool router_supported(RouterImpl impl, const RouterShape& shape);
[[nodiscard]] std::size_t router_workspace_bytes(RouterImpl impl, const RouterShape& shape);

/// Asynchronous and the same bits on every run; reference and fused are capturable.
/// Throws std::invalid_argument on an unsupported shape.
void router_forward(RouterImpl impl, const RouterShape& shape, const RouterInput& input,
                    const RouterOutput& output, void* workspace, cudaStream_t stream);

/// dR[g] = sum over the rows p of group g, in ascending order by tiles, of dlogit[p]
/// x[row_token[p]]. (dlogit and the term of dx are combine_backward's.) Groups without rows are
/// written as zeros.
struct RouterWeightGradient {
    const __nv_bfloat16* x = nullptr;
    const float* dgate_row = nullptr;   // [P]
    const float* mean_dgate = nullptr;  // [S]
    GroupingOutput rows;                // of group_rows
    float* dweights = nullptr;          // [H, E, d]
    bool accumulate = false;            // dweights are added to
};
[[nodiscard]] std::size_t router_weight_gradient_workspace_bytes(const RouterShape& shape);
void router_weight_gradient(const RouterShape& shape, const RouterWeightGradient& gradient,
                            void* workspace, cudaStream_t stream);

/// The definition above in fp64 on the host. x already widened.
struct HostRouting {
    std::vector<int32_t> index;
    std::vector<double> gate;
};
HostRouting router_reference(const RouterShape& shape, const std::vector<float>& x,
                             const std::vector<float>& weights, const std::vector<float>& bias);

}  // namespace headway::kernels
