// Arguments of the two backward kernels of every fast implementation. The first (rows) spills dH
// and gate*act(S) as bf16 tile images, the second (weights) reads them: one image is 64 rows by 64
// hidden units in the swizzled layout of tiles.cuh, so it moves to shared memory as it lies.
#pragma once

#include "kernels/experts/experts.hpp"
#include "kernels/experts/split_plan.hpp"

namespace headway::kernels {

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

}  // namespace headway::kernels
