#include "runtime/cuda/local_rows.hpp"

#include "kernels/permute/maps.hpp"

namespace headway::runtime {

using kernels::PermuteImpl;

void LocalRows::announce(const bf16* x, const RowChoices& choices) {
    DeviceArena& arena = context_.arena;
    choices_ = choices;
    num_rows_ = shape_.slots();
    place_ = arena.take<std::int32_t>(num_rows_);
    offsets_ = arena.take<std::int32_t>(shape_.num_experts + 1);
    rows_ = arena.take<bf16>(num_rows_ * shape_.width);
    const DevicePhase phase(context_, {Phase::permute, Pass::forward});
    const ArenaScope scope(arena);
    const kernels::KeySortShape sort{num_rows_, shape_.num_experts};
    kernels::key_sort(sort, choices.index, place_, offsets_,
                      arena.take_bytes(kernels::key_sort_workspace_bytes(sort)), context_.stream);
    kernels::spread_rows(PermuteImpl::vectorised, spread(), map(nullptr), x, rows_,
                         context_.stream);
}

void LocalRows::combine(const bf16* y_rows, bf16* y) {
    const DevicePhase phase(context_, {Phase::unpermute, Pass::forward});
    kernels::collect_rows(PermuteImpl::vectorised, spread(), map(choices_.gate), y_rows, y,
                          context_.stream);
}

const __nv_bfloat16* LocalRows::gradients_to_experts(const bf16* dy, const bf16* y_rows,
                                                     float* dgate) {
    bf16* dy_rows = context_.arena.take<bf16>(num_rows_ * shape_.width);
    const DevicePhase phase(context_, {Phase::unpermute, Pass::backward});
    kernels::collect_rows_backward(PermuteImpl::vectorised, spread(), map(choices_.gate), y_rows,
                                   dy, dy_rows, dgate, context_.stream);
    return dy_rows;
}

void LocalRows::gradients_from_experts(const bf16* dx_rows, bf16* dx, float*) {
    const DevicePhase phase(context_, {Phase::permute, Pass::backward});
    kernels::collect_rows(PermuteImpl::vectorised, spread(), map(nullptr), dx_rows, dx,
                          context_.stream);
}

}  // namespace headway::runtime
