// Memory that HP's fused experts work in: kernels/experts, "experts_backward_workspace_bytes".
#pragma once

namespace headway::inline cost {

struct FusedExperts {
    double rows = 0.0, groups = 0.0;           // choices; experts of the heads here
    double w1_rows = 0.0, expert_width = 0.0;  // w1_rows: 2 f when gated
    double width = 0.0;                        // d_h
};

// Bytes of one backward: hidden rows of both factors in whole tiles, and partial sums of weight
// gradients that are split.
double fused_expert_workspace(const FusedExperts& experts);

}  // namespace headway::inline cost
