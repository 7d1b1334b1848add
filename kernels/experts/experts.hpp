// The HP expert layer on one rank: for every pool row p of group g (one head's one expert) and its
// sub-token s = row_token[p],
//   y[p] = W2[g]^T act(W1[g] x[s]),                     (unweighted; combine applies the gates)
// and backward, with dO[p] = gate[p] dy[s]: dx[p], dgate[p] = <dy[s], y[p]>, dW1[g], dW2[g].
// Activations: GELU (erf or tanh form) or SwiGLU, act = silu(first f rows) * (last f rows).
// Source: Multi-Head LatentMoE, arXiv 2602.04870. See docs/results/kernels_experts.md.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace headway::kernels {

enum class ExpertImpl { reference, portable, hopper };
enum class Activation { gelu_erf, gelu_tanh, swiglu };

// Rows of one group, at most expert_tile_rows of them.
struct TileDescriptor {
    int32_t group = 0;
    int32_t row_begin = 0;
    int32_t num_rows = 0;
};
inline constexpr int expert_tile_rows = 128;

struct ExpertShape {
    int64_t num_subtokens = 0;  // S = T_b H_r
    int64_t num_rows = 0;       // P = S k
    int num_groups = 0;         // G = H_r E
    int width = 0;              // d_h: 64, 128 or 256
    int hidden = 0;             // f: a multiple of 64
    Activation activation = Activation::gelu_erf;

    [[nodiscard]] constexpr bool gated() const { return activation == Activation::swiglu; }
    [[nodiscard]] constexpr int hidden_rows() const {
        return gated() ? 2 * hidden : hidden;
    }  // of W1
    // What the tile list must hold at most, whatever the routing.
    [[nodiscard]] constexpr int64_t max_tiles() const {
        return (num_rows + expert_tile_rows - 1) / expert_tile_rows + num_groups;
    }
};

// Device pointers, written on the device: no count ever reaches the host.
struct RowGrouping {
    const int32_t* row_token = nullptr;      // [P] sub-token of each row
    const float* row_gate = nullptr;         // [P]
    const int32_t* expert_offset = nullptr;  // [G + 1] exclusive scan of the rows of each group
    const TileDescriptor* tiles = nullptr;   // ascending rows; a group's rows cut every 128
    const int32_t* num_tiles = nullptr;      // [1]
};

// Both weights have the hidden unit outermost, so both stream through the same tiles.
struct ExpertWeights {
    const __nv_bfloat16* w1 = nullptr;  // [G, f, d] (gated: [G, 2f, d])
    const __nv_bfloat16* w2 = nullptr;  // [G, f, d], row h is the output direction of hidden unit h
};

struct ExpertGradients {
    __nv_bfloat16* dx_row = nullptr;  // [P, d]
    float* dgate = nullptr;           // [P]
    float* dw1 = nullptr;             // as w1; groups without rows are written as zeros
    float* dw2 = nullptr;             // as w2
    bool accumulate = false;          // dw1 and dw2 are added to
};

[[nodiscard]] bool experts_forward_supported(ExpertImpl impl, const ExpertShape& shape);
[[nodiscard]] bool experts_backward_supported(ExpertImpl impl, const ExpertShape& shape);

// Device memory the backward pass needs from its caller (256-byte aligned); forward needs none.
[[nodiscard]] std::size_t experts_backward_workspace_bytes(ExpertImpl impl,
                                                           const ExpertShape& shape);

// Asynchronous on `stream`, capturable in a graph, the same bits on every run. Throw
// std::invalid_argument on an unsupported shape and CudaError on a refused launch.
void experts_forward(ExpertImpl impl, const ExpertShape& shape, const RowGrouping& rows,
                     const ExpertWeights& weights, const __nv_bfloat16* x, __nv_bfloat16* y,
                     cudaStream_t stream);
void experts_backward(ExpertImpl impl, const ExpertShape& shape, const RowGrouping& rows,
                      const ExpertWeights& weights, const __nv_bfloat16* x,
                      const __nv_bfloat16* dy_token, const ExpertGradients& gradients,
                      void* workspace, cudaStream_t stream);

}  // namespace headway::kernels
