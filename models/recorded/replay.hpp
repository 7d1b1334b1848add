// Replays of a Recording: its tasks as those of a Program, and what one rank's streams make of
// them.
#pragma once

#include <vector>

#include "models/cost/streams.hpp"
#include "models/recorded/recording.hpp"
#include "models/vocab/program.hpp"

namespace headway::inline recorded {

// The tasks of a Recording on the streams of a Program: all kernels on the compute stream,
// exchanges and what shares their groups on the communication stream, other collectives beside
// them. A block of kernels is two tasks: the lead, which only the host takes part in, and its time
// on the device. Times on the device and collectives are left to the caller.
struct ReplayTask {
    int recorded = 0;        // in Recording::tasks; -1: the host's tail
    bool is_device = false;  // takes the recorded time on the device
    Stream stream = Stream::compute;
    std::vector<int> after;  // of other streams, the latest of each
    Seconds launch;
    bool host_waits = false;
};
std::vector<ReplayTask> replay_tasks(const Recording& recording);

// Steps in a row on one rank, until one takes as long as the one before: the last of them.
StreamsRun steady_step(const std::vector<TimedTask>& tasks, const Overlap& overlap);

// Without collectives: as the traced rank ran its kernels. host_time_alone: of the host, in a step
// that begins with an idle device.
Seconds host_time_alone(const Recording& recording);
Seconds step_alone(const Recording& recording);

}  // namespace headway::inline recorded
