// The weight gradients' work list: every group's rows cut into parts of at most `split_rows`, so
// that a hot expert is shared out. The first part of a group writes the gradient, the others write
// partial sums, which add_partials adds in order: the result repeats bitwise.
#pragma once

#include "kernels/experts/experts.hpp"

namespace headway::kernels {

// A group's rows, or one part of them.
struct WorkPart {
    int32_t group;
    int32_t row_begin;
    int32_t num_rows;
    int32_t first_block;  // 64-row block of the images where the part starts
    int32_t partial;      // -1: writes the gradient itself; else the partial sum it writes
};
struct SplitGroup {
    int32_t group;
    int32_t first_partial;
    int32_t num_partials;
};
struct WorkCounts {
    int32_t num_parts;
    int32_t num_split_groups;
};

struct SplitPlan {
    int64_t split_rows;
    int64_t max_parts;
    int64_t max_partials;
    int64_t partial_elements;  // both matrices
};

struct SplitWorkspace {
    WorkCounts* counts;
    SplitGroup* splits;
    WorkPart* parts;
    float* partials;
    std::size_t bytes;
};

[[nodiscard]] SplitPlan make_split_plan(const ExpertShape& shape);
// Lays the workspace out from `base` (null: only its size matters).
[[nodiscard]] SplitWorkspace carve_split_workspace(void* base, const SplitPlan& plan);

// Writes counts, splits and parts on the device.
void plan_parts(const ExpertShape& shape, const int32_t* expert_offset,
                const SplitWorkspace& workspace, cudaStream_t stream);
void add_partials(const ExpertShape& shape, const SplitWorkspace& workspace, float* dw1, float* dw2,
                  cudaStream_t stream);

}  // namespace headway::kernels
