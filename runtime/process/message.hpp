// What the ranks tell each other on the side channel, and its bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/communicator.hpp"
#include "runtime/process/connection.hpp"

namespace headway::runtime {

// Named values that must be equal on all ranks: hash of the configuration, versions.
using Facts = std::vector<std::pair<std::string, std::string>>;

struct Hello {
    int rank = 0;
    int size = 1;
    Facts facts;
};

// A sign of life: where a rank is, and for how long it has made no progress.
struct Report {
    std::optional<CallSite> site;
    std::uint64_t num_entered = 0;  // phases entered since the start
    double idle = 0.0;              // s
    bool waiting = false;           // for other ranks or for the device
};

// Collectives are compared by name, so that ranks in different ones are told so.
struct Contribution {
    std::string collective;
    std::string bytes;
};

// Why the run ends. `refused`: bad input, found on or between the ranks.
struct Failure {
    int rank = 0;
    std::optional<CallSite> site;
    std::string cause;
    bool refused = false;
    bool symptom = false;  // may be the consequence of another rank's end, not yet noticed
};

Frame encode(const Hello& hello);
Frame encode(const Report& report);
Frame encode(const Contribution& contribution);
Frame encode(FrameType type, const Failure& failure);  // fail or abort
Frame encode_gathered(const std::vector<Contribution>& contributions);

Hello decode_hello(const Frame& frame);
Report decode_report(const Frame& frame);
Contribution decode_contribution(const Frame& frame);
Failure decode_failure(const Frame& frame);
std::vector<std::string> decode_gathered(const Frame& frame);

}  // namespace headway::runtime
