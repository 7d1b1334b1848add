// Results as a table line (people) and a CSV row (machines). The roofline of a case is
// max(FLOPs / GEMM ceiling, bytes / copy ceiling) with the ceilings of the same run.
#pragma once
#include <string>
#include <vector>

#include "kernels/bench/device_info.hpp"
#include "kernels/bench/timing.hpp"

namespace headway::kernels::bench {

struct Result {
    std::string suite, op, impl;
    Shape shape;
    Cost cost;
    std::size_t workspace_bytes = 0;
    CheckResult check;
    std::optional<Timing> timing;  // absent: check only, or a failed check
    ClockSample clocks;            // just after the timing
};

double roofline_us(const Cost& cost, const Ceilings& ceilings);
std::string table_line(const Result& result, const Ceilings& ceilings);
void write_csv(const std::string& path, const std::vector<Result>& results,
               const DeviceInfo& device, const Ceilings& ceilings);

}  // namespace headway::kernels::bench
