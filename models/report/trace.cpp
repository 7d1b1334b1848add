#include "models/report/trace.hpp"

#include <fmt/format.h>
#include <fmt/ostream.h>

#include <algorithm>
#include <iterator>
#include <set>

namespace headway {
namespace {

// Ranks of one source are processes first, first + 1, ...; its links are one process more.
constexpr int kRanksPerSource = 1 << 20;
constexpr std::string_view kTrackNames[] = {"compute", "communication", "gradient"};

int track_of(Phase phase) {
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

class TraceWriter {
  public:
    explicit TraceWriter(std::ostream& stream) : stream_(stream) {
        stream_ << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[";
    }
    void close() {
        flush();
        stream_ << "\n]}\n";
    }

    void write(const TraceSource& source, int index) {
        first_ = index * kRanksPerSource + 2;  // process 0 is special to some viewers
        name_processes(source);
        for (const Span& span : source.timeline->spans) write_span(span);
        for (const TraceArrow& arrow : source.arrows) write_arrow(arrow);
        write_counters(source);
    }

  private:
    template <class... Args>
    void event(fmt::format_string<Args...> format, Args&&... args) {
        text_ += num_events_++ == 0 ? "\n" : ",\n";
        fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
        if (text_.size() > (1U << 16)) flush();
    }
    void flush() {
        stream_ << text_;
        text_.clear();
    }
    int process(int rank) const { return first_ + rank; }  // a prediction is rank -1

    void name_processes(const TraceSource& source) {
        std::set<std::pair<int, int>> tracks;
        std::set<int> ranks;
        for (const Span& s : source.timeline->spans) {
            ranks.insert(s.rank);
            tracks.insert({s.rank, track_of(s.phase)});
        }
        for (const int rank : ranks) {
            const std::string title = rank < 0 ? "busiest rank" : fmt::format("rank {}", rank);
            event(R"({{"ph":"M","name":"process_name","pid":{},"args":{{"name":"{}: {}"}}}})",
                  process(rank), json_text(source.name), title);
            event(
                R"({{"ph":"M","name":"process_sort_index","pid":{0},"args":{{"sort_index":{0}}}}})",
                process(rank));
        }
        for (const auto& [rank, track] : tracks) {
            event(R"({{"ph":"M","name":"thread_name","pid":{},"tid":{},"args":{{"name":"{}"}}}})",
                  process(rank), track, kTrackNames[track]);
        }
    }

    void write_span(const Span& s) {
        event(
            R"({{"ph":"X","name":"{}","cat":"{}","pid":{},"tid":{},"ts":{:.6f},"dur":{:.6f},)"
            R"("args":{{"layer":{},"micro_batch":{},"bytes":{:.0f},"flops":{:.0f},"bottleneck":"{}","count":{}}}}})",
            name(s.phase), name(s.pass), process(s.rank), track_of(s.phase), s.begin.in(us),
            s.duration.in(us), s.layer, s.micro_batch, s.bytes.in(byte), s.flops.in(flop),
            json_text(s.bottleneck), s.count);
    }

    // NOTE: an arrow binds to the slice that encloses its end points.
    void write_arrow(const TraceArrow& a) {
        ++num_arrows_;
        event(
            R"({{"ph":"s","name":"waited for","cat":"flow","id":{},"pid":{},"tid":{},"ts":{:.6f}}})",
            num_arrows_, process(a.from), track_of(a.phase), a.begin.in(us));
        event(
            R"({{"ph":"f","bp":"e","name":"waited for","cat":"flow","id":{},"pid":{},"tid":{},"ts":{:.6f}}})",
            num_arrows_, process(a.to), track_of(a.phase), a.end.in(us));
    }

    void write_counters(const TraceSource& source) {
        if (source.counters.empty()) return;
        const int links = first_ + kRanksPerSource - 2;
        event(R"({{"ph":"M","name":"process_name","pid":{},"args":{{"name":"{}: links, GB/s"}}}})",
              links, json_text(source.name));
        for (const TraceCounter& c : source.counters) {
            const Seconds length = c.end - c.begin;
            const double rate = length > Seconds{} ? (c.bytes / length).in(GB / second) : 0.0;
            for (const auto& [time, value] : {std::pair(c.begin, rate), std::pair(c.end, 0.0)}) {
                event(R"({{"ph":"C","name":"{}","pid":{},"ts":{:.6f},"args":{{"GB/s":{:.3f}}}}})",
                      json_text(c.name), links, time.in(us), value);
            }
        }
    }

    std::ostream& stream_;
    std::string text_;
    int first_ = 0;
    std::size_t num_events_ = 0;
    std::size_t num_arrows_ = 0;
};

}  // namespace

void write_trace(std::ostream& stream, std::span<const TraceSource> sources) {
    TraceWriter writer(stream);
    int index = 0;
    for (const TraceSource& source : sources) writer.write(source, index++);
    writer.close();
}

}  // namespace headway
