#include "kernels/block/block.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kernels/arena.hpp"

namespace headway::kernels {
namespace {

constexpr std::size_t kBlockGemmLimit = std::size_t{32} << 20;

BlockShape checked(const BlockShape& s) {
    if (s.attention.width() != s.width() || s.attention.num_tokens() != s.num_tokens())
        throw std::invalid_argument("block: attention and layer differ in width or tokens");
    return s;
}

// C [T, n] = A [T, k] W^T, W [n, k], and its two gradients.
DenseGemmShape product(const BlockShape& s, int n, float beta) {
    return {.m = int(s.num_tokens()), .n = n, .k = s.width(), .transpose_b = true, .beta = beta};
}
DenseGemmShape dgrad(const BlockShape& s, int n) {
    return {.m = int(s.num_tokens()), .n = s.width(), .k = n};
}
DenseGemmShape wgrad(const BlockShape& s, int n) {
    return {
        .m = n, .n = s.width(), .k = int(s.num_tokens()), .transpose_a = true, .fp32_out = true};
}

}  // namespace

AttentionShape block_attention(std::int64_t num_tokens, int width) {
    int length = 2048;
    while (length > 128 && num_tokens % length != 0) length /= 2;
    if (num_tokens % length != 0) length = int(num_tokens);
    const int head_dim = width % 128 == 0 ? 128 : 64;
    return {int(num_tokens / length), length, width / head_dim, head_dim};
}

BlockLayout block_layout(const BlockShape& s) {
    BlockLayout out;
    const auto place = [&](std::int64_t count) {
        const std::int64_t at = out.total;
        out.total += (count + 63) / 64 * 64;
        return at;
    };
    const std::int64_t d = s.width(), dd = d * d;
    const ExpertShape experts = s.layer.experts();
    const std::int64_t groups = experts.num_groups;
    out.norm1 = place(d);
    out.norm2 = place(d);
    out.router = place(groups * s.layer.width);
    out.qkv = place(3 * dd);
    out.output = place(dd);
    out.project = place(dd);
    out.merge = place(dd);
    out.w1 = place(groups * experts.hidden_rows() * s.layer.width);
    out.w2 = place(groups * s.layer.hidden * s.layer.width);
    return out;
}

TransformerBlock::TransformerBlock(cublasLtHandle_t handle, const BlockImpl& impl,
                                   const BlockShape& s, std::unique_ptr<Attention> attention)
    : shape_(checked(s)),
      impl_(impl),
      layout_(block_layout(s)),
      heads_(impl.heads, handle,
             {int(s.num_tokens()), s.width(), s.layer.num_heads, s.layer.width}),
      attention_(std::move(attention)),
      qkv_(handle, product(s, 3 * s.width(), 0.0f), kBlockGemmLimit),
      qkv_dgrad_(handle, dgrad(s, 3 * s.width()), kBlockGemmLimit),
      qkv_wgrad_(handle, wgrad(s, 3 * s.width()), kBlockGemmLimit),
      output_(handle, product(s, s.width(), 1.0f), kBlockGemmLimit),
      output_dgrad_(handle, dgrad(s, s.width()), kBlockGemmLimit),
      output_wgrad_(handle, wgrad(s, s.width()), kBlockGemmLimit) {}

TransformerBlock::Saved TransformerBlock::cut_saved(Arena& arena) const {
    const std::int64_t tokens = shape_.num_tokens(), elements = tokens * shape_.width();
    Saved out{};
    for (bf16** rows : {&out.sum, &out.normed1, &out.o, &out.normed2, &out.x_heads, &out.o_heads})
        *rows = arena.take<bf16>(elements);
    out.qkv = arena.take<bf16>(3 * elements);
    out.inverse1 = arena.take<float>(tokens);
    out.inverse2 = arena.take<float>(tokens);
    out.log_sum = arena.take<float>(tokens * shape_.attention.num_heads);
    out.layer =
        arena.take<std::byte>(std::int64_t(hp_layer_memory(impl_.layer, shape_.layer).saved));
    return out;
}

std::size_t TransformerBlock::shared_bytes() const {
    const HpLayerMemory layer = hp_layer_memory(impl_.layer, shape_.layer);
    std::size_t most =
        std::max({layer.forward_workspace, layer.backward_workspace, heads_.workspace_bytes(),
                  attention_->workspace_bytes(), rms_norm_backward_workspace_bytes(norm())});
    for (const DenseGemm* one :
         {&qkv_, &qkv_dgrad_, &qkv_wgrad_, &output_, &output_dgrad_, &output_wgrad_})
        most = std::max(most, one->workspace_bytes());
    return most;
}

TransformerBlock::Scratch TransformerBlock::cut_scratch(Arena& arena) const {
    const std::int64_t elements = shape_.num_tokens() * shape_.width();
    Scratch out{};
    for (bf16** rows : {&out.rows, &out.more_rows, &out.heads, &out.more_heads})
        *rows = arena.take<bf16>(elements);
    out.dqkv = arena.take<bf16>(3 * elements);
    out.shared = arena.take<std::byte>(std::int64_t(shared_bytes()));
    return out;
}

std::size_t TransformerBlock::saved_bytes() const {
    Arena arena(nullptr);
    cut_saved(arena);
    return arena.used();
}

std::size_t TransformerBlock::workspace_bytes() const {
    Arena arena(nullptr);
    cut_scratch(arena);
    return arena.used();
}

HpLayerParameters TransformerBlock::layer_parameters(const BlockParameters& p) const {
    return {{p.rounded + layout_.w1, p.rounded + layout_.w2}, p.master + layout_.router, nullptr};
}

HpLayerRouting TransformerBlock::routing(const void* saved) const {
    Arena arena(const_cast<void*>(saved));
    return hp_layer_routing(shape_.layer, cut_saved(arena).layer);
}

void TransformerBlock::forward(const BlockParameters& p, const bf16* x, const bf16* delta, bf16* h,
                               bf16* m, void* saved, void* workspace, cudaStream_t stream) const {
    Arena saved_arena(saved), arena(workspace);
    const Saved s = cut_saved(saved_arena);
    std::byte* shared = cut_scratch(arena).shared;
    rms_norm_forward(norm(),
                     {.x = x,
                      .delta = delta,
                      .weight = p.master + layout_.norm1,
                      .sum = s.sum,
                      .y = s.normed1,
                      .inverse = s.inverse1},
                     stream);
    qkv_.run(s.normed1, p.rounded + layout_.qkv, s.qkv, shared, stream);
    attention_->forward({s.qkv, s.o, s.log_sum}, shared, stream);
    output_.run(s.o, p.rounded + layout_.output, h, shared, stream, s.sum);
    rms_norm_forward(
        norm(), {.x = h, .weight = p.master + layout_.norm2, .y = s.normed2, .inverse = s.inverse2},
        stream);
    heads_.project(s.normed2, p.rounded + layout_.project, s.x_heads, shared, stream);
    hp_layer_forward(impl_.layer, shape_.layer, layer_parameters(p), s.x_heads, s.o_heads, s.layer,
                     shared, stream);
    heads_.merge(s.o_heads, p.rounded + layout_.merge, m, shared, stream);
}

void TransformerBlock::backward(const BlockParameters& p, const bf16* h, const bf16* dy, bf16* dx,
                                float* gradients, const void* saved, void* workspace,
                                cudaStream_t stream) const {
    Arena saved_arena(const_cast<void*>(saved)), arena(workspace);
    const Saved s = cut_saved(saved_arena);
    const Scratch t = cut_scratch(arena);
    // The layer: t.heads = d o_heads, t.more_heads = d x_heads, t.rows = d normed2.
    heads_.merge_dgrad(dy, p.rounded + layout_.merge, t.heads, t.shared, stream);
    heads_.merge_wgrad(dy, s.o_heads, gradients + layout_.merge, t.shared, stream);
    hp_layer_backward(
        impl_.layer, shape_.layer, layer_parameters(p), s.x_heads, t.heads,
        {t.more_heads, gradients + layout_.w1, gradients + layout_.w2, gradients + layout_.router},
        s.layer, t.shared, stream);
    heads_.project_dgrad(t.more_heads, p.rounded + layout_.project, t.rows, t.shared, stream);
    heads_.project_wgrad(t.more_heads, s.normed2, gradients + layout_.project, t.shared, stream);
    // t.more_rows = dh.
    rms_norm_backward(norm(),
                      {.sum = h,
                       .weight = p.master + layout_.norm2,
                       .inverse = s.inverse2,
                       .dy = t.rows,
                       .dresidual = dy,
                       .dx = t.more_rows,
                       .dweight = gradients + layout_.norm2},
                      t.shared, stream);
    // Attention: t.rows = d o, then d normed1.
    output_dgrad_.run(t.more_rows, p.rounded + layout_.output, t.rows, t.shared, stream);
    output_wgrad_.run(t.more_rows, s.o, gradients + layout_.output, t.shared, stream);
    attention_->backward({s.qkv, s.o, t.rows, s.log_sum, t.dqkv}, t.shared, stream);
    qkv_wgrad_.run(t.dqkv, s.normed1, gradients + layout_.qkv, t.shared, stream);
    qkv_dgrad_.run(t.dqkv, p.rounded + layout_.qkv, t.rows, t.shared, stream);
    rms_norm_backward(norm(),
                      {.sum = s.sum,
                       .weight = p.master + layout_.norm1,
                       .inverse = s.inverse1,
                       .dy = t.rows,
                       .dresidual = t.more_rows,
                       .dx = dx,
                       .dweight = gradients + layout_.norm1},
                      t.shared, stream);
}

}  // namespace headway::kernels
