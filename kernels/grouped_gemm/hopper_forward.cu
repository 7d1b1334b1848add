// Forward instantiations of the Hopper grouped GEMM and their choice of tile.
#include "kernels/grouped_gemm/hopper_launch.cuh"
#include "kernels/grouped_gemm/hopper_tile.hpp"

namespace headway::kernels {
namespace {

template <int TileM, int TileN, GroupedActivation Act>
void forward(const GroupedForward& call, cudaStream_t stream) {
    using C = HopperConfig<GroupedForm::forward, TileM, TileN, Act>;
    const GroupedShape& s = call.shape;
    const uint64_t rows = u64(s.capacity_rows);
    const int out_columns = Act == GroupedActivation::swiglu ? s.n / 2 : s.n;
    HopperParams p{};
    p.a = make_tensor_map(call.a, {.rank = 2, .extent = {u64(s.k), rows}, .box = {64, TileM, 1}});
    p.b = make_tensor_map(
        call.w,
        {.rank = 3, .extent = {u64(s.k), u64(s.n), u64(s.num_groups)}, .box = {64, TileN, 1}});
    p.c = make_tensor_map(call.c,
                          {.rank = 2, .extent = {u64(out_columns), rows}, .box = {64, 64, 1}});
    if (call.pre != nullptr)
        p.pre =
            make_tensor_map(call.pre, {.rank = 2, .extent = {u64(s.n), rows}, .box = {64, 64, 1}});
    p.offsets = s.offsets;
    p.c_ptr = call.c;
    p.pre_out = call.pre;
    p.num_groups = s.num_groups;
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
    check_grouped_shape(call.shape);
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
