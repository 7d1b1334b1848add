#include "kernels/block/ep_block.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kernels/arena.hpp"
#include "kernels/block/host_matrix.hpp"

namespace headway::kernels {
namespace {

EpBlockShape checked_ep(const EpBlockShape& s) {
    if (s.attention.qkv_width() != 3 * s.layer.width ||
        s.attention.num_tokens() != s.layer.num_tokens)
        throw std::invalid_argument("EP block: attention and layer differ in width or tokens");
    return s;
}

}  // namespace

EpBlockLayout ep_block_layout(const EpBlockShape& s) {
    EpBlockLayout out;
    const auto place = [&](std::int64_t count) { return place_parameters(out.total, count); };
    const std::int64_t d = s.layer.width;
    out.norm1 = place(d);
    out.norm2 = place(d);
    out.qkv = place(3 * d * d);
    out.output = place(d * d);
    out.router = place(s.layer.router_elements());
    out.w1 = place(s.layer.expert_elements());
    out.w2 = place(s.layer.expert_elements());
    return out;
}

EpBlock::EpBlock(cublasLtHandle_t handle, const EpBlockShape& s,
                 std::unique_ptr<Attention> attention)
    : shape_(checked_ep(s)),
      layout_(ep_block_layout(s)),
      half_(handle, s.attention, s.layer.width, std::move(attention)),
      layer_(handle, s.layer) {}

EpBlock::Saved EpBlock::cut_saved(Arena& arena) const {
    Saved out{};
    out.half = arena.take<std::byte>(std::int64_t(half_.saved_bytes()));
    out.layer = arena.take<std::byte>(std::int64_t(layer_.saved_bytes()));
    return out;
}

std::size_t EpBlock::saved_bytes() const {
    Arena arena(nullptr);
    cut_saved(arena);
    return arena.used();
}

// d norm2(h) [T, d], then what the running piece needs.
std::size_t EpBlock::workspace_bytes() const {
    Arena arena(nullptr);
    arena.take<bf16>(shape_.attention.num_tokens() * shape_.layer.width);
    return arena.used() + std::max(half_.workspace_bytes(), layer_.workspace_bytes());
}

const std::int32_t* EpBlock::choices(const void* saved) const {
    Arena arena(const_cast<void*>(saved));
    return layer_.choices(cut_saved(arena).layer);
}

EpLayerParameters EpBlock::layer_parameters(const BlockParameters& p) const {
    return {p.rounded + layout_.router, p.rounded + layout_.w1, p.rounded + layout_.w2};
}

void EpBlock::forward(const BlockParameters& p, const bf16* x, const bf16* delta, bf16* h, bf16* m,
                      void* saved, void* workspace, cudaStream_t stream) const {
    Arena arena(saved);
    const Saved s = cut_saved(arena);
    half_.forward(layout_.parameters(p), x, delta, h, s.half, workspace, stream);
    layer_.forward(layer_parameters(p), half_.normed(s.half), m, s.layer, workspace, stream);
}

void EpBlock::backward(const BlockParameters& p, const bf16* h, const bf16* dy, bf16* dx, float* g,
                       const void* saved, void* workspace, cudaStream_t stream) const {
    Arena saved_arena(const_cast<void*>(saved)), arena(workspace);
    const Saved s = cut_saved(saved_arena);
    bf16* d_normed = arena.take<bf16>(shape_.attention.num_tokens() * shape_.layer.width);
    void* shared = static_cast<std::byte*>(workspace) + arena.used();
    layer_.backward(layer_parameters(p), half_.normed(s.half), dy,
                    {d_normed, g + layout_.router, g + layout_.w1, g + layout_.w2}, s.layer, shared,
                    stream);
    half_.backward(layout_.parameters(p), h, d_normed, dy, dx, layout_.gradients(g), s.half, shared,
                   stream);
}

HostBlockResult ep_block_reference(const HostEpBlock& block) {
    const EpBlockLayout at = ep_block_layout(block.shape);
    const EpLayerShape& layer = block.shape.layer;
    const double* p = block.parameters.data();
    const auto narrow = [](const double* values, std::int64_t count) {
        return std::vector<float>(values, values + count);
    };
    const std::int64_t elements = std::int64_t(layer.num_tokens) * layer.width;
    HostBlockResult out{
        .y = {}, .dx = {}, .gradients = std::vector<double>(block.parameters.size())};
    double* g = out.gradients.data();
    const HostHalf half = at.host(block.shape.attention, p);
    const HostHalfForward forward = attention_half_reference(half, block.x, block.delta);
    const HostHpResult ep =
        ep_layer_reference({.shape = layer,
                            .x = narrow(forward.normed2.data(), elements),
                            .dy = narrow(block.dy.data(), elements),
                            .w1 = narrow(p + at.w1, layer.expert_elements()),
                            .w2 = narrow(p + at.w2, layer.expert_elements()),
                            .router = narrow(p + at.router, layer.router_elements()),
                            .index = block.index});
    out.y = forward.h;
    host::add(out.y, ep.y);
    std::copy(ep.dw1.begin(), ep.dw1.end(), g + at.w1);
    std::copy(ep.dw2.begin(), ep.dw2.end(), g + at.w2);
    std::copy(ep.drouter.begin(), ep.drouter.end(), g + at.router);
    out.dx = attention_half_gradient(half, forward, ep.dx, block.dy, at.host_gradients(g));
    return out;
}

}  // namespace headway::kernels
