// Forward instantiations of the Hopper grouped GEMM and their choice of tile.
#include "kernels/grouped_gemm/hopper_launch.cuh"
#include "kernels/grouped_gemm/hopper_tile.hpp"

namespace headway::kernels {
namespace {

template <int TileM, int TileN, GroupedActivation Act>
void forward(const GroupedForward& call, cudaStream_t stream) {
    using C = HopperConfig<GroupedForm::forward, TileM, TileN, Act>;
    const GroupedShape& s = call.shape;
    const int out_columns = Act == GroupedActivation::swiglu ? s.n / 2 : s.n;
    HopperParams p = params_of(s);
    p.a = matrix_map(call.a, s.k, s.capacity_rows, call.a_head_width, TileM);
    p.b = weight_map(call.w, s, 64, TileN, 2);
    p.c = matrix_map(call.c, out_columns, s.capacity_rows, call.c_head_width, 64);
    if (call.pre != nullptr) p.pre = matrix_map(call.pre, s.n, s.capacity_rows, 0, 64);
    p.a_width = plane_width(call.a_head_width);
    p.c_width = plane_width(call.c_head_width);
    p.c_ptr = call.c;
    p.pre_out = call.pre;
    p.out_n = s.n;
    p.reduction = s.k;
    launch_grouped<C>(p, s.num_sms, stream);
}

template <GroupedActivation Act>
void forward_tile(const GroupedForward& call, cudaStream_t stream) {
    if (choose_tile(call.tile, call.shape.n) == GroupedTile::t128x256)
        forward<128, 256, Act>(call, stream);
    else
        forward<256, 128, Act>(call, stream);
}

}  // namespace

void grouped_forward_hopper(const GroupedForward& call, cudaStream_t stream) {
    check_grouped_call(call.shape, call.activation, call.c_head_width);
    if (call.shape.capacity_rows == 0) return;
    switch (call.activation) {
        case GroupedActivation::none:
            return forward_tile<GroupedActivation::none>(call, stream);
        case GroupedActivation::gelu_erf:
            return forward_tile<GroupedActivation::gelu_erf>(call, stream);
        case GroupedActivation::gelu_tanh:
            return forward_tile<GroupedActivation::gelu_tanh>(call, stream);
        case GroupedActivation::swiglu:
            return forward_tile<GroupedActivation::swiglu>(call, stream);
    }
}

}  // namespace headway::kernels
