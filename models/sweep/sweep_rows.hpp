// One point of a sweep -> its rows of CSV, one a plan: the axis values, then what predict says.
// docs/reference/results_format.md explains every column.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "models/scenario/scenario_axis.hpp"
#include "models/vocab/prediction.hpp"

namespace headway::inline sweep {

inline constexpr std::string_view kSweepColumns =
    "plan,layer,source,status,step_time_s,step_low_s,step_high_s,speedup_vs_baseline,"
    "tokens_per_s_per_gpu,model_tflops_per_gpu,moe_forward_s,moe_backward_s,sent_bytes_mean,"
    "sent_bytes_max,nvlink_bytes,pcie_bytes,nic_bytes,spine_bytes,core_bytes,load_max_over_mean,"
    "memory_peak_bytes,memory_capacity_bytes,largest_memory_item,longest_phase,warnings,tokens_per_"
    "s,mfu,"
    "gpu_hours_per_1e12_tokens,parameters,active_parameters,reason";

struct SimulatedStep {
    Seconds step, error_bound;
    std::string cannot_run;  // why, when its traffic needs a dead link; the rest is empty then
};
// Executes a plan instead of predicting its step.
using Simulator = std::function<SimulatedStep(const Scenario&, const Plan&)>;

struct RowOptions {
    int samples = 0;  // as PredictOptions
    Simulator simulator;
};

// Works on a scenario of its own, so that each thread has one. `sweep` and `options` must outlive
// it.
class PointEvaluator {
  public:
    PointEvaluator(const Sweep& sweep, const RowOptions& options);

    // All rows of a point, each ended by a line break.
    std::string rows(std::size_t point);

  private:
    const Sweep& sweep_;
    const RowOptions& options_;
    Scenario scenario_;
};

// "4,400 Gbps," : how every row of this point begins.
std::string row_prefix(const Sweep& sweep, std::size_t point);
// The line of column names.
std::string column_line(const Sweep& sweep);

}  // namespace headway::inline sweep
