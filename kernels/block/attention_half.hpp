// What comes before the layer in a pre-norm transformer block, forward and backward:
//   s = x + delta,  q k v = norm1(s) Wqkv^T,  h = s + attention(q, k, v) Wo^T,  norm2(h)
// Products go through cuBLASLt; nothing waits for the host, nothing is allocated, sums have a fixed
// order.
#pragma once

#include <functional>
#include <memory>

#include "kernels/attention/attention.hpp"
#include "kernels/dense/dense_gemm.hpp"
#include "kernels/norm/rms_norm.hpp"

namespace headway::kernels {

/// Sequences of 2048 tokens, shorter where that does not divide the tokens, in heads of 128 (or
/// 64).
[[nodiscard]] AttentionShape block_attention(std::int64_t num_tokens, int width);

/// The norms [d], Wqkv [(H + 2 K) d_a, d], Wo [d, H d_a].
struct AttentionHalfParameters {
    const float *norm1 = nullptr, *norm2 = nullptr;
    const __nv_bfloat16 *qkv = nullptr, *output = nullptr;
};
/// Written, or added to.
struct AttentionHalfGradients {
    float *norm1 = nullptr, *norm2 = nullptr, *qkv = nullptr, *output = nullptr;
    bool accumulate = false;
};

/// Called before each part is enqueued: for whoever times them.
enum class AttentionPart { norm, qkv, core, output };
using AttentionHook = std::function<void(AttentionPart)>;

class AttentionHalf {
  public:
    using bf16 = __nv_bfloat16;
    /// `attention` is planned for `shape`, rows outside of it are of `width` d.
    AttentionHalf(cublasLtHandle_t handle, const AttentionShape& shape, int width,
                  std::unique_ptr<Attention> attention);

    /// `saved` lives from forward to backward; `workspace` may be shared.
    [[nodiscard]] std::size_t saved_bytes() const;
    [[nodiscard]] std::size_t workspace_bytes() const;

    /// x, delta (may be null) and h (may be x) are [T, d]; norm2(h) is left in `saved`. `sum` (may
    /// be x): where s is left instead, from which alone forward can run again.
    void forward(const AttentionHalfParameters& parameters, const bf16* x, const bf16* delta,
                 bf16* h, void* saved, void* workspace, cudaStream_t stream,
                 const AttentionHook& on_part = {}, bf16* sum = nullptr) const;
    [[nodiscard]] bf16* normed(const void* saved) const;
    /// d_normed, the gradient of norm2(h), is overwritten; dy is that of h from behind the layer,
    /// dx that of x and of delta.
    void backward(const AttentionHalfParameters& parameters, const bf16* h, bf16* d_normed,
                  const bf16* dy, bf16* dx, const AttentionHalfGradients& gradients,
                  const void* saved, void* workspace, cudaStream_t stream,
                  const AttentionHook& on_part = {}, const bf16* sum = nullptr) const;

  private:
    struct Saved {
        bf16 *sum, *normed1, *qkv, *o, *normed2;
        float *inverse1, *inverse2, *log_sum;
    };
    struct Scratch {
        bf16 *dh, *dqkv;
        bf16* d_o;          // where it is wider, or narrower, than d
        std::byte* shared;  // of whichever piece is running
    };
    Saved cut_saved(class Arena& arena) const;
    Scratch cut_scratch(class Arena& arena) const;
    [[nodiscard]] RmsNormShape norm() const { return {shape_.num_tokens(), width_}; }

    AttentionShape shape_;
    int width_;
    std::unique_ptr<Attention> attention_;
    DenseGemm qkv_, qkv_dgrad_, qkv_wgrad_, output_, output_dgrad_, output_wgrad_;
};

/// The same in fp64 on the host; parameters as above.
struct HostHalf {
    AttentionShape shape;  // d is H d_a
    const double *norm1 = nullptr, *norm2 = nullptr, *qkv = nullptr, *output = nullptr;
};
struct HostHalfForward {
    std::vector<double> sum, normed1, qkv, o, h, normed2;
};
struct HostHalfGradients {
    double *norm1 = nullptr, *norm2 = nullptr, *qkv = nullptr, *output = nullptr;  // added to
};
[[nodiscard]] HostHalfForward attention_half_reference(const HostHalf& half,
                                                       const std::vector<double>& x,
                                                       const std::vector<double>& delta);
/// Returns dx.
[[nodiscard]] std::vector<double> attention_half_gradient(const HostHalf& half,
                                                          const HostHalfForward& forward,
                                                          const std::vector<double>& d_normed,
                                                          const std::vector<double>& dy,
                                                          const HostHalfGradients& gradients);

}  // namespace headway::kernels
