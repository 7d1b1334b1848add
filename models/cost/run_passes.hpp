// Runs the priced passes of a step on the streams of a rank, one after the other, with a host that
// launches ahead; docs/reference/model.md, "The host". Private to models/cost.
#pragma once

#include "models/cost/step.hpp"

namespace headway::inline cost {

// `update`: how long the step before kept the device busy at its end. `bucket`: the host's time to
// hand over the gradients of a layer.
struct StepEnd {
    Seconds update, bucket;
};

// Fills the times of the phases of all passes; the errors of launches go into the book.
void run_passes(const Workload& workload, const Overheads& overheads, const PassWeights& weights,
                const StepEnd& end, PriceBook& book, StepTime& step);

}  // namespace headway::inline cost
