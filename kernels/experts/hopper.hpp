// Hopper implementation of the expert layer (sm_90a: wgmma, bulk copies). Forward is one kernel;
// backward is two: rows (recompute, dx, dgate, and the hidden gradients dH and gate*A spilled as
// swizzled tile images) and weights (dW1 = dH^T x, dW2 = (gate A)^T dy); or, where a block's
// registers hold both weight gradients of a group, one.
#pragma once

#include "kernels/experts/rows_arguments.hpp"

namespace headway::kernels::hopper {

void forward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
             const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream);

// Whether backward_fused, one kernel and no spill, forms the gradients of this shape.
[[nodiscard]] bool backward_fits_one_kernel(const ExpertShape& shape);
void backward_fused(const RowsArguments& arguments, const SplitWorkspace& workspace,
                    cudaStream_t stream);

void backward_rows(const RowsArguments& arguments, cudaStream_t stream);

void backward_weights(const RowsArguments& arguments, const SplitWorkspace& workspace,
                      cudaStream_t stream);

}  // namespace headway::kernels::hopper
