// simulate: executes a Program on a Topology. Every rank works through the task list of its role on
// its streams; compute takes its time (longer while the rank communicates), collectives become
// messages that share links by max-min fairness with everything else in flight. One thread, integer
// picoseconds, ties in the order of creation: bitwise reproducible.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "models/vocab/program.hpp"
#include "models/vocab/timeline.hpp"
#include "sim/all_to_all.hpp"
#include "sim/network.hpp"
#include "sim/recorder.hpp"
#include "sim/topology.hpp"

namespace headway::sim {

// Is given what a trace shows while the simulation goes on, in no particular order, so that a long
// step needs no memory for it.
struct TraceSink {
    std::function<void(const Span&)> span;
    std::function<void(const Arrow&)> arrow;
    std::function<void(const std::string& link, const LinkInterval&)> activity;
};

struct SimulateOptions {
    // Completions on the same links within this fraction of the time that their traffic needs count
    // as one; 0: exact.
    double epsilon = 0.0;
    bool timeline = true;   // keep every span; without, only sums by phase
    bool trace = false;     // keep who waited for whom, and link use over time
    bool link_use = false;  // keep link use over time
    // What repeats exactly, sections and collectives, is simulated once (not with traces and link
    // use). The same comes out, to the bit.
    bool repeat = true;
    const TraceSink* sink = nullptr;  // the result has no arrows then, nor a timeline if not asked
    std::function<void(std::size_t done, std::size_t total)> progress;
};

struct LinkActivity {
    int link = 0;  // in SimulationResult::links
    Seconds begin, end;
    Bytes bytes;
};

struct SimulationResult {
    std::optional<Unreachable> unreachable;  // the step cannot run; the rest is empty then
    Timeline timeline;                       // names and seed are the caller's to fill in
    std::vector<PhaseUse> phases;
    Seconds step;
    Seconds error_bound;  // of `step`: what batching may have moved, summed over collectives
    std::vector<Seconds> rank_finish;
    // With several roles, the end of the last forward or backward, and for how much of the time
    // until then each rank computed or communicated in them.
    Seconds passes;
    std::vector<Seconds> rank_busy;
    std::vector<LinkUse> links;  // that carried anything
    std::vector<LinkActivity> activity;
    std::vector<Arrow> arrows;
    std::int64_t messages = 0, instants = 0, events = 0;
    int sections = 0, repeated_sections = 0;  // between still moments (repetition.hpp)
    std::int64_t repeated_collectives = 0;    // took a course noted before (course_memory.hpp)
};

// Throws std::logic_error when the program cannot end.
SimulationResult simulate(const Program& program, const Topology& topology,
                          const SimulateOptions& options = {});

}  // namespace headway::sim
