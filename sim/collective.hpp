// RunningCollective: an Operation under way: which members have entered a stage, which messages are
// still missing, and when each member's last one came. A member enters a stage, waits its latency,
// is armed; messages start when both their ends are armed; the member leaves the stage when its
// last message has come. In a collective stage all messages start together and all members leave
// together.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sim/course_memory.hpp"
#include "sim/event_queue.hpp"
#include "sim/network.hpp"
#include "sim/operation.hpp"
#include "sim/path_table.hpp"

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
    Operation operation;                    // if it is spelled out
    std::vector<StageState> states;         // of each stage; may be longer
    std::vector<double> sent;               // [member] bytes
    std::optional<Network::Opened> opened;  // in the network
    int members_done = 0;
    int task = 0, group = 0;
    std::uint32_t slot = 0;  // its number among those under way
    double decoupling_error = 0.0;
    bool spelled_out = false;

    // If its kind may repeat, it is put off until somebody may leave, then takes a course noted
    // before or is simulated and noted, for as long as it has its links to itself.
    enum class Mode { simulated, put_off, repeats };
    Mode mode = Mode::simulated;
    CollectiveKind* kind = nullptr;     // null: does not repeat
    bool noted = false;                 // simulated, with its links to itself
    Picoseconds first = 0;              // arrival
    std::vector<Picoseconds> arrivals;  // [member] since then, or kNotYet
    std::vector<int> order;             // members that have arrived
    int num_entered = 0;
    std::vector<std::uint8_t> departed;  // [member]
    const Course* course = nullptr;      // that it repeats,
    std::size_t num_left = 0;            // up to this departure
    std::size_t num_come = 0;            // and all of this many in its order have arrived
    int version = 0;                     // of what it expects next
    Course own;                          // to be noted
    std::vector<Network::Load> before;   // [link of the kind]

    int num_stages() const {
        return kind != nullptr ? kind->num_stages : static_cast<int>(operation.stages.size());
    }
    const std::vector<int>& members() const {
        return kind != nullptr ? kind->members : operation.members;
    }
    int member_index(int rank) const;
    bool opens(int member, int stage) const;  // its links, once the member is armed
    bool is_rendezvous() const;               // one stage without messages: all leave together
    Picoseconds latency(int stage) const {
        return spelled_out ? operation.stages[static_cast<std::size_t>(stage)].latency
                           : kind->latency;
    }
    double bytes_sent(int member) const;
    // The path of the message that a member which leaves now has waited for last.
    PathClass bottleneck(int member) const;
};

// Where it runs.
struct Medium {
    const Topology& topology;
    Network& network;
    EventQueue& events;
    bool trace = false;
};

// What follows from a member being armed.
enum class Armed {
    waits,    // for its messages
    leaves,   // there are none for it
    all_meet  // it is the last of a collective stage without messages
};

// An event: the rank, which enters the stage at `now`, has waited its latency.
void push_armed(RunningCollective& run, int rank, int stage, Picoseconds now, EventQueue& events);
Armed arm(RunningCollective& run, int member, int stage, Picoseconds now, const Medium& in);
// All members leave the stage at `time`.
void release(const RunningCollective& run, int stage, Picoseconds time, EventQueue& events);
// The tag under which a message goes through the network names its collective's slot.
inline std::uint32_t slot_of(const Delivery& delivery) {
    return static_cast<std::uint32_t>(delivery.tag >> 44);
}
void deliver(RunningCollective& run, const Delivery& delivery, Picoseconds now, const Medium& in);

// A new collective of `group` in `c`, whose memory is used again.
void begin_collective(int group, RunningCollective& c);
// Spells out its messages.
void spell_out(const Task& task, const PathTable& paths, double epsilon, bool trace,
               RunningCollective& c);

}  // namespace headway::sim
