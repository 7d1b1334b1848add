#include "kernels/block/block.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kernels/arena.hpp"

namespace headway::kernels {
namespace {

BlockShape checked(const BlockShape& s) {
    if (s.attention.qkv_width() != 3 * s.width() || s.attention.num_tokens() != s.num_tokens())
        throw std::invalid_argument("block: attention and layer differ in width or tokens");
    return s;
}

}  // namespace

BlockLayout block_layout(const BlockShape& s) {
    BlockLayout out;
    const auto place = [&](std::int64_t count) { return place_parameters(out.total, count); };
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
      half_(handle, s.attention, s.width(), std::move(attention)),
      heads_(impl.heads, handle,
             {int(s.num_tokens()), s.width(), s.layer.num_heads, s.layer.width}) {}

TransformerBlock::Saved TransformerBlock::cut_saved(Arena& arena) const {
    const std::int64_t elements = shape_.num_tokens() * shape_.width();
    Saved out{};
    out.half = arena.take<std::byte>(std::int64_t(half_.saved_bytes()));
    out.x_heads = arena.take<bf16>(elements);
    out.o_heads = arena.take<bf16>(elements);
    out.layer =
        arena.take<std::byte>(std::int64_t(hp_layer_memory(impl_.layer, shape_.layer).saved));
    return out;
}

TransformerBlock::Scratch TransformerBlock::cut_scratch(Arena& arena) const {
    const std::int64_t elements = shape_.num_tokens() * shape_.width();
    const HpLayerMemory layer = hp_layer_memory(impl_.layer, shape_.layer);
    Scratch out{};
    for (bf16** rows : {&out.rows, &out.heads, &out.more_heads}) *rows = arena.take<bf16>(elements);
    out.shared = arena.take<std::byte>(
        std::int64_t(std::max({layer.forward_workspace, layer.backward_workspace,
                               heads_.workspace_bytes(), half_.workspace_bytes()})));
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
    half_.forward(layout_.parameters(p), x, delta, h, s.half, shared, stream);
    heads_.project(half_.normed(s.half), p.rounded + layout_.project, s.x_heads, shared, stream);
    hp_layer_forward(impl_.layer, shape_.layer, layer_parameters(p), s.x_heads, s.o_heads, s.layer,
                     shared, stream);
    heads_.merge(s.o_heads, p.rounded + layout_.merge, m, shared, stream);
}

void TransformerBlock::backward(const BlockParameters& p, const bf16* h, const bf16* dy, bf16* dx,
                                float* g, const void* saved, void* workspace,
                                cudaStream_t stream) const {
    Arena saved_arena(const_cast<void*>(saved)), arena(workspace);
    const Saved s = cut_saved(saved_arena);
    const Scratch t = cut_scratch(arena);
    // The layer: t.heads = d o_heads, t.more_heads = d x_heads, t.rows = d normed2.
    heads_.merge_dgrad(dy, p.rounded + layout_.merge, t.heads, t.shared, stream);
    heads_.merge_wgrad(dy, s.o_heads, g + layout_.merge, t.shared, stream);
    hp_layer_backward(impl_.layer, shape_.layer, layer_parameters(p), s.x_heads, t.heads,
                      {t.more_heads, g + layout_.w1, g + layout_.w2, g + layout_.router}, s.layer,
                      t.shared, stream);
    heads_.project_dgrad(t.more_heads, p.rounded + layout_.project, t.rows, t.shared, stream);
    heads_.project_wgrad(t.more_heads, half_.normed(s.half), g + layout_.project, t.shared, stream);
    half_.backward(layout_.parameters(p), h, t.rows, dy, dx, layout_.gradients(g), s.half, t.shared,
                   stream);
}

}  // namespace headway::kernels
