#include "kernels/ep_layer/ep_layer.hpp"

#include <algorithm>

#include "kernels/arena.hpp"

namespace headway::kernels {

EpLayer::EpLayer(cublasLtHandle_t handle, const EpLayerShape& s)
    : shape_(s), router_(handle, {s.num_tokens, s.width, s.num_experts, s.top_k}) {}

EpLayer::Saved EpLayer::cut_saved(Arena& arena) const {
    const std::int64_t rows = shape_.num_rows();
    Saved out{};
    out.index = arena.take<std::int32_t>(rows);
    out.place = arena.take<std::int32_t>(rows);
    out.offsets = arena.take<std::int32_t>(shape_.num_experts + 1);
    out.gate = arena.take<float>(rows);
    out.rows = arena.take<bf16>(rows * shape_.width);
    out.pre = arena.take<bf16>(rows * shape_.hidden);
    out.act = arena.take<bf16>(rows * shape_.hidden);
    out.y_rows = arena.take<bf16>(rows * shape_.width);
    return out;
}

EpLayer::BackwardScratch EpLayer::cut_backward(Arena& arena) const {
    const std::int64_t rows = shape_.num_rows();
    BackwardScratch out{};
    out.dgate = arena.take<float>(rows);
    out.dy_rows = arena.take<bf16>(rows * shape_.width);
    out.dpre = arena.take<bf16>(rows * shape_.hidden);
    out.dx_rows = arena.take<bf16>(rows * shape_.width);
    out.router = arena.take<std::byte>(std::int64_t(router_.backward_workspace_bytes()));
    return out;
}

std::size_t EpLayer::saved_bytes() const {
    Arena arena(nullptr);
    cut_saved(arena);
    return arena.used();
}

std::size_t EpLayer::workspace_bytes() const {
    Arena arena(nullptr);
    cut_backward(arena);
    return std::max(
        {arena.used(), router_.forward_workspace_bytes(), key_sort_workspace_bytes(sort())});
}

const std::int32_t* EpLayer::choices(const void* saved) const {
    Arena arena(const_cast<void*>(saved));
    return cut_saved(arena).index;
}

EpExperts EpLayer::experts(const EpLayerParameters& p, const Saved& saved) const {
    return {.num_experts = shape_.num_experts,
            .model_dim = shape_.width,
            .expert_dim = shape_.hidden,
            .capacity_rows = std::max<std::int64_t>(1, shape_.num_rows()),
            .offsets = saved.offsets,
            .w1 = p.w1,
            .w2 = p.w2,
            .activation = shape_.activation};
}

void EpLayer::forward(const EpLayerParameters& p, const bf16* x, bf16* y, void* saved,
                      void* workspace, cudaStream_t stream) const {
    Arena arena(saved);
    const Saved s = cut_saved(arena);
    router_.forward(x, p.router, s.index, s.gate, workspace, stream);
    key_sort(sort(), s.index, s.place, s.offsets, workspace, stream);
    spread_rows(PermuteImpl::vectorised, copies(), {.place = s.place}, x, s.rows, stream);
    ep_experts_forward(GroupedImpl::hopper, experts(p, s), {s.rows, s.pre, s.act, s.y_rows},
                       stream);
    collect_rows(PermuteImpl::vectorised, copies(), {.place = s.place, .weight = s.gate}, s.y_rows,
                 y, stream);
}

void EpLayer::backward(const EpLayerParameters& p, const bf16* x, const bf16* dy,
                       const EpLayerGradients& g, const void* saved, void* workspace,
                       cudaStream_t stream) const {
    Arena saved_arena(const_cast<void*>(saved)), arena(workspace);
    const Saved s = cut_saved(saved_arena);
    const BackwardScratch t = cut_backward(arena);
    collect_rows_backward(PermuteImpl::vectorised, copies(), {.place = s.place, .weight = s.gate},
                          s.y_rows, dy, t.dy_rows, t.dgate, stream);
    ep_experts_backward(GroupedImpl::hopper, experts(p, s),
                        {.x = s.rows,
                         .pre = s.pre,
                         .act = s.act,
                         .dy = t.dy_rows,
                         .dpre = t.dpre,
                         .dx = t.dx_rows,
                         .dw1 = g.dw1,
                         .dw2 = g.dw2},
                        stream);
    collect_rows(PermuteImpl::vectorised, copies(), {.place = s.place}, t.dx_rows, g.dx, stream);
    router_.backward(x, p.router, s.index, s.gate, t.dgate, g.dx, g.drouter, t.router, stream);
}

}  // namespace headway::kernels
