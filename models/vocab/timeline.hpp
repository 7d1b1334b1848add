// Timeline: what happened, or will happen, phase by phase. Predicted, simulated and measured runs
// all end here, with the same phase names; everything after it (tables, CSV, verify, plots)
// compares equals.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/phase.hpp"
#include "models/vocab/units.hpp"

namespace headway {

enum class Source { predicted, simulated, measured };
inline constexpr std::array kSourceNames = {
    std::string_view("predicted"), std::string_view("simulated"), std::string_view("measured")};

// One phase on one rank. A prediction has one rank, the busiest, numbered -1, and one span for
// `count` equal layers.
struct Span {
    int rank = -1;
    int layer = -1;  // -1: outside the layers (embedding, head, end of step)
    int micro_batch = 0;
    Pass pass = Pass::forward;
    Phase phase = Phase::embed;
    int count = 1;  // equal layers this span stands for; duration is of one
    Seconds begin;
    Seconds duration;   // measured: the median
    Seconds low, high;  // predicted: the interval; measured: p10 and p90
    Bytes bytes;        // sent off-rank (communication) or moved through memory (compute)
    Flops flops;
    int samples = 0;         // measured repetitions; 0 otherwise
    std::string bottleneck;  // "nvlink", "nic", "flops", "memory", "launch"...
};

// How a measured run went, beside its times.
struct RunState {
    int clock_mhz = 0;     // of the multiprocessors, the slowest rank's; 0: not known
    std::string throttle;  // what held it down ("power", "thermal"); empty: nothing
    Bytes memory_peak;     // of the fullest rank's allocator
    bool graph = false;    // its layers were replayed from a CUDA graph
    bool in_flow = false;  // passes ran as a job runs them; else exchanges were timed one by one

    friend bool operator==(const RunState&, const RunState&) = default;
};

// What a measured run was of: times say nothing of another number of ranks or tokens.
struct RunSize {
    int num_ranks = 0;
    int tokens_per_rank = 0;

    friend bool operator==(const RunSize&, const RunSize&) = default;
};

// Whole steps of a measured run, end to end and without the events that time their phases.
struct StepTimes {
    Seconds time, low, high;  // the median, p10 and p90
    int samples = 0;

    friend bool operator==(const StepTimes&, const StepTimes&) = default;
};

struct Timeline {
    Source source = Source::predicted;
    std::string scenario;
    std::string plan;
    std::string layer_split;  // of the plan; older files do not say it
    std::string profile;
    std::string version;
    std::uint64_t seed = 0;
    std::optional<RunState> run;    // of a run on GPUs
    std::optional<RunSize> size;    // of a measured run; older files do not say it
    std::optional<StepTimes> step;  // of a run of whole steps; else spans are of MoE layers alone
    std::vector<Span> spans;
};

}  // namespace headway
