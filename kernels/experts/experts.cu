// Chooses the implementation and carves its backward workspace.
#include "kernels/experts/experts.hpp"

#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/experts/experts_reference.hpp"
#include "kernels/experts/hopper.hpp"
#include "kernels/experts/portable.hpp"

namespace headway::kernels {
namespace {

bool well_formed(const ExpertShape& shape) {
    const int64_t max_int = std::numeric_limits<int32_t>::max();
    return shape.num_groups > 0 && shape.num_rows >= 0 && shape.num_rows <= max_int &&
           shape.num_subtokens <= max_int && shape.width > 0 && shape.hidden > 0;
}

// The fast kernels' tiles; group * f indexes a tensor-map row as an int.
bool tiled(const ExpertShape& shape) {
    return well_formed(shape) && (shape.width == 64 || shape.width == 128 || shape.width == 256) &&
           shape.hidden % 64 == 0 &&
           int64_t{shape.num_groups} * shape.hidden_rows() <= std::numeric_limits<int32_t>::max();
}

[[noreturn]] void refuse(const char* pass, const ExpertShape& shape) {
    throw std::invalid_argument(std::string("expert ") + pass + ": width " +
                                std::to_string(shape.width) + ", hidden " +
                                std::to_string(shape.hidden) +
                                " not supported by this implementation; accepted: width 64, 128 "
                                "or 256 and hidden a multiple of 64 (reference: any)");
}

std::size_t rounded(std::size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

bool spills(ExpertImpl impl, const ExpertShape& shape) {
    return impl != ExpertImpl::hopper || !hopper::backward_fits_one_kernel(shape);
}

// Images of the two spilled matrices: every tile is padded to 128 rows.
std::size_t spill_bytes(ExpertImpl impl, const ExpertShape& shape, int hidden) {
    if (!spills(impl, shape)) return 0;
    return rounded(static_cast<std::size_t>(shape.max_tiles()) * expert_tile_rows *
                   static_cast<std::size_t>(hidden) * sizeof(__nv_bfloat16));
}

}  // namespace

bool experts_forward_supported(ExpertImpl impl, const ExpertShape& shape) {
    return impl == ExpertImpl::reference ? well_formed(shape) : tiled(shape);
}

bool experts_backward_supported(ExpertImpl impl, const ExpertShape& shape) {
    return experts_forward_supported(impl, shape);
}

std::size_t experts_backward_workspace_bytes(ExpertImpl impl, const ExpertShape& shape) {
    if (impl == ExpertImpl::reference) return reference::backward_workspace_bytes(shape);
    return spill_bytes(impl, shape, shape.hidden_rows()) + spill_bytes(impl, shape, shape.hidden) +
           carve_split_workspace(nullptr, make_split_plan(shape)).bytes;
}

void experts_forward(ExpertImpl impl, const ExpertShape& shape, const RowGrouping& rows,
                     const ExpertWeights& weights, const __nv_bfloat16* x, __nv_bfloat16* y,
                     cudaStream_t stream) {
    if (!experts_forward_supported(impl, shape)) refuse("forward", shape);
    switch (impl) {
        case ExpertImpl::reference:
            return reference::forward(shape, rows, weights, x, y, stream);
        case ExpertImpl::portable:
            return portable::forward(shape, rows, weights, x, y, stream);
        case ExpertImpl::hopper:
            return hopper::forward(shape, rows, weights, x, y, stream);
    }
}

void experts_backward(ExpertImpl impl, const ExpertShape& shape, const RowGrouping& rows,
                      const ExpertWeights& weights, const __nv_bfloat16* x,
                      const __nv_bfloat16* dy_token, const ExpertGradients& gradients,
                      void* workspace, cudaStream_t stream) {
    if (!experts_backward_supported(impl, shape)) refuse("backward", shape);
    if (impl == ExpertImpl::reference)
        return reference::backward(shape, rows, weights, x, dy_token, gradients, workspace, stream);
    char* base = static_cast<char*>(workspace);
    char* gated_hidden = base + spill_bytes(impl, shape, shape.hidden_rows());
    char* rest = gated_hidden + spill_bytes(impl, shape, shape.hidden);
    const SplitWorkspace split = carve_split_workspace(rest, make_split_plan(shape));
    const RowsArguments arguments{
        shape, rows, weights, x, dy_token, gradients, {base, gated_hidden}};
    if (!spills(impl, shape)) {
        hopper::backward_fused(arguments, split, stream);
    } else if (impl == ExpertImpl::hopper) {
        hopper::backward_rows(arguments, stream);
        hopper::backward_weights(arguments, split, stream);
    } else {
        portable::backward_rows(arguments, stream);
        portable::backward_weights(arguments, split, stream);
    }
}

}  // namespace headway::kernels
