#include "kernels/hp_layer/hp_layer.hpp"

#include <algorithm>

#include "kernels/arena.hpp"
#include "kernels/combine/combine.hpp"

namespace headway::kernels {

namespace {

HpLayerRouting cut_routing(const HpLayerShape& shape, Arena& arena) {
    const GroupingShape rows = shape.router().grouping();
    HpLayerRouting out;
    out.index = arena.take<int32_t>(rows.num_rows());
    out.gate = arena.take<float>(rows.num_rows());
    out.rows.row_token = arena.take<int32_t>(rows.num_rows());
    out.rows.row_gate = arena.take<float>(rows.num_rows());
    out.rows.token_row = arena.take<int32_t>(rows.num_rows());
    out.rows.expert_offset = arena.take<int32_t>(rows.num_groups() + 1);
    out.rows.tile_offset = arena.take<int32_t>(rows.num_groups() + 1);
    out.rows.tiles = arena.take<TileDescriptor>(rows.max_tiles());
    out.rows.num_tiles = arena.take<int32_t>(1);
    return out;
}

struct ForwardScratch {
    int32_t* counts;
    std::byte* router;
    __nv_bfloat16* y_row;
};

ForwardScratch cut_forward(const HpLayerImpl& impl, const HpLayerShape& shape, Arena& arena) {
    const GroupingShape rows = shape.router().grouping();
    return {arena.take<int32_t>(rows.num_counts()),
            arena.take<std::byte>(int64_t(router_workspace_bytes(impl.router, shape.router()))),
            arena.take<__nv_bfloat16>(rows.num_rows() * shape.width)};
}

struct BackwardScratch {
    __nv_bfloat16* dx_row;
    float* dgate_row;
    float* mean_dgate;
    std::byte* experts;  // the expert kernels', then the router gradient's
};

BackwardScratch cut_backward(const HpLayerImpl& impl, const HpLayerShape& shape, Arena& arena) {
    const GroupingShape rows = shape.router().grouping();
    const std::size_t shared =
        std::max(experts_backward_workspace_bytes(impl.experts, shape.experts()),
                 router_weight_gradient_workspace_bytes(shape.router()));
    return {arena.take<__nv_bfloat16>(rows.num_rows() * shape.width),
            arena.take<float>(rows.num_rows()), arena.take<float>(rows.num_subtokens()),
            arena.take<std::byte>(int64_t(shared))};
}

RowGrouping expert_rows(const GroupingOutput& rows) {
    return {rows.row_token, rows.row_gate, rows.expert_offset, rows.tiles, rows.num_tiles};
}

CombineShape combine_shape(const HpLayerShape& shape) {
    return {shape.num_heads, shape.num_tokens, shape.width, shape.top_k};
}

}  // namespace

HpLayerMemory hp_layer_memory(const HpLayerImpl& impl, const HpLayerShape& shape) {
    Arena saved(nullptr), forward(nullptr), backward(nullptr);
    cut_routing(shape, saved);
    cut_forward(impl, shape, forward);
    cut_backward(impl, shape, backward);
    return {saved.used(), forward.used(), backward.used()};
}

HpLayerRouting hp_layer_routing(const HpLayerShape& shape, const void* saved) {
    Arena arena(const_cast<void*>(saved));
    return cut_routing(shape, arena);
}

void hp_layer_forward(const HpLayerImpl& impl, const HpLayerShape& shape,
                      const HpLayerParameters& parameters, const __nv_bfloat16* x, __nv_bfloat16* y,
                      void* saved, void* workspace, cudaStream_t stream) {
    const HpLayerRouting routing = hp_layer_routing(shape, saved);
    Arena arena(workspace);
    const ForwardScratch scratch = cut_forward(impl, shape, arena);
    router_forward(impl.router, shape.router(), {x, parameters.router, parameters.bias},
                   {routing.index, routing.gate, scratch.counts}, scratch.router, stream);
    group_rows(shape.router().grouping(), routing.index, routing.gate, scratch.counts, routing.rows,
               stream);
    experts_forward(impl.experts, shape.experts(), expert_rows(routing.rows), parameters.experts, x,
                    scratch.y_row, stream);
    combine_forward(combine_shape(shape), scratch.y_row, routing.gate, routing.rows.token_row, y,
                    stream);
}

void hp_layer_backward(const HpLayerImpl& impl, const HpLayerShape& shape,
                       const HpLayerParameters& parameters, const __nv_bfloat16* x,
                       const __nv_bfloat16* dy, const HpLayerGradients& gradients,
                       const void* saved, void* workspace, cudaStream_t stream) {
    const HpLayerRouting routing = hp_layer_routing(shape, saved);
    Arena arena(workspace);
    const BackwardScratch scratch = cut_backward(impl, shape, arena);
    experts_backward(impl.experts, shape.experts(), expert_rows(routing.rows), parameters.experts,
                     x, dy, {scratch.dx_row, scratch.dgate_row, gradients.dw1, gradients.dw2},
                     scratch.experts, stream);
    const RouterTerm router{parameters.router, shape.num_experts, routing.index,
                            routing.gate,      scratch.dgate_row, scratch.mean_dgate};
    combine_backward(combine_shape(shape), scratch.dx_row, routing.rows.token_row, router,
                     gradients.dx, stream);
    router_weight_gradient(
        shape.router(), {x, scratch.dgate_row, scratch.mean_dgate, routing.rows, gradients.drouter},
        scratch.experts, stream);
}

}  // namespace headway::kernels
