// What one rank's streams do with tasks of known times, and how much of each task the step shows.
// Compute runs `slowdown` times as long while anything communicates. Private to models/cost.
#pragma once

#include <span>
#include <vector>

#include "models/vocab/program.hpp"
#include "models/vocab/units.hpp"

namespace headway::inline cost {

struct TimedTask {
    Stream stream = Stream::compute;
    Seconds time;         // alone
    int after = -1;       // index of a task that must end first; negative: none
    int also_after = -1;  // of another
};

struct StreamsRun {
    Seconds end;
    // [task] Adds up to `end`. Compute hides communication, and an exchange hides a reduction; what
    // a reduction alone slows compute down by is the reduction's.
    std::vector<Seconds> exposed;
};

StreamsRun run_streams(std::span<const TimedTask> tasks, double slowdown);

}  // namespace headway::inline cost
