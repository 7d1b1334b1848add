// A step as an executed order of chunks: the priced passes of the layers become chunk times of each
// stage, the order runs with them and its messages, and gradients are reduced beside what a rank
// still computes or waits for. Equations: docs/reference/model.md, "Pipelines". Private to
// models/cost.
#pragma once

#include "models/cost/step.hpp"

namespace headway::inline cost {

// Prices a Workload with a pipeline. Phases are those of the busiest rank; with `pipeline_p2p` and
// `pipeline_bubble` they add up to the step.
StepTime price_pipeline_step(const RankWork& work, const Profile& profile, PriceBook& book);

}  // namespace headway::inline cost
