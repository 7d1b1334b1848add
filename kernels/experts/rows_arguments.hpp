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

// What the weights kernel of either implementation reads and writes.
struct WeightsParams {
    const WorkCounts* counts;
    const WorkPart* parts;
    const int32_t* row_token;
    const __nv_bfloat16* x;
    const __nv_bfloat16* dy_token;
    const unsigned char* hidden_gradient;
    const unsigned char* gated_hidden;
    float* dw1;
    float* dw2;
    float* partials;
    int hidden_rows;  // of W1
    int hidden;       // of W2
    bool accumulate;
};

inline WeightsParams weights_params(const RowsArguments& a, const SplitWorkspace& w) {
    return {w.counts,
            w.parts,
            a.rows.row_token,
            a.x,
            a.dy_token,
            static_cast<const unsigned char*>(a.scratch.hidden_gradient),
            static_cast<const unsigned char*>(a.scratch.gated_hidden),
            a.gradients.dw1,
            a.gradients.dw2,
            w.partials,
            a.shape.hidden_rows(),
            a.shape.hidden,
            a.gradients.accumulate};
}

}  // namespace headway::kernels
