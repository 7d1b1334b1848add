// Communicator: the collectives that the EP and HP layers need, as one rank of a group sees them.
// Buffers are raw so that a backend may keep them on a device; blocks lie one after the other in
// rank order. Every payload byte is counted by the phase that the rank said it is in, so that the
// traffic of a real run can be compared with the Workload's matrix byte for byte.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "models/vocab/phase.hpp"
#include "models/vocab/traffic_matrix.hpp"

namespace headway::runtime {

struct CallSite {
    Phase phase = Phase::route;
    Pass pass = Pass::forward;

    friend auto operator<=>(const CallSite&, const CallSite&) = default;
};

// Bytes that one rank sent to every rank of the world, itself included, by call site.
using TrafficLedger = std::map<CallSite, std::vector<std::int64_t>>;  // [destination]

// The ledgers of ranks 0, 1, ... as one matrix per call site.
std::map<CallSite, TrafficMatrix> gather_traffic(std::span<const TrafficLedger> ledgers);

// A rank of the run threw, stalled or went missing. Thrown to whoever started the ranks; a command
// line ends with kRankFailureExit.
class RankFailure : public std::runtime_error {
  public:
    RankFailure(int rank, std::optional<CallSite> site, const std::string& cause);

    int rank;
    std::optional<CallSite> site;  // the phase that the rank was in; none: before its first
    std::string cause;
};
inline constexpr int kRankFailureExit = 4;  // 3 is an internal error

class Communicator {
  public:
    virtual ~Communicator() = default;

    virtual int rank() const = 0;  // within this group
    virtual int size() const = 0;

    // What this rank does from here on: bytes are booked on it, and a failure names it.
    virtual void enter(CallSite site) = 0;

    // Sizes in bytes, [size()]. receive_bytes[s] must equal what rank s sends here.
    virtual void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes,
                              void* receive, std::span<const std::int64_t> receive_bytes) = 0;
    // The same number of bytes between every two ranks.
    virtual void all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair) = 0;
    // In place; always added in rank order, so the result is the same on every rank and in every
    // run.
    virtual void all_reduce_sum(std::span<float> values) = 0;
    virtual void all_reduce_sum(std::span<double> values) = 0;
    // Every rank's counts, in rank order; all ranks give equally many. [size() * own.size()]
    virtual std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) = 0;
    virtual void barrier() = 0;

    // The subgroup of ranks that gave the same colour, in their order here. Collective. Bytes are
    // still booked by world rank.
    virtual std::unique_ptr<Communicator> split(int color) = 0;

    // What this rank has sent since the start, in world ranks.
    virtual const TrafficLedger& traffic() const = 0;
};

}  // namespace headway::runtime
