// Trace: Timelines as Chrome/Perfetto JSON (ui.perfetto.dev, chrome://tracing), written as a
// stream. A process per source and rank, a track per stream; counters for the use of links; arrows
// from the sender that a rank waited for. Several sources (predicted, simulated, measured) share
// one file. Times are microseconds since the start of the step, in whole nanoseconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/vocab/timeline.hpp"

namespace headway::inline report {

struct TraceArrow {  // from a span of rank `from` to the span of rank `to` that it delayed
    int from = 0, to = 0;
    Phase phase = Phase::dispatch;  // of both spans: chooses the track
    Pass pass = Pass::forward;
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

// Events one by one, in any order; a source has processes of its own, named when first seen.
class TraceWriter {
  public:
    explicit TraceWriter(std::ostream& stream);
    // num_ranks: names are padded to sort as numbers do, which is the order that viewers show.
    void begin_source(std::string name, int num_ranks);
    void write(const Span& span);
    void write(const TraceArrow& arrow);
    void write(const TraceCounter& counter);
    void close();

  private:
    void event(std::string_view text);
    void flush();
    int process(int rank) const { return first_ + rank; }  // a prediction is rank -1
    void name_track(int rank, int track);

    std::ostream& stream_;
    std::string text_, source_;
    std::set<std::pair<int, int>> named_;  // of this source: (rank, track), (rank, -1) for the rank
    std::map<std::pair<int, int>, std::int64_t> ends_;  // of this source's tracks, ns
    int first_ = 0, num_sources_ = 0, digits_ = 1;
    bool has_counters_ = false;
    std::size_t num_events_ = 0, num_arrows_ = 0;
};

void write_source(TraceWriter& writer, const TraceSource& source);
void write_trace(std::ostream& stream, std::span<const TraceSource> sources);

}  // namespace headway::inline report
