// Where the time of a GPU went in the steps of a trace: by phase, exposed and hidden, idle.
#pragma once

#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "models/report/step_order.hpp"
#include "models/trace/attribution.hpp"
#include "models/trace/torch_trace.hpp"

namespace headway::inline trace {

// A call of NCCL on one rank.
struct Call {
    std::string ranks;  // of its group
    Nanoseconds duration = 0;
};

struct GpuPhase {
    Nanoseconds begin = 0;    // of the first kernel, from the step's begin
    Nanoseconds compute = 0;  // of kernels that move nothing between ranks
    Nanoseconds communication = 0, exposed = 0;
    std::vector<Call> calls;  // in order
    int kernels = 0;
    std::array<Nanoseconds, kHowNames.size()> by_how{};
    Bytes sent;

    Nanoseconds total() const { return compute + communication; }
};

struct GpuStep {
    int number = 0;  // as the profiler counts
    Nanoseconds begin = 0, end = 0;
    Nanoseconds busy = 0, exposed = 0, hidden = 0;  // exposed, hidden: of communication
    std::map<PhaseKey, GpuPhase> phases;
    std::map<std::string, std::pair<Nanoseconds, int>> lost;  // not joined: time, number by name

    Nanoseconds duration() const { return end - begin; }
    Nanoseconds lost_time() const;
};

// The steps that the profiler marks (ProfilerStep#N): a step is what the host launched in it, from
// its first kernel to the next step's first, the last one to its own last end. InputError where
// there is none.
std::vector<GpuStep> gpu_steps(const TorchTrace& trace, const HostTree& host,
                               const std::vector<Joined>& joined);

}  // namespace headway::inline trace
