// Attention from cuBLASLt products over the heads of one sequence at a time (the scores of one
// sequence are all that is ever in memory) and two row kernels between them. Scores are fp32; the
// products compute the upper triangle too, which the softmax sets to zero. Under grouped queries
// one product is of one head of each group, as the heads of K and V are those of one batch.
#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/attention/implementations.hpp"
#include "kernels/attention/softmax.hpp"
#include "kernels/dense/dense_gemm.hpp"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr std::size_t kAttentionGemmLimit = std::size_t{32} << 20;

std::size_t aligned_bytes(std::size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

class CublasltAttention : public Attention {
  public:
    CublasltAttention(cublasLtHandle_t handle, const AttentionShape& s)
        : shape_(s),
          stride_((s.sequence_length + 7) / 8 * 8),
          scale_(1.0f / std::sqrt(float(s.head_dim))),
          scores_(handle, into_scores(s.qkv_width(), scale_), kAttentionGemmLimit),
          dp_(handle, into_scores(s.width(), 1.0f), kAttentionGemmLimit),
          output_(handle, of_queries(s.width()), kAttentionGemmLimit),
          dq_(handle, of_queries(s.qkv_width()), kAttentionGemmLimit),
          dv_(handle, of_keys(s.width()), kAttentionGemmLimit),
          dk_(handle, of_keys(s.qkv_width()), kAttentionGemmLimit) {}

    [[nodiscard]] std::size_t workspace_bytes() const override {
        std::size_t gemm = 0;
        for (const DenseGemm* one : {&scores_, &dp_, &output_, &dv_, &dq_, &dk_})
            gemm = std::max(gemm, one->workspace_bytes());
        return 2 * score_bytes() + 2 * probability_bytes() + gemm;
    }
    void forward(const AttentionForward& call, void* workspace,
                 cudaStream_t stream) const override {
        const Scratch scratch = cut(workspace);
        for (int b = 0; b < shape_.num_sequences; ++b) {
            const bf16* q = call.qkv + rows_before(b, shape_.qkv_width());
            const bf16* k = q + shape_.width();
            const bf16* v = k + shape_.kv_width();
            bf16* o = call.o + rows_before(b, shape_.width());
            for (int i = 0; i < in_group(); ++i)
                scores_.run(q + head(i), k, scratch.scores + i * plane(), scratch.gemm, stream);
            causal_softmax(softmax(), scratch.scores, scratch.p, call.log_sum + log_sums_before(b),
                           stream);
            for (int i = 0; i < in_group(); ++i)
                output_.run(scratch.p + i * plane(), v, o + head(i), scratch.gemm, stream);
        }
    }
    void backward(const AttentionBackward& call, void* workspace,
                  cudaStream_t stream) const override {
        const Scratch scratch = cut(workspace);
        for (int b = 0; b < shape_.num_sequences; ++b) {
            const bf16* q = call.qkv + rows_before(b, shape_.qkv_width());
            const bf16* k = q + shape_.width();
            const bf16* v = k + shape_.kv_width();
            const bf16* d_o = call.d_o + rows_before(b, shape_.width());
            bf16* dq = call.dqkv + rows_before(b, shape_.qkv_width());
            bf16* dk = dq + shape_.width();
            bf16* dv = dk + shape_.kv_width();
            for (int i = 0; i < in_group(); ++i) {
                scores_.run(q + head(i), k, scratch.scores + i * plane(), scratch.gemm, stream);
                dp_.run(d_o + head(i), v, scratch.dp + i * plane(), scratch.gemm, stream);
            }
            causal_softmax_backward(
                softmax(), scratch.scores, scratch.dp, call.log_sum + log_sums_before(b),
                call.o + rows_before(b, shape_.width()), d_o, scratch.p, scratch.ds, stream);
            for (int i = 0; i < in_group(); ++i) {
                const bf16 *p = scratch.p + i * plane(), *ds = scratch.ds + i * plane();
                dv_.write(p, d_o + head(i), dv, scratch.gemm, stream, i > 0);
                dq_.run(ds, k, dq + head(i), scratch.gemm, stream);
                dk_.write(ds, q + head(i), dk, scratch.gemm, stream, i > 0);
            }
        }
    }

  private:
    struct Scratch {
        float *scores, *dp;
        bf16 *p, *ds;
        void* gemm;
    };

    [[nodiscard]] std::int64_t plane() const {  // scores of one head
        return std::int64_t{shape_.sequence_length} * stride_;
    }
    [[nodiscard]] std::size_t score_bytes() const {
        return aligned_bytes(std::size_t(shape_.num_heads * plane()) * sizeof(float));
    }
    [[nodiscard]] std::size_t probability_bytes() const {
        return aligned_bytes(std::size_t(shape_.num_heads * plane()) * sizeof(bf16));
    }
    [[nodiscard]] std::int64_t rows_before(int sequence, int width) const {
        return std::int64_t{sequence} * shape_.sequence_length * width;
    }
    /// Heads of Q that read one of K, and where the i-th of the first group begins in a row.
    [[nodiscard]] int in_group() const { return shape_.num_heads / shape_.kv_heads(); }
    [[nodiscard]] int head(int i) const { return i * shape_.head_dim; }
    [[nodiscard]] std::int64_t log_sums_before(int sequence) const {
        return std::int64_t{sequence} * shape_.sequence_length * shape_.num_heads;
    }
    [[nodiscard]] SoftmaxShape softmax() const {
        return {shape_.num_heads, shape_.sequence_length, stride_, shape_.head_dim, scale_};
    }
    [[nodiscard]] Scratch cut(void* workspace) const {
        auto* at = static_cast<std::byte*>(workspace);
        const auto take = [&](std::size_t bytes) { return std::exchange(at, at + bytes); };
        Scratch out{};
        out.scores = reinterpret_cast<float*>(take(score_bytes()));
        out.dp = reinterpret_cast<float*>(take(score_bytes()));
        out.p = reinterpret_cast<bf16*>(take(probability_bytes()));
        out.ds = reinterpret_cast<bf16*>(take(probability_bytes()));
        out.gemm = at;
        return out;
    }
    /// Scores [L, L] = alpha A B^T, A [L, d_a] of a head of each group, B of K or V.
    [[nodiscard]] DenseGemmShape into_scores(int lda, float alpha) const {
        return {.m = shape_.sequence_length,
                .n = shape_.sequence_length,
                .k = shape_.head_dim,
                .transpose_b = true,
                .lda = lda,
                .ldb = shape_.qkv_width(),
                .ldc = stride_,
                .num_batches = shape_.kv_heads(),
                .stride_a = head(in_group()),
                .stride_b = shape_.head_dim,
                .stride_c = in_group() * plane(),
                .fp32_out = true,
                .alpha = alpha};
    }
    /// C [L, d_a] = scores B: of a head of each group, B of K or V.
    [[nodiscard]] DenseGemmShape of_queries(int ldc) const {
        return {.m = shape_.sequence_length,
                .n = shape_.head_dim,
                .k = shape_.sequence_length,
                .lda = stride_,
                .ldb = shape_.qkv_width(),
                .ldc = ldc,
                .num_batches = shape_.kv_heads(),
                .stride_a = in_group() * plane(),
                .stride_b = shape_.head_dim,
                .stride_c = head(in_group())};
    }
    /// C [L, d_a] = scores^T B, or added to: of K or V, B of a head of each group.
    [[nodiscard]] DenseGemmShape of_keys(int ldb) const {
        return {.m = shape_.sequence_length,
                .n = shape_.head_dim,
                .k = shape_.sequence_length,
                .transpose_a = true,
                .lda = stride_,
                .ldb = ldb,
                .ldc = shape_.qkv_width(),
                .num_batches = shape_.kv_heads(),
                .stride_a = in_group() * plane(),
                .stride_b = head(in_group()),
                .stride_c = shape_.head_dim};
    }

    AttentionShape shape_;
    int stride_;
    float scale_;
    DenseGemm scores_, dp_, output_, dq_, dv_, dk_;
};

}  // namespace

std::unique_ptr<Attention> make_cublaslt_attention(cublasLtHandle_t handle,
                                                   const AttentionShape& shape) {
    return std::make_unique<CublasltAttention>(handle, shape);
}

}  // namespace headway::kernels
