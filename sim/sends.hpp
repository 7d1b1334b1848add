// Sends: messages under way between roles, each over the links of its path from when its latency
// has passed.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/event_queue.hpp"
#include "sim/network.hpp"
#include "sim/path_table.hpp"

namespace headway::sim {

// Throws std::logic_error unless every message is sent once, and received, by the roles of the
// program. Returns how many messages come to each role.
std::vector<int> check_messages(const Program& program);

class Sends {
  public:
    Sends(const Program& program, const PathTable& paths, Network& network, EventQueue& events);

    // The network tells by the tag whose a message is.
    static bool is_send(std::uint64_t tag) { return (tag & kMark) != 0; }

    int receiver(int rank, int task) const;
    std::span<const Route> routes(int rank, int task) const;
    void start(int rank, int task, Picoseconds now);
    // It comes at `time`, which makes an event.
    void deliver(std::uint64_t tag, Picoseconds time);
    // After that event, whose `stage` is its number: the seconds by which batching may have moved
    // it. Parts have rates of their own: by what the first came earlier than the last.
    double close(int number);

  private:
    static constexpr std::uint64_t kMark = std::uint64_t{1} << 63;

    struct Part {
        Path path;
        Network::Opened opened;
    };
    struct UnderWay {
        int rank = 0, task = 0;
        std::vector<Part> parts;  // of the message in each plane
        int pending = 0;
        Picoseconds first = 0, last = 0;  // that a part came
        Picoseconds latency = 0;          // after the last, by links' own
    };
    void arrive(int number);
    const SendTask& send(int task) const;

    const Program& program_;
    const PathTable& paths_;
    Network& network_;
    EventQueue& events_;
    std::deque<UnderWay> under_way_;  // a path stays where it is
    std::vector<int> free_;           // numbers in it
};

}  // namespace headway::sim
