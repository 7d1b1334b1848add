// The traces of a job's ranks against the prediction of its plan, phase by phase.
#pragma once

#include <string>
#include <vector>

#include "models/report/compare.hpp"
#include "models/trace/gpu_time.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/timeline.hpp"

namespace headway::inline trace {

// What is kept of a trace.
struct RankTrace {
    std::string file;
    int rank = 0, world_size = 0;
    std::string device;
    std::vector<GpuStep> steps;
};

// The trace without its first step, where it has several: the profiler starts in it.
RankTrace rank_trace(const TorchTrace& trace, std::vector<GpuStep> steps);

struct TraceCheck {
    Comparison comparison;         // of a phase's time in a whole step
    Timeline predicted, measured;  // the same, of one execution, as timelines are
    std::string text;
};

// A phase's time is that of its kernels on the slowest rank, the median over steps. An exchange
// takes as long as the rank that waits least in it says, where ranks of its group are given; the
// rest is waiting for peers. InputError for traces that are not of one run of the plan.
TraceCheck check_trace(const PlanPrediction& prediction, const std::vector<RankTrace>& ranks);

}  // namespace headway::inline trace
