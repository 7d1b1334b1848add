// What a prediction says of an executed order: times of each pipeline rank, and its spans. Private
// to models/cost.
#pragma once

#include <vector>

#include "models/cost/step.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/timeline.hpp"

namespace headway::inline cost {

PlanPipeline pipeline_of(const PipelineWork& work, const PipelineTime& time);

// A span for every step of every pipeline rank, `rank` its number in the pipeline; two that share
// their time for a pair. Idle time before, between and after them is pipeline_p2p while a message
// travels, else pipeline_bubble, of the pass that follows it.
void add_pipeline_spans(const PipelineWork& work, const PipelineTime& time,
                        std::vector<Span>& spans);

}  // namespace headway::inline cost
