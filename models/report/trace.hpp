// Trace: Timelines as Chrome/Perfetto JSON (ui.perfetto.dev, chrome://tracing), written as a
// stream. A process per source and rank, a track per stream; counters for the use of links; arrows
// from the sender that a rank waited for. Several sources (predicted, simulated, measured) share
// one file. Times are microseconds since the start of the step.
#pragma once

#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "models/vocab/timeline.hpp"

namespace headway {

struct TraceArrow {  // from a span of rank `from` to the span of rank `to` that it delayed
    int from = 0, to = 0;
    Phase phase = Phase::dispatch;  // of both spans: chooses the track
    Seconds begin, end;
};

struct TraceCounter {  // a link that was busy from begin to end, moving `bytes`
    std::string name;
    Seconds begin, end;
    Bytes bytes;
};

struct TraceSource {
    std::string name;  // e.g. "hp simulated"
    const Timeline* timeline = nullptr;
    std::vector<TraceArrow> arrows;
    std::vector<TraceCounter> counters;
};

void write_trace(std::ostream& stream, std::span<const TraceSource> sources);

}  // namespace headway
