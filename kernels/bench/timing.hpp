// Event timing of interleaved cases: median, p10 and p90 of >= 30 samples, with the L2 flushed
// before each sample ("cold") or several runs back to back ("hot"). Captured cases are timed as
// graph replays.
#pragma once
#include <vector>

#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {

struct Quantiles {
    double p10_us = 0, median_us = 0, p90_us = 0;
    int num_samples = 0;
};

struct Timing {
    Quantiles cold, hot;
};

struct TimingOptions {
    int num_samples = 40;
    double max_seconds_per_case = 1.5;  // slow cases keep at least 30 samples
};

/// Quantiles by linear interpolation between order statistics.
Quantiles quantiles(std::vector<double> microseconds);

/// Times all cases in rotation, so that a drift of the clock falls on all alike.
std::vector<Timing> time_interleaved(const std::vector<const Case*>& cases,
                                     const TimingOptions& options);

/// Ceilings of this device in this run: device-to-device copy (read + write) and an 8192^3 bf16
/// GEMM.
struct Ceilings {
    double bytes_per_second = 0, flops_per_second = 0;
};
Ceilings measure_ceilings();

}  // namespace headway::kernels::bench
