#include "models/report/trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace headway::inline report {
namespace {

// Ranks of one source are processes first, first + 1, ...; its links are one process more.
constexpr int kRanksPerSource = 1 << 20;
constexpr std::string_view kTrackNames[] = {"compute", "communication", "gradient", "send forward",
                                            "send backward"};

int track_of(Phase phase, Pass pass) {
    if (phase == Phase::pipeline_p2p) return pass == Pass::forward ? 3 : 4;
    const bool gradient = phase == Phase::grad_all_reduce || phase == Phase::expert_grad_all_reduce;
    return gradient ? 2 : (is_communication(phase) ? 1 : 0);
}

std::string json_text(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return out;
}

// Viewers count whole nanoseconds and drop a slice that begins before the one on its track ends:
// begin and end are rounded, not begin and duration.
std::int64_t nanoseconds(Seconds time) {
    return std::llround(time.in(ns));
}

std::string microseconds(std::int64_t nanoseconds) {
    return fmt::format("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000);
}

std::string microseconds(Seconds time) {
    return microseconds(nanoseconds(time));
}

}  // namespace

TraceWriter::TraceWriter(std::ostream& stream) : stream_(stream) {
    stream_ << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[";
}

void TraceWriter::close() {
    flush();
    stream_ << "\n]}\n";
}

void TraceWriter::begin_source(std::string name, int num_ranks) {
    source_ = json_text(name);
    digits_ = static_cast<int>(std::to_string(std::max(0, num_ranks - 1)).size());
    named_.clear();
    ends_.clear();
    has_counters_ = false;
    first_ = num_sources_++ * kRanksPerSource + 2;  // process 0 is special to some viewers
}

void TraceWriter::event(std::string_view text) {
    text_ += num_events_++ == 0 ? "\n" : ",\n";
    text_ += text;
    if (text_.size() > (1U << 16)) flush();
}

void TraceWriter::flush() {
    stream_ << text_;
    text_.clear();
}

void TraceWriter::name_track(int rank, int track) {
    if (!named_.insert({rank, track}).second) return;
    if (named_.insert({rank, -1}).second) {
        const std::string title =
            rank < 0 ? "busiest rank" : fmt::format("rank {:0{}}", rank, digits_);
        event(
            fmt::format(R"({{"ph":"M","name":"process_name","pid":{},"args":{{"name":"{}: {}"}}}})",
                        process(rank), source_, title));
        event(fmt::format(
            R"({{"ph":"M","name":"process_sort_index","pid":{0},"args":{{"sort_index":{0}}}}})",
            process(rank)));
    }
    event(
        fmt::format(R"({{"ph":"M","name":"thread_name","pid":{},"tid":{},"args":{{"name":"{}"}}}})",
                    process(rank), track, kTrackNames[track]));
}

void TraceWriter::write(const Span& s) {
    const int track = track_of(s.phase, s.pass);
    name_track(s.rank, track);
    std::int64_t begin = nanoseconds(s.begin);
    std::int64_t& last = ends_[{s.rank, track}];
    // A sum of picoseconds that was rounded twice: the same moment on both sides of a nanosecond.
    if (last == begin + 1) begin = last;
    last = std::max(begin, nanoseconds(s.begin + s.duration));
    event(fmt::format(
        R"({{"ph":"X","name":"{}","cat":"{}","pid":{},"tid":{},"ts":{},"dur":{},)"
        R"("args":{{"layer":{},"micro_batch":{},"bytes":{:.0f},"flops":{:.0f},"bottleneck":"{}","count":{}}}}})",
        name(s.phase), name(s.pass), process(s.rank), track, microseconds(begin),
        microseconds(last - begin), s.layer, s.micro_batch, s.bytes.in(byte), s.flops.in(flop),
        json_text(s.bottleneck), s.count));
}

// NOTE: an arrow binds to the slice that encloses its end points.
void TraceWriter::write(const TraceArrow& a) {
    ++num_arrows_;
    event(fmt::format(
        R"({{"ph":"s","name":"waited for","cat":"flow","id":{},"pid":{},"tid":{},"ts":{}}})",
        num_arrows_, process(a.from), track_of(a.phase, a.pass), microseconds(a.begin)));
    event(fmt::format(
        R"({{"ph":"f","bp":"e","name":"waited for","cat":"flow","id":{},"pid":{},"tid":{},"ts":{}}})",
        num_arrows_, process(a.to), track_of(a.phase, a.pass), microseconds(a.end)));
}

void TraceWriter::write(const TraceCounter& c) {
    const int links = first_ + kRanksPerSource - 2;
    if (!std::exchange(has_counters_, true)) {
        event(fmt::format(
            R"({{"ph":"M","name":"process_name","pid":{},"args":{{"name":"{}: links, GB/s"}}}})",
            links, source_));
    }
    const Seconds length = c.end - c.begin;
    const double rate = length > Seconds{} ? (c.bytes / length).in(GB / second) : 0.0;
    for (const auto& [time, value] : {std::pair(c.begin, rate), std::pair(c.end, 0.0)}) {
        event(fmt::format(R"({{"ph":"C","name":"{}","pid":{},"ts":{},"args":{{"GB/s":{:.3f}}}}})",
                          json_text(c.name), links, microseconds(time), value));
    }
}

void write_source(TraceWriter& writer, const TraceSource& source) {
    int num_ranks = 0;
    for (const Span& span : source.timeline->spans) num_ranks = std::max(num_ranks, span.rank + 1);
    writer.begin_source(source.name, num_ranks);
    for (const Span& span : source.timeline->spans) writer.write(span);
    for (const TraceArrow& arrow : source.arrows) writer.write(arrow);
    for (const TraceCounter& counter : source.counters) writer.write(counter);
}

void write_trace(std::ostream& stream, std::span<const TraceSource> sources) {
    TraceWriter writer(stream);
    for (const TraceSource& source : sources) write_source(writer, source);
    writer.close();
}

}  // namespace headway::inline report
