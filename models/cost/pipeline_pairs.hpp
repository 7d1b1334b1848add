// A forward of one chunk beside the backward of another, as Megatron-LM runs them under
// overlap_moe_expert_parallel_comm (core/models/common/model_chunk_schedule_plan.py): layer i of
// the forward with the i-th layer from the end of the backward, on two streams,
//     compute:        A_f   M_b   [M_w]   M_f   A_b   [A_w]
//     communication:  C_b   D_f   D_b   C_f
// D and C are a layer's outer exchanges (dispatch and combine; under HP, head_scatter and
// head_gather), M what lies between them, A the rest of it with what of the next layer comes before
// its exchange; w the weight gradients, where they are delayed. Private to models/cost.
#pragma once

#include <cstddef>
#include <vector>

#include "models/cost/step.hpp"

namespace headway::inline cost {

struct PairTime {
    Seconds time;
    std::vector<PhaseTime> phases;  // of both chunks, as exposed: they add up to `time`
};

PairTime time_pair(const Workload& workload, const StepTime& step, const PipelineStage& forward,
                   const PipelineStage& backward, double slowdown, const PriceBook& book);

}  // namespace headway::inline cost
