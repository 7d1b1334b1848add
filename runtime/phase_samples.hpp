// From what ranks recorded to a Measurement: the median of every phase over the repeats with p10
// and p90, the arrival skew of the exchanges, and the traffic of one pass. Shared by the CPU and
// the CUDA runtime.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"
#include "models/vocab/traffic_matrix.hpp"
#include "runtime/rank_context.hpp"

namespace headway::runtime {

// What a sample's time is of. in_flow: a pass as a job would run it, enqueued ahead; an exchange's
// time includes the wait for the last rank, which to_measurement takes out. isolated: exchanges
// that begin when all ranks have arrived, for fitting curves.
enum class Timing { in_flow, isolated };
inline constexpr std::array kTimingNames = {std::string_view("in_flow"),
                                            std::string_view("isolated")};

struct ArrivalSkew {
    int layer = 0;
    CallSite site;
    Seconds skew;  // last arrival - first arrival, median over repeats
};

struct Measurement {
    Timeline timeline;  // profile names the device that was measured
    std::vector<ArrivalSkew> skews;
    std::map<CallSite, TrafficMatrix> traffic;  // of one pass through one layer, on average
};

// What one rank recorded of one timed execution of a layer, in order.
struct LayerSamples {
    int layer = 0;
    std::vector<PhaseSample> phases;
};

// The counts of all ranks in rank order: Communicator::all_gather_counts, or its like on GPUs.
using GatherCounts = std::function<std::vector<std::int64_t>(std::span<const std::int64_t>)>;
// What all ranks recorded, on every rank. They executed the same phases. [rank][execution]
std::vector<std::vector<LayerSamples>> gather_samples(const GatherCounts& gather, int num_ranks,
                                                      const std::vector<LayerSamples>& own);
// What every rank sent between two states of its ledger; a gathering may be booked too. [rank]
std::vector<TrafficLedger> gather_ledgers(const GatherCounts& gather, int num_ranks,
                                          const TrafficLedger& before, TrafficLedger after);
// One phase on all ranks, in flow: an exchange lasts from when the last rank has come to it; what
// the others waited comes before.
void take_wait_out(std::span<PhaseSample* const> by_rank);

// One phase of a rank over its executions: medians, tenth and ninetieth percentile. Sorts both.
Span median_span(int rank, int layer, CallSite site, std::vector<double>& begins,
                 std::vector<double>& durations);

// Without spans.
Timeline measured_timeline(const Scenario& scenario, const Plan& plan, const std::string& device,
                           std::size_t num_ranks);

// samples [rank][execution], equally many on all ranks; `ledgers` [rank] of `num_passes` passes,
// warm-ups included. `device` is what was measured. In flow, begin times of all ranks count from
// one moment.
Measurement to_measurement(const Scenario& scenario, const Plan& plan, const std::string& device,
                           std::vector<std::vector<LayerSamples>> samples,
                           std::span<const TrafficLedger> ledgers, int num_passes, Timing timing);

}  // namespace headway::runtime
