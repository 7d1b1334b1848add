// What one rank's streams do with tasks of known times, and how much of each task the step shows.
// Compute is slower while anything communicates (models/vocab/overlap.hpp); an exchange and a
// reduction that cross the same links at once share them (link_use.hpp). The rank's host enqueues
// the tasks one after the other, ahead of the device: compute starts when its enqueueing has begun
// and ends no earlier than that has; all else starts when it is enqueued. Used by models/recorded
// too.
#pragma once

#include <span>
#include <vector>

#include "models/cost/link_use.hpp"
#include "models/vocab/program.hpp"
#include "models/vocab/units.hpp"

namespace headway::inline cost {

struct TimedTask {
    Stream stream = Stream::compute;
    Seconds time;             // alone
    int after = -1;           // index of a task that must end first; negative: none
    int also_after = -1;      // of another
    Seconds launch{};         // of the host, to enqueue it
    bool host_waits = false;  // for its end, before it enqueues the next
    int pieces = 1;           // of compute: Overlap's
    LinkUse links{};
};

struct StreamsRun {
    Seconds end;
    // [task] Adds up to `end`. Compute hides communication, an exchange hides a reduction, and all
    // of these hide the work of the host, which hides copies; what
    // a reduction alone slows compute down by is the reduction's; what nothing runs in is of the
    // task that the host enqueues.
    std::vector<Seconds> exposed;
    std::vector<Seconds> host;  // [task] of `exposed`: the device is idle until the host is ready
    Seconds lead;               // of the host over the device at the end

    // `share` of another run of the same tasks, which comes after it.
    void add(const StreamsRun& run, double share);
};

// `lead`: how far ahead of the device the host is at the begin.
StreamsRun run_streams(std::span<const TimedTask> tasks, const Overlap& overlap, Seconds lead = {});

// `count` runs one after the other, the host's lead carried along: times are those of one in the
// mean, the lead that of the last.
StreamsRun run_in_row(std::span<const TimedTask> tasks, const Overlap& overlap, Seconds lead,
                      int count);

// Whether a host launches any of them.
bool has_launches(std::span<const TimedTask> tasks);

}  // namespace headway::inline cost
