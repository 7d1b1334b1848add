// How long a forward of one chunk takes beside the backward of another: the tasks of their order
// (models/workload/pair_order.hpp) on two streams. Private to models/cost.
#pragma once

#include <vector>

#include "models/cost/step.hpp"

namespace headway::inline cost {

struct PairTime {
    Seconds time;
    std::vector<PhaseTime> phases;  // of both chunks, as exposed: they add up to `time`
};

PairTime time_pair(const Workload& workload, const StepTime& step, const PipelineStage& forward,
                   const PipelineStage& backward, const Overlap& overlap, const PriceBook& book);

}  // namespace headway::inline cost
