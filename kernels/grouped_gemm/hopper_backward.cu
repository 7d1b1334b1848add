// dgrad and wgrad instantiations of the Hopper grouped GEMM.
#include "kernels/grouped_gemm/hopper_launch.cuh"
#include "kernels/grouped_gemm/hopper_tile.hpp"

namespace headway::kernels {
namespace {

template <int TileM, int TileN, GroupedActivation Act>
void dgrad(const GroupedDgrad& call, cudaStream_t stream) {
    using C = HopperConfig<GroupedForm::dgrad, TileM, TileN, Act>;
    const GroupedShape& s = call.shape;
    HopperParams p{};
    p.a = make_tensor_map(
        call.dc, {.rank = 2, .extent = {u64(s.n), u64(s.capacity_rows)}, .box = {64, TileM, 1}});
    p.b = make_tensor_map(
        call.w, {.rank = 3, .extent = {u64(s.k), u64(s.n), u64(s.num_groups)}, .box = {64, 64, 1}});
    p.c = make_tensor_map(
        call.da, {.rank = 2, .extent = {u64(s.k), u64(s.capacity_rows)}, .box = {64, 64, 1}});
    if (call.pre != nullptr)
        p.pre = make_tensor_map(
            call.pre, {.rank = 2, .extent = {u64(s.k), u64(s.capacity_rows)}, .box = {64, 64, 1}});
    p.offsets = s.offsets;
    p.c_ptr = call.da;
    p.num_groups = s.num_groups;
    p.out_n = s.k;
    p.reduction = s.n;
    launch_grouped<C>(p, s.num_sms, stream);
}

template <GroupedActivation Act>
void dgrad_tile(const GroupedDgrad& call, cudaStream_t stream) {
    if (choose_tile(call.tile, call.shape.k) == GroupedTile::t128x256)
        dgrad<128, 256, Act>(call, stream);
    else
        dgrad<256, 128, Act>(call, stream);
}

template <int TileM, int TileN, bool Fp32Out>
void wgrad(const GroupedWgrad& call, cudaStream_t stream) {
    using C = HopperConfig<GroupedForm::wgrad, TileM, TileN, GroupedActivation::none, Fp32Out>;
    const GroupedShape& s = call.shape;
    HopperParams p{};
    p.a = make_tensor_map(
        call.dc, {.rank = 2, .extent = {u64(s.n), u64(s.capacity_rows)}, .box = {64, 64, 1}});
    p.b = make_tensor_map(
        call.a, {.rank = 2, .extent = {u64(s.k), u64(s.capacity_rows)}, .box = {64, 64, 1}});
    void* out = Fp32Out ? static_cast<void*>(call.dw_fp32) : static_cast<void*>(call.dw_bf16);
    p.c = make_tensor_map(out, {.rank = 3,
                                .extent = {u64(s.k), u64(s.n), u64(s.num_groups)},
                                .box = {Fp32Out ? 32u : 64u, 64, 1},
                                .element_bytes = Fp32Out ? 4 : 2});
    p.offsets = s.offsets;
    p.c_ptr = out;
    p.num_groups = s.num_groups;
    p.out_m = s.n;
    p.out_n = s.k;
    launch_grouped<C>(p, s.num_sms, stream);
}

template <bool Fp32Out>
void wgrad_tile(const GroupedWgrad& call, cudaStream_t stream) {
    if (choose_tile(call.tile, call.shape.k) == GroupedTile::t128x256)
        wgrad<128, 256, Fp32Out>(call, stream);
    else
        wgrad<256, 128, Fp32Out>(call, stream);
}

}  // namespace

void grouped_dgrad_hopper(const GroupedDgrad& call, cudaStream_t stream) {
    check_grouped_shape(call.shape);
    if (call.shape.capacity_rows == 0) return;
    if (call.activation != GroupedActivation::none && call.pre == nullptr)
        throw std::invalid_argument("grouped dgrad: an activation needs its pre-activation");
    switch (call.activation) {
        case GroupedActivation::none:
            return dgrad_tile<GroupedActivation::none>(call, stream);
        case GroupedActivation::gelu_erf:
            return dgrad_tile<GroupedActivation::gelu_erf>(call, stream);
        case GroupedActivation::gelu_tanh:
            return dgrad_tile<GroupedActivation::gelu_tanh>(call, stream);
        case GroupedActivation::swiglu:
            break;
    }
    throw std::invalid_argument(
        "grouped dgrad: no fused swiglu derivative; call it without activation");
}

void grouped_wgrad_hopper(const GroupedWgrad& call, cudaStream_t stream) {
    check_grouped_shape(call.shape);
    if ((call.dw_bf16 == nullptr) == (call.dw_fp32 == nullptr))
        throw std::invalid_argument("grouped wgrad: give exactly one of dw_bf16 and dw_fp32");
    if (call.dw_fp32 != nullptr)
        wgrad_tile<true>(call, stream);
    else
        wgrad_tile<false>(call, stream);
}

}  // namespace headway::kernels
