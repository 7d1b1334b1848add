// What the host of a trace did in each step, in order: launches, waits, and the calls that the
// recorder has marked. Private to models/recorded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/trace/torch_trace.hpp"

namespace headway::inline recorded {

enum class HostEventKind {
    launch,      // of something on the GPU
    host_waits,  // for a stream, an event or the device
    call_begin,  // of a collective: the recorder's annotation
    call_end,
    call_wait  // of an asynchronous one
};

struct HostEvent {
    HostEventKind kind = HostEventKind::launch;
    Nanoseconds at = 0;      // when the call begins
    Nanoseconds end = 0;     // of the call
    std::int32_t gpu = -1;   // launch: in TorchTrace::gpu
    bool blocks = false;     // a launch that returns when its work is done
    int call = -1;           // call_*: number in the side table
    std::int32_t span = -1;  // the innermost span around a launch, in TorchTrace::host
};

struct HostStep {
    int number = 0;  // ProfilerStep#N
    Nanoseconds begin = 0, end = 0;
    std::vector<HostEvent> events;
};

// The steps that the profiler marks. InputError where there is none, and for graph replays.
std::vector<HostStep> host_steps(const TorchTrace& trace);

}  // namespace headway::inline recorded
