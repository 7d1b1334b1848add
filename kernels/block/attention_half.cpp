#include "kernels/block/attention_half.hpp"

#include <algorithm>
#include <utility>

#include "kernels/arena.hpp"

namespace headway::kernels {
namespace {

constexpr std::size_t kHalfGemmLimit = std::size_t{32} << 20;

// C [T, n] = A [T, k] W^T, W [n, k], and its two gradients.
DenseGemmShape half_product(const AttentionShape& s, int n, int k, float beta) {
    return {.m = int(s.num_tokens()), .n = n, .k = k, .transpose_b = true, .beta = beta};
}
DenseGemmShape half_dgrad(const AttentionShape& s, int n, int k) {
    return {.m = int(s.num_tokens()), .n = k, .k = n};
}
DenseGemmShape half_wgrad(const AttentionShape& s, int n, int k) {
    return {.m = n, .n = k, .k = int(s.num_tokens()), .transpose_a = true, .fp32_out = true};
}

}  // namespace

AttentionShape block_attention(std::int64_t num_tokens, int width) {
    int length = 2048;
    while (length > 128 && num_tokens % length != 0) length /= 2;
    if (num_tokens % length != 0) length = int(num_tokens);
    const int head_dim = width % 128 == 0 ? 128 : 64;
    return {int(num_tokens / length), length, width / head_dim, head_dim};
}

AttentionHalf::AttentionHalf(cublasLtHandle_t handle, const AttentionShape& s, int width,
                             std::unique_ptr<Attention> attention)
    : shape_(s),
      width_(width),
      attention_(std::move(attention)),
      qkv_(handle, half_product(s, s.qkv_width(), width, 0.0f), kHalfGemmLimit),
      qkv_dgrad_(handle, half_dgrad(s, s.qkv_width(), width), kHalfGemmLimit),
      qkv_wgrad_(handle, half_wgrad(s, s.qkv_width(), width), kHalfGemmLimit),
      output_(handle, half_product(s, width, s.width(), 1.0f), kHalfGemmLimit),
      output_dgrad_(handle, half_dgrad(s, width, s.width()), kHalfGemmLimit),
      output_wgrad_(handle, half_wgrad(s, width, s.width()), kHalfGemmLimit) {}

AttentionHalf::Saved AttentionHalf::cut_saved(Arena& arena) const {
    const std::int64_t tokens = shape_.num_tokens();
    Saved out{};
    for (bf16** rows : {&out.sum, &out.normed1, &out.normed2})
        *rows = arena.take<bf16>(tokens * width_);
    out.o = arena.take<bf16>(tokens * shape_.width());
    out.qkv = arena.take<bf16>(tokens * shape_.qkv_width());
    out.inverse1 = arena.take<float>(tokens);
    out.inverse2 = arena.take<float>(tokens);
    out.log_sum = arena.take<float>(tokens * shape_.num_heads);
    return out;
}

AttentionHalf::Scratch AttentionHalf::cut_scratch(Arena& arena) const {
    const std::int64_t tokens = shape_.num_tokens();
    std::size_t shared =
        std::max(attention_->workspace_bytes(), rms_norm_backward_workspace_bytes(norm()));
    for (const DenseGemm* one :
         {&qkv_, &qkv_dgrad_, &qkv_wgrad_, &output_, &output_dgrad_, &output_wgrad_})
        shared = std::max(shared, one->workspace_bytes());
    Scratch out{};
    out.dh = arena.take<bf16>(tokens * width_);
    if (shape_.width() != width_) out.d_o = arena.take<bf16>(tokens * shape_.width());
    out.dqkv = arena.take<bf16>(tokens * shape_.qkv_width());
    out.shared = arena.take<std::byte>(std::int64_t(shared));
    return out;
}

std::size_t AttentionHalf::saved_bytes() const {
    Arena arena(nullptr);
    cut_saved(arena);
    return arena.used();
}

std::size_t AttentionHalf::workspace_bytes() const {
    Arena arena(nullptr);
    cut_scratch(arena);
    return arena.used();
}

AttentionHalf::bf16* AttentionHalf::normed(const void* saved) const {
    Arena arena(const_cast<void*>(saved));
    return cut_saved(arena).normed2;
}

void AttentionHalf::forward(const AttentionHalfParameters& p, const bf16* x, const bf16* delta,
                            bf16* h, void* saved, void* workspace, cudaStream_t stream,
                            const AttentionHook& on_part, bf16* sum) const {
    const auto begin = [&](AttentionPart part) {
        if (on_part) on_part(part);
    };
    Arena saved_arena(saved), arena(workspace);
    Saved s = cut_saved(saved_arena);
    if (sum != nullptr) s.sum = sum;
    std::byte* shared = cut_scratch(arena).shared;
    begin(AttentionPart::norm);
    rms_norm_forward(norm(),
                     {.x = x,
                      .delta = delta,
                      .weight = p.norm1,
                      .sum = s.sum,
                      .y = s.normed1,
                      .inverse = s.inverse1},
                     stream);
    begin(AttentionPart::qkv);
    qkv_.run(s.normed1, p.qkv, s.qkv, shared, stream);
    begin(AttentionPart::core);
    attention_->forward({s.qkv, s.o, s.log_sum}, shared, stream);
    begin(AttentionPart::output);
    output_.run(s.o, p.output, h, shared, stream, s.sum);
    begin(AttentionPart::norm);
    rms_norm_forward(norm(), {.x = h, .weight = p.norm2, .y = s.normed2, .inverse = s.inverse2},
                     stream);
}

void AttentionHalf::backward(const AttentionHalfParameters& p, const bf16* h, bf16* d_normed,
                             const bf16* dy, bf16* dx, const AttentionHalfGradients& g,
                             const void* saved, void* workspace, cudaStream_t stream,
                             const AttentionHook& on_part, const bf16* sum) const {
    const auto begin = [&](AttentionPart part) {
        if (on_part) on_part(part);
    };
    Arena saved_arena(const_cast<void*>(saved)), arena(workspace);
    const Saved s = cut_saved(saved_arena);
    const Scratch t = cut_scratch(arena);
    begin(AttentionPart::norm);
    rms_norm_backward(norm(),
                      {.sum = h,
                       .weight = p.norm2,
                       .inverse = s.inverse2,
                       .dy = d_normed,
                       .dresidual = dy,
                       .dx = t.dh,
                       .dweight = g.norm2,
                       .accumulate = g.accumulate},
                      t.shared, stream);
    bf16* d_o = t.d_o == nullptr ? d_normed : t.d_o;
    begin(AttentionPart::output);
    output_dgrad_.run(t.dh, p.output, d_o, t.shared, stream);
    output_wgrad_.write(t.dh, s.o, g.output, t.shared, stream, g.accumulate);
    begin(AttentionPart::core);
    attention_->backward({s.qkv, s.o, d_o, s.log_sum, t.dqkv}, t.shared, stream);
    begin(AttentionPart::qkv);
    qkv_wgrad_.write(t.dqkv, s.normed1, g.qkv, t.shared, stream, g.accumulate);
    qkv_dgrad_.run(t.dqkv, p.qkv, d_normed, t.shared, stream);  // now d normed1
    begin(AttentionPart::norm);
    rms_norm_backward(norm(),
                      {.sum = sum != nullptr ? sum : s.sum,
                       .weight = p.norm1,
                       .inverse = s.inverse1,
                       .dy = d_normed,
                       .dresidual = t.dh,
                       .dx = dx,
                       .dweight = g.norm1,
                       .accumulate = g.accumulate},
                      t.shared, stream);
}

}  // namespace headway::kernels
