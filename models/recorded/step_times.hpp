// The host's steps of a trace as one: what the host did between two events, and how long the GPU
// took, in the median. Private to models/recorded.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/recorded/host_events.hpp"
#include "models/trace/torch_trace.hpp"

namespace headway::inline recorded {

struct EventTimes {
    double gap = 0.0;     // ns of the host since the event before, waits left out
    double device = 0.0;  // ns of the GPU
};

struct MergedStep {
    const HostStep* step = nullptr;  // whose events these are
    std::vector<EventTimes> times;   // [event]
    double tail = 0.0;               // ns of the host behind the last event
    double duration = 0.0;           // ns, of the host's span
    std::string chosen;              // which steps, in words
};

// `number`: one step by the profiler's count; none: the median of all, event by event where all
// steps have the same events, else the step whose GPU time is the median. `drop_last_wait`: a
// step ends with a wait of the recorder, which is none of the script's.
MergedStep merged_step(const TorchTrace& trace, std::vector<HostStep>& steps,
                       std::optional<int> number, bool drop_last_wait);

// What traces say of the time around kernels.
struct TraceLatencies {
    double between = 0.0;  // ns from the end of a kernel to the next one's begin, in a full queue
    double launch = 0.0;   // ns from a launch to its kernel's begin on an idle stream
    double wake = 0.0;     // ns from the end of what the host waits for to the end of its wait
};
TraceLatencies latencies(const TorchTrace& trace, const std::vector<HostStep>& steps);

}  // namespace headway::inline recorded
