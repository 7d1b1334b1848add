// Recorder: what every rank did when, while a step is simulated: sums by phase always, spans if the
// timeline is wanted.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "models/vocab/program.hpp"
#include "models/vocab/timeline.hpp"
#include "sim/flow_engine.hpp"

namespace headway::sim {

struct SpanRecord {
    std::int32_t rank = 0, task = 0;
    Picoseconds begin = 0, end = 0;
    double bytes = 0.0;                      // sent, of collectives
    PathClass bottleneck = PathClass::self;  // path of the message it ended with; self: none
};

// The message that a rank's collective ended with: who it waited for.
struct Arrow {
    int from = 0, to = 0;  // ranks
    int task = 0;
    Phase phase = Phase::dispatch;  // of the task
    Pass pass = Pass::forward;
    Seconds begin, end;
};

// One phase in one pass, summed over the step.
struct PhaseUse {
    Phase phase = Phase::embed;
    Pass pass = Pass::forward;
    int count = 0;              // executions on the rank with the most
    std::vector<Seconds> time;  // [rank]
    std::vector<Bytes> bytes;   // [rank] sent, or moved through memory
};

class Recorder {
  public:
    // room: for all spans of the step at once.
    Recorder(const Program& program, bool keep_spans, bool room);

    void add(const SpanRecord& span);
    // From here on spans are also kept apart, until taken.
    void begin_section();
    std::vector<SpanRecord> take_section();

    std::vector<PhaseUse> phases() const;
    std::size_t num_spans() const { return spans_.size(); }
    std::vector<Span> take_spans();  // since they were last taken

  private:
    struct Sums {
        std::vector<int> count;         // [rank]
        std::vector<Picoseconds> time;  // [rank]
        std::vector<double> bytes;      // [rank]
    };
    Bytes bytes_of(const SpanRecord& span) const;

    const Program& program_;
    bool keep_spans_ = false, in_section_ = false;
    std::vector<SpanRecord> spans_, section_;
    std::array<std::array<Sums, static_cast<std::size_t>(kNumPhases)>, 3> sums_;
};

}  // namespace headway::sim
