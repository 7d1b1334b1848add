// Portable implementation of the expert layer (sm_80 and later: mma.sync, ldmatrix, cp.async), in
// the same three kernels and with the same spilled images as the Hopper one.
#pragma once

#include "kernels/experts/rows_arguments.hpp"

namespace headway::kernels::portable {

void forward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
             const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream);

void backward_rows(const RowsArguments& arguments, cudaStream_t stream);

void backward_weights(const RowsArguments& arguments, const SplitWorkspace& workspace,
                      cudaStream_t stream);

}  // namespace headway::kernels::portable
