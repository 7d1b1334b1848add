// Causal self-attention of packed sequences, forward and backward: for every head of every sequence
//   S = Q K^T / sqrt(d_a), P = softmax over j <= i of S, O = P V
//   dV = P^T dO, dS = P (dO V^T - rowsum(dO O)) / sqrt(d_a), dQ = dS K, dK = dS^T Q.
// Rows lie as the QKV product writes them, H heads of Q, then K heads of K and of V, [T, H + 2 K,
// d_a], and as the output product reads them, [T, H, d_a]: nothing is transposed. Under grouped
// queries (K < H) H / K heads of Q in turn read one of K and V, whose gradients are their sums. Two
// implementations, both of libraries: cuDNN's fused kernels (optional, see
// docs/reference/design.md), and cuBLASLt products around a softmax kernel, everywhere.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace headway::kernels {

struct AttentionShape {
    int num_sequences = 1;
    int sequence_length = 0;  // L
    int num_heads = 1;        // H
    int head_dim = 64;        // d_a, a multiple of 8
    int num_kv_heads = 0;     // K, a divisor of H; 0: H

    [[nodiscard]] std::int64_t num_tokens() const {
        return std::int64_t{num_sequences} * sequence_length;
    }
    [[nodiscard]] int kv_heads() const { return num_kv_heads == 0 ? num_heads : num_kv_heads; }
    [[nodiscard]] int width() const { return num_heads * head_dim; }
    [[nodiscard]] int kv_width() const { return kv_heads() * head_dim; }
    [[nodiscard]] int qkv_width() const { return width() + 2 * kv_width(); }
};

struct AttentionForward {
    const __nv_bfloat16* qkv = nullptr;  // [T, H + 2 K, d_a]
    __nv_bfloat16* o = nullptr;          // [T, H, d_a]
    float* log_sum = nullptr;  // [sequences, H, L]: ln sum_j exp S, saved for the backward
};

struct AttentionBackward {
    const __nv_bfloat16 *qkv = nullptr, *o = nullptr, *d_o = nullptr;
    const float* log_sum = nullptr;
    __nv_bfloat16* dqkv = nullptr;  // [T, H + 2 K, d_a]
};

/// Planned for one shape. Running allocates nothing, can be captured in a graph and gives the same
/// bits on every run; the workspace (256-byte aligned) is the caller's.
class Attention {
  public:
    virtual ~Attention() = default;
    [[nodiscard]] virtual std::size_t workspace_bytes() const = 0;
    virtual void forward(const AttentionForward& call, void* workspace, cudaStream_t) const = 0;
    virtual void backward(const AttentionBackward& call, void* workspace, cudaStream_t) const = 0;
};

enum class AttentionImpl { cublaslt, cudnn };

/// Whether this build and this machine have it. cuDNN: the build found its frontend's headers and
/// a handle can be created.
[[nodiscard]] bool attention_available(AttentionImpl impl);

/// Throws std::invalid_argument on a shape that it does not take, std::runtime_error with the
/// library's words when the library refuses. `handle` is read by cublaslt only.
[[nodiscard]] std::unique_ptr<Attention> make_attention(AttentionImpl impl, cublasLtHandle_t handle,
                                                        const AttentionShape& shape);

/// fp64 on the host, for small shapes.
struct HostAttention {
    AttentionShape shape;
    std::vector<double> qkv, d_o;
};
struct HostAttentionResult {
    std::vector<double> o, dqkv;
};
[[nodiscard]] HostAttentionResult attention_reference(const HostAttention& attention);

}  // namespace headway::kernels
