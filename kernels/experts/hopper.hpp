// Hopper implementation of the expert layer (sm_90a: wgmma, bulk copies). Forward is one kernel;
// backward is two: rows (recompute, dx, dgate, and the hidden gradients dH and gate*A spilled as
// swizzled tile images) and weights (dW1 = dH^T x, dW2 = (gate A)^T dy).
#pragma once

#include "kernels/experts/experts.hpp"

namespace headway::kernels::hopper {

// One 64-row by 64-hidden image is 8 KiB: row r, 16-byte chunk c at r*128 + ((c ^ (r & 7)) * 16).
inline constexpr int64_t image_bytes = 8192;

struct RowsScratch {
    void* hidden_gradient;  // images of dH [128-row tile][half][hidden_rows / 64]
    void* gated_hidden;     // images of gate*A [128-row tile][half][hidden / 64]
};

struct RowsArguments {
    ExpertShape shape;
    RowGrouping rows;
    ExpertWeights weights;
    const __nv_bfloat16* x = nullptr;
    const __nv_bfloat16* dy_token = nullptr;
    ExpertGradients gradients;
    RowsScratch scratch;
};

void forward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
             const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream);

void backward_rows(const RowsArguments& arguments, cudaStream_t stream);

// Memory for the work list and the partial sums of split groups.
std::size_t backward_weights_workspace_bytes(const ExpertShape& shape);
void backward_weights(const RowsArguments& arguments, void* workspace, cudaStream_t stream);

}  // namespace headway::kernels::hopper
