// A forward of one chunk beside the backward of another, as Megatron-LM runs them under
// overlap_moe_expert_parallel_comm (core/models/common/model_chunk_schedule_plan.py): layer i of
// the forward with the i-th layer from the end of the backward, on two streams,
//     compute:        A_f   M_b   [M_w]   M_f   A_b   [A_w]
//     communication:  C_b   N_f   D_f   D_b   C_f
// D and C are a layer's outer exchanges (dispatch and combine; under HP, head_scatter and
// head_gather), M what lies between them, A the rest of it with what of the next layer comes before
// its exchange; w the weight gradients, where they are delayed; N the exchange of counts, which
// the host waits for when it comes to D_f.
#pragma once

#include <vector>

#include "models/workload/schedule.hpp"

namespace headway::inline workload {

// Phases [begin, end) of one pass of a layer, or all that `before` or `after` have of it.
struct PairPiece {
    BlockKind kind = BlockKind::layer;
    Pass pass = Pass::forward;
    int layer = -1;
    int begin = 0, end = 0;
    GradientPart part = GradientPart::all;
};

// Its pieces follow one another. It starts when its stream is free and `after` has ended.
struct PairTask {
    Stream stream = Stream::compute;
    int after = -1;  // a task of the same list; -1: none
    std::vector<PairPiece> pieces;
};

std::vector<PairTask> pair_tasks(const Workload& workload, const PipelineStage& forward,
                                 const PipelineStage& backward);

}  // namespace headway::inline workload
