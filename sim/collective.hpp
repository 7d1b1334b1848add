// RunningCollective: an Operation under way: which members have entered a stage, which messages are
// still missing, and when each member's last one came. Plain state; the simulation moves it on.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sim/network.hpp"
#include "sim/operation.hpp"

namespace headway::sim {

// The other end of a member's message, and the message.
struct Partner {
    std::int32_t member = 0, message = 0;
};

struct MemberState {
    Picoseconds last = 0;       // latest delivery
    std::int32_t slowest = -1;  // the message of that delivery, or -1
    int pending = 0;            // messages to and from the member
};

struct StageState {
    std::vector<std::uint8_t> armed;  // [member]
    std::vector<MemberState> members;
    std::vector<Picoseconds> begin;      // [message]; only with traces
    std::vector<std::int32_t> first_of;  // [member + 1] into `partners`
    std::vector<Partner> partners;
    int num_armed = 0, num_pending = 0;

    std::span<const Partner> partners_of(std::size_t member) const {
        return {partners.data() + first_of[member],
                static_cast<std::size_t>(first_of[member + 1] - first_of[member])};
    }
};

// What a message of an exchange under way takes here: itself, its places in `partners`, and what
// the network keeps of it.
inline constexpr double kBytesOfMessage = sizeof(Message) + 2 * sizeof(Partner) + 48;

struct RunningCollective {
    Operation operation;
    std::vector<StageState> states;         // of each stage; may be longer
    std::vector<double> sent;               // [member] bytes
    std::optional<Network::Opened> opened;  // in the network
    int members_done = 0;
    int task = 0, group = 0;
    std::uint32_t slot = 0;  // its number among those under way
    double decoupling_error = 0.0;

    int num_stages() const { return static_cast<int>(operation.stages.size()); }
    int member_index(int rank) const;
    bool is_rendezvous() const;  // one stage without messages: all leave together
};

// Spells out `task` for `group` into `c`, whose memory is used again.
void begin_collective(const Task& task, int group, const PathTable& paths, double epsilon,
                      bool trace, RunningCollective& c);

}  // namespace headway::sim
