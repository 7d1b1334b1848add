// dgrad and wgrad instantiations of the Hopper grouped GEMM.
#include "kernels/grouped_gemm/hopper_launch.cuh"
#include "kernels/grouped_gemm/hopper_tile.hpp"

namespace headway::kernels {
namespace {

template <int TileM, int TileN, GroupedActivation Act>
void dgrad(const GroupedDgrad& call, cudaStream_t stream) {
    using C = HopperConfig<GroupedForm::dgrad, TileM, TileN, Act>;
    const GroupedShape& s = call.shape;
    const int out_columns = C::kPreColumns * s.k;
    HopperParams p = params_of(s);
    p.a = matrix_map(call.dc, s.n, s.capacity_rows, call.dc_head_width, TileM);
    p.b = weight_map(call.w, s, 64, 64, 2);
    p.c = matrix_map(call.da, out_columns, s.capacity_rows, call.da_head_width, 64);
    if (call.pre != nullptr) p.pre = matrix_map(call.pre, out_columns, s.capacity_rows, 0, 64);
    p.a_width = plane_width(call.dc_head_width);
    p.c_width = plane_width(call.da_head_width);
    p.c_ptr = call.da;
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
    void* out = Fp32Out ? static_cast<void*>(call.dw_fp32) : static_cast<void*>(call.dw_bf16);
    HopperParams p = params_of(s);
    p.a = matrix_map(call.dc, s.n, s.capacity_rows, call.dc_head_width, 64);
    p.b = matrix_map(call.a, s.k, s.capacity_rows, call.a_head_width, 64);
    p.c = weight_map(out, s, Fp32Out ? 32 : 64, 64, Fp32Out ? 4 : 2);
    p.a_width = plane_width(call.dc_head_width);
    p.b_width = plane_width(call.a_head_width);
    p.c_ptr = out;
    p.out_m = s.n;
    p.out_n = s.k;
    p.accumulate = call.accumulate;
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
    check_grouped_call(call.shape, call.activation, call.da_head_width);
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
            return dgrad_tile<GroupedActivation::swiglu>(call, stream);
    }
}

void grouped_wgrad_hopper(const GroupedWgrad& call, cudaStream_t stream) {
    check_grouped_shape(call.shape);
    if ((call.dw_bf16 == nullptr) == (call.dw_fp32 == nullptr))
        throw std::invalid_argument("grouped wgrad: give exactly one of dw_bf16 and dw_fp32");
    if (call.accumulate && call.dw_fp32 == nullptr)
        throw std::invalid_argument("grouped wgrad: only dw_fp32 is accumulated");
    if (call.dw_fp32 != nullptr)
        wgrad_tile<true>(call, stream);
    else
        wgrad_tile<false>(call, stream);
}

}  // namespace headway::kernels
